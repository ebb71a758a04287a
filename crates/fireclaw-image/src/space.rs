//! Room on the disk, asked for before and explained after.

use std::path::Path;

use crate::{Error, Result};

/// The free space that set-up asks for before it starts, in MiB: the packages,
/// their unpacked tree, and the finished image.
const NEEDED_MIB: u64 = 1500;

/// Refuses to begin without enough free space in `directory`.
pub fn require(directory: &Path) -> Result<()> {
    match free_mib(directory) {
        Some(free_mib) if free_mib < NEEDED_MIB => Err(full(directory, free_mib)),
        _ => Ok(()),
    }
}

/// The error for a file that could not grow.
pub fn error(file: &Path) -> Option<Error> {
    let directory = file.parent()?;
    Some(full(directory, free_mib(directory)?))
}

fn full(directory: &Path, free_mib: u64) -> Error {
    Error::NoSpace { path: directory.to_owned(), needed_mib: NEEDED_MIB, free_mib }
}

fn free_mib(directory: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(directory).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize) >> 20)
}
