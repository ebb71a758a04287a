//! Which version of Firecracker is installed.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::{Error, Result};

/// The oldest version that has every request and field that we send: the
/// `vsock_override` of a snapshot's load is the newest of them. 1.16.0 lacks
/// the mends of its first patch release.
const OLDEST: (u64, u64, u64) = (1, 16, 1);

/// Asks the program for its version, such as `1.17.0-dev`.
pub(super) fn ask(program: &Path) -> Result<String> {
    let spawn = |cause| Error::Spawn { program: program.display().to_string(), cause };
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
pub(super) fn check(version: &str) -> Result<()> {
    if release(version).is_some_and(|found| found >= OLDEST) {
        return Ok(());
    }
    Err(Error::VmmTooOld {
        program: super::PROGRAM.to_owned(),
        found: fireclaw_host::escape(version),
        needed: format!("{}.{}.{}", OLDEST.0, OLDEST.1, OLDEST.2),
    })
}

fn release(version: &str) -> Option<(u64, u64, u64)> {
    let release = version.split(['-', '+']).next()?;
    let mut numbers = release.split('.').map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??, numbers.next()??))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use super::*;

    fn script(dir: &Path, name: &str, text: &str) -> PathBuf {
        let path = dir.join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn versions_are_compared_by_number() {
        for good in ["1.16.1", "1.17.0-dev", "1.100.2", "2.0.0"] {
            check(good).unwrap();
        }
        for bad in ["1.9.1", "1.15.3", "1.16.0", "1.16", "0.25.0", "", "new"] {
            let error = check(bad).unwrap_err();
            assert!(matches!(error, Error::VmmTooOld { .. }), "{bad}: {error}");
        }
    }

    #[test]
    fn the_version_is_the_first_line() {
        let dir = tempfile::tempdir().unwrap();
        let good = script(dir.path(), "good", "printf 'Firecracker v1.17.0-dev\\n\\nexiting\\n'");
        assert_eq!(ask(&good).unwrap(), "1.17.0-dev");
        let other = script(dir.path(), "other", "echo QEMU emulator version 7.2.22");
        assert!(matches!(ask(&other).unwrap_err(), Error::Spawn { .. }));
    }
}
