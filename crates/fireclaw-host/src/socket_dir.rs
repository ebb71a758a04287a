//! Sockets in directories whose path may be long.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use crate::PathError;

/// An open directory in which sockets are bound and connected to by name.
///
/// A socket address holds 108 bytes (`unix(7)`), fewer than many a home
/// directory needs. Names are therefore reached through the open directory,
/// as `/proc/self/fd/<n>/<name>`.
#[derive(Debug)]
pub struct SocketDir {
    path: PathBuf,
    dir: File,
}

impl SocketDir {
    /// Opens the directory.
    ///
    /// # Errors
    /// [`PathError`] if it is not there or may not be read.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, PathError> {
        let path = path.into();
        let dir = File::open(&path).map_err(PathError::at("open", &path))?;
        Ok(Self { path, dir })
    }

    /// The directory's own path, of any length.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The short path of `name`, good in this process while `self` lives.
    pub fn name(&self, name: &str) -> PathBuf {
        format!("/proc/self/fd/{}/{name}", self.dir.as_raw_fd()).into()
    }
}
