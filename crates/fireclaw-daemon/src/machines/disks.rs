//! The files behind the disks of agents' machines.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{Error, Result};

/// An agent's workspace: made if it is not there, grown if it is smaller.
pub fn workspace(path: &Path, mib: u64) -> Result<()> {
    if path.exists() {
        return sparse(path, mib);
    }
    // Under another name until it is whole.
    let fresh = path.with_extension("new");
    let _ = fs::remove_file(&fresh);
    sparse(&fresh, mib)?;
    // Nothing in it is kept for root: it is the agent's alone.
    format(&fresh, &["-m", "0", "-L", "workspace"])?;
    fs::rename(&fresh, path).map_err(Error::file("create", path))
}

/// Keeps a workspace as it is under another name, in place of an earlier such copy.
pub fn keep(path: &Path) -> Result<PathBuf> {
    let copy = path.with_extension("damaged");
    fs::copy(path, &copy).map_err(Error::file("copy", path))?;
    Ok(copy)
}

/// A machine's scratch disk, made anew. It has no journal: it does not outlive the
/// machine.
pub fn scratch(path: &Path, mib: u64) -> Result<()> {
    let _ = fs::remove_file(path);
    sparse(path, mib)?;
    format(path, &["-m", "0", "-L", "scratch", "-O", "^has_journal"])
}

/// Makes a sparse file, or lets it grow; it never shrinks.
pub fn sparse(path: &Path, mib: u64) -> Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(Error::file("create", directory))?;
    }
    let file = fs::File::options().create(true).truncate(false).write(true).open(path);
    let file = file.map_err(Error::file("create", path))?;
    let length = file.metadata().map_err(Error::file("read", path))?.len();
    if length < mib << 20 {
        file.set_len(mib << 20).map_err(Error::file("write", path))?;
    }
    Ok(())
}

/// Makes an ext4 file system on a blank disk. What need not be written stays a hole.
fn format(path: &Path, options: &[&str]) -> Result<()> {
    let program = fireclaw_vm::find_program("FIRECLAW_MKE2FS", "mke2fs")
        .map_err(|_| Error::Workspace("mke2fs is missing: apt-get install e2fsprogs".into()))?;
    let output = Command::new(program)
        .args(["-q", "-F", "-t", "ext4"])
        .args(options)
        .arg(path)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| Error::System("starting mke2fs", e))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(Error::Workspace(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}
