//! Which Firecracker is installed.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{Error, Result};

/// The program's name, as errors call it.
const NAME: &str = "firecracker";

/// The oldest version that has every request and field that we send: the
/// `vsock_override` of a snapshot's load is the newest of them.
const OLDEST: (u64, u64) = (1, 16);

/// Finds the program and makes its path absolute.
pub(super) fn find(explicit: Option<&Path>) -> Result<PathBuf> {
    let wanted = explicit
        .map(Path::to_owned)
        .or_else(|| env::var_os("FIRECLAW_FIRECRACKER").filter(|v| !v.is_empty()).map(Into::into))
        .unwrap_or_else(|| NAME.into());
    search(&wanted, env::var_os("PATH").as_deref())
        .and_then(|path| std::path::absolute(path).ok())
        .ok_or_else(|| Error::VmmMissing { program: wanted.display().to_string() })
}

/// As a shell does it: only a bare name is looked for on `PATH`.
fn search(wanted: &Path, path: Option<&OsStr>) -> Option<PathBuf> {
    if wanted.components().count() > 1 || wanted.is_absolute() {
        return is_program(wanted).then(|| wanted.to_owned());
    }
    env::split_paths(path?).map(|dir| dir.join(wanted)).find(|candidate| is_program(candidate))
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// Asks the program for its version, such as `1.17.0-dev`.
pub(super) fn ask_version(program: &Path) -> Result<String> {
    let spawn = |source| Error::Spawn { program: program.display().to_string(), source };
    let output = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .env_clear()
        .output()
        .map_err(spawn)?;
    let said = String::from_utf8_lossy(&output.stdout);
    match said.lines().next().and_then(|line| line.trim().strip_prefix("Firecracker v")) {
        Some(version) => Ok(version.to_owned()),
        None => Err(spawn(io::Error::other("it did not tell a Firecracker version"))),
    }
}

/// Refuses versions that lack what we need.
pub(super) fn check_version(version: &str) -> Result<()> {
    if release(version).is_some_and(|found| found >= OLDEST) {
        return Ok(());
    }
    Err(Error::VmmTooOld {
        program: NAME.to_owned(),
        found: crate::console::escape(version),
        needed: format!("{}.{}", OLDEST.0, OLDEST.1),
    })
}

fn release(version: &str) -> Option<(u64, u64)> {
    let mut numbers = version.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn script(dir: &Path, name: &str, text: &str) -> PathBuf {
        let path = dir.join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn versions_are_compared_by_number() {
        for good in ["1.16.0", "1.17.0-dev", "1.100.2", "2.0.0"] {
            check_version(good).unwrap();
        }
        for bad in ["1.9.1", "1.15.3", "0.25.0", "", "new"] {
            let error = check_version(bad).unwrap_err();
            assert!(matches!(error, Error::VmmTooOld { .. }), "{bad}: {error}");
        }
    }

    #[test]
    fn the_version_is_the_first_line() {
        let dir = tempfile::tempdir().unwrap();
        let good = script(dir.path(), "good", "printf 'Firecracker v1.17.0-dev\\n\\nexiting\\n'");
        assert_eq!(ask_version(&good).unwrap(), "1.17.0-dev");
        let other = script(dir.path(), "other", "echo QEMU emulator version 7.2.22");
        assert!(matches!(ask_version(&other).unwrap_err(), Error::Spawn { .. }));
    }

    #[test]
    fn only_programs_are_found() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("firecracker"), "not executable").unwrap();
        let path = Some(dir.path().as_os_str());
        assert_eq!(search(Path::new("firecracker"), path), None);
        let program = script(dir.path(), "fc", "true");
        assert_eq!(search(Path::new("fc"), path), Some(program.clone()));
        assert_eq!(search(&program, None), Some(program));
        let missing = find(Some(&dir.path().join("absent"))).unwrap_err();
        assert!(matches!(missing, Error::VmmMissing { .. }), "{missing}");
    }
}
