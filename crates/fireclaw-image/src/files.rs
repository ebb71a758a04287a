//! Files that are either whole or absent.

use std::fs::{self, File, Permissions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use fireclaw_host::PathError;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{Error, Home, Result};

/// What a file that is being written is called; the rest is its writer's pid.
const PARTIAL: &str = ".partial-";

/// Writes a file at `relative` below the home: filled under another name,
/// synced, then renamed, and removed if anything fails.
pub fn create(
    home: &Home,
    relative: &Path,
    fill: impl FnOnce(&Path) -> Result<()>,
) -> Result<Artifact> {
    let path = home.join(relative);
    let directory = path.parent().unwrap_or(home.root());
    fs::create_dir_all(directory).map_err(PathError::at("create", directory))?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!("{PARTIAL}{}", std::process::id()));
    let partial = Partial(directory.join(name));
    fill(&partial.0)?;
    let file = File::open(&partial.0).map_err(PathError::at("open", &partial.0))?;
    // Shared by all VMs, also by VMMs that run as another user and get a link; who
    // may get at it is the home's affair, whatever the umask.
    let mode = file.metadata().map_err(PathError::at("read", &partial.0))?.permissions().mode();
    file.set_permissions(Permissions::from_mode(mode & 0o777 | 0o444))
        .map_err(PathError::at("write", &partial.0))?;
    file.sync_all().map_err(PathError::at("write", &partial.0))?;
    let bytes = file.metadata().map_err(PathError::at("read", &partial.0))?.len();
    let sha256 = digest(file).map_err(PathError::at("read", &partial.0))?;
    fs::rename(&partial.0, &path).map_err(PathError::at("create", &path))?;
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(PathError::at("write", directory))?;
    Ok(Artifact { file: relative.to_owned(), sha256, bytes })
}

/// Writes `bytes` as a whole file.
pub fn write(home: &Home, relative: &Path, bytes: &[u8]) -> Result<Artifact> {
    create(home, relative, |path| {
        Ok(File::create(path)
            .and_then(|mut file| file.write_all(bytes))
            .map_err(PathError::at("write", path))?)
    })
}

/// Removed when dropped; after the rename there is nothing left to remove.
struct Partial(PathBuf);

impl Drop for Partial {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Removes what a killed writer left in `directory`. Only the holder of the
/// set-up lock may do that.
pub fn remove_partials(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some((_, writer)) = name.rsplit_once(PARTIAL) else { continue };
        // A run joins its initramfs without the lock: leave the living alone.
        if !Path::new("/proc").join(writer).exists() {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// A file of ours with what it must contain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// Its path below the home.
    pub file: PathBuf,
    /// Its SHA-256 in hexadecimal.
    pub sha256: String,
    /// Its length.
    pub bytes: u64,
}

impl Artifact {
    /// Whether a file of the right length is there: cheap enough for each run.
    pub fn is_present(&self, home: &Home) -> bool {
        fs::metadata(self.path(home)).is_ok_and(|m| m.is_file() && m.len() == self.bytes)
    }

    /// Reads all of it and compares the digest.
    pub fn verify(&self, home: &Home) -> Result<()> {
        let path = self.path(home);
        let file = File::open(&path).map_err(PathError::at("open", &path))?;
        let found = digest(file).map_err(PathError::at("read", &path))?;
        if found == self.sha256 {
            return Ok(());
        }
        let problem = format!("its SHA-256 is {found}, not {}", self.sha256);
        Err(Error::Damaged { path, problem })
    }

    /// Where it is.
    pub fn path(&self, home: &Home) -> PathBuf {
        home.join(&self.file)
    }
}

/// The SHA-256 of everything in `from`, in hexadecimal.
pub fn digest(from: impl Read) -> io::Result<String> {
    let mut hasher = Sha256::new();
    io::copy(&mut BufReader::with_capacity(1 << 20, from), &mut HashWriter(&mut hasher))?;
    Ok(hex(&hasher.finalize()))
}

/// The SHA-256 of `bytes`, in hexadecimal.
pub fn digest_of(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

struct HashWriter<'a>(&'a mut Sha256);

impl Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::new(directory.path());
        let failed = create(&home, Path::new("images/a"), |path| {
            fs::write(path, "half").unwrap();
            Err(Error::BadName { name: String::new() })
        });
        assert!(failed.is_err());
        assert_eq!(fs::read_dir(directory.path().join("images")).unwrap().count(), 0);
    }

    #[test]
    fn a_written_file_is_described_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::new(directory.path());
        let artifact = write(&home, Path::new("kernels/k"), b"abc").unwrap();
        // FIPS 180-2, appendix B.1.
        assert_eq!(
            artifact.sha256,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(artifact.bytes, 3);
    }
}
