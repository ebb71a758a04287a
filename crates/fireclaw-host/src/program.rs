//! Where an installed program is.

use std::env;
use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Where programs for administrators are, which is not on everybody's `PATH`.
const ADMIN: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// No program of that name is installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramMissing {
    /// The program's name or path as asked for.
    pub program: String,
    /// The environment variable that can name it; empty if none can.
    pub variable: String,
}

impl std::fmt::Display for ProgramMissing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} is not installed", self.program)
    }
}

impl std::error::Error for ProgramMissing {}

/// Finds the program that the environment variable names, else `name` on
/// `PATH` or where programs for administrators are, and makes its path absolute.
///
/// # Errors
/// [`ProgramMissing`] if there is no such executable file.
pub fn find_program(variable: &str, name: &str) -> Result<PathBuf, ProgramMissing> {
    let named = env::var_os(variable).filter(|value| !value.is_empty());
    let wanted = named.map_or_else(|| PathBuf::from(name), PathBuf::from);
    search(&wanted, env::var_os("PATH").as_deref())
        .and_then(|path| std::path::absolute(path).ok())
        .ok_or_else(|| ProgramMissing {
            program: wanted.display().to_string(),
            variable: variable.to_owned(),
        })
}

/// As a shell does it: only a bare name is looked for on `PATH`.
fn search(wanted: &Path, path: Option<&OsStr>) -> Option<PathBuf> {
    if wanted.components().count() > 1 || wanted.is_absolute() {
        return is_program(wanted).then(|| wanted.to_owned());
    }
    env::split_paths(path.unwrap_or_default())
        .chain(ADMIN.map(PathBuf::from))
        .map(|dir| dir.join(wanted))
        .find(|candidate| is_program(candidate))
}

/// Whether it is a file that may be executed.
pub fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn only_programs_are_found() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("firecracker"), "not executable").unwrap();
        let path = Some(dir.path().as_os_str());
        assert_eq!(search(Path::new("firecracker"), path), None);
        let program = dir.path().join("fc");
        fs::write(&program, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(search(Path::new("fc"), path), Some(program.clone()));
        assert_eq!(search(&program, None), Some(program));
        let missing = find_program("", "fireclaw-absent").unwrap_err();
        assert_eq!(missing.to_string(), "fireclaw-absent is not installed");
    }
}
