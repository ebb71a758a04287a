//! A file or directory that could not be used.

use std::io;
use std::path::PathBuf;

/// What was tried with a file or directory, and what the system said to it.
#[derive(Debug)]
pub struct PathError {
    /// What was tried, such as `create`.
    pub action: &'static str,
    /// On which path.
    pub path: PathBuf,
    /// What the system said.
    pub cause: io::Error,
}

impl PathError {
    /// Makes the error of a system call: `fs::read(path).map_err(PathError::at("read", path))`.
    pub fn at(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |cause| Self { action, path, cause }
    }
}

impl std::fmt::Display for PathError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cannot {} {}: {}", self.action, self.path.display(), self.cause)
    }
}

// Its text carries the cause, so `source` does not repeat it.
impl std::error::Error for PathError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_names_action_path_and_cause() {
        let missing = "/nonexistent/file";
        let error = std::fs::read(missing).map_err(PathError::at("read", missing)).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("cannot read /nonexistent/file: No such file"), "{text}");
        assert!(std::error::Error::source(&error).is_none());
    }
}
