//! A file that is being fetched: hashed while it is written, resumed where it ended, and
//! only given its name when it is what was expected.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use fireclaw_host::PathError;
use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// A file that is not whole yet.
pub struct Partial {
    file: File,
    path: PathBuf,
    hasher: Sha256,
    length: u64,
    expected: u64,
}

impl Partial {
    /// Goes on with what there is of a file of `expected` bytes; `keep` says how much of
    /// its length.
    pub fn open(path: &Path, expected: u64, keep: impl Fn(u64) -> u64) -> Result<Self> {
        let failed = || PathError::at("open", path);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(failed())?;
        let there = file.metadata().map_err(failed())?.len();
        let length = if there > expected { 0 } else { keep(there) };
        file.set_len(length).map_err(PathError::at("cut", path))?;
        let mut hasher = Sha256::new();
        copy(&mut file, &mut hasher).map_err(PathError::at("read", path))?;
        Ok(Self { file, path: path.to_owned(), hasher, length, expected })
    }

    pub fn length(&self) -> u64 {
        self.length
    }

    /// Starts again.
    pub fn clear(&mut self) -> Result<()> {
        self.hasher = Sha256::new();
        self.length = 0;
        Ok(self
            .file
            .set_len(0)
            .and_then(|()| self.file.seek(SeekFrom::Start(0)))
            .map(|_| ())
            .map_err(PathError::at("cut", &self.path))?)
    }

    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let length = self.length + bytes.len() as u64;
        if length > self.expected {
            return Err(Error::Fetch {
                what: self.path.display().to_string(),
                problem: format!("more than its {} bytes came", self.expected),
            });
        }
        self.file.write_all(bytes).map_err(PathError::at("write", &self.path))?;
        self.hasher.update(bytes);
        self.length = length;
        Ok(())
    }

    /// Gives the file its name if it is what was expected, and removes it otherwise.
    pub fn finish(self, name: &Path, sha256: &str) -> Result<()> {
        let found = hex(&self.hasher.finalize());
        if found != sha256 {
            let _ = fs::remove_file(&self.path);
            return Err(Error::WrongDigest {
                what: name.display().to_string(),
                expected: sha256.to_owned(),
                found,
            });
        }
        self.file.sync_all().map_err(PathError::at("write", &self.path))?;
        Ok(fs::rename(&self.path, name).map_err(PathError::at("create", name))?)
    }
}

/// The SHA-256 of a file, in hexadecimal.
pub fn digest(path: &Path) -> Result<String> {
    let mut hasher = Sha256::new();
    File::open(path)
        .and_then(|mut file| copy(&mut file, &mut hasher))
        .map_err(PathError::at("read", path))?;
    Ok(hex(&hasher.finalize()))
}

fn copy(from: &mut File, to: &mut Sha256) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            n => to.update(&buffer[..n]),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    // FIPS 180-2, appendix B.1.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn open(path: &Path) -> Partial {
        Partial::open(path, 3, |length| length).unwrap()
    }

    #[test]
    fn what_was_begun_is_gone_on_with() {
        let directory = tempfile::tempdir().unwrap();
        let (path, name) = (directory.path().join("partial"), directory.path().join("name"));
        open(&path).append(b"a").unwrap();
        let mut partial = open(&path);
        assert_eq!(partial.length(), 1);
        partial.append(b"bc").unwrap();
        partial.finish(&name, ABC).unwrap();
        assert_eq!(fs::read(&name).unwrap(), b"abc");
        assert!(!path.exists());
    }

    #[test]
    fn what_is_not_what_it_should_be_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let (path, name) = (directory.path().join("partial"), directory.path().join("name"));
        let mut partial = open(&path);
        partial.append(b"abd").unwrap();
        assert!(partial.append(b"x").is_err());
        let error = partial.finish(&name, ABC).unwrap_err();
        assert!(matches!(error, Error::WrongDigest { .. }), "{error}");
        assert!(!path.exists() && !name.exists());
    }

    #[test]
    fn what_is_too_long_or_ends_between_parts_is_cut() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("partial");
        fs::write(&path, b"abcd").unwrap();
        assert_eq!(open(&path).length(), 0);
        fs::write(&path, b"abx").unwrap();
        let mut partial = Partial::open(&path, 3, |length| length.min(2)).unwrap();
        partial.append(b"c").unwrap();
        assert_eq!(hex(&partial.hasher.finalize()), ABC);
    }
}
