//! A template's skills on their way into a VM.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use fireclaw_host::PathError;
use tar::{Builder, EntryType, Header};

use crate::{Error, Result};

/// The most that the skills of one template take, in bytes: they lie in the
/// VM's memory.
const MOST_BYTES: u64 = 16 << 20;
/// The most files and directories of them.
const MOST_FILES: usize = 2000;
/// How deep directories may be nested.
const MOST_DEPTH: usize = 16;

/// Packs directories as a tar archive, each under its number and name.
///
/// Only files and directories go along. A symbolic link is followed: templates are
/// their owner's, and what one leads to is meant to be there.
///
/// # Errors
/// [`Error::Skills`] if it is too much, or a file cannot be read.
pub fn pack(base: &Path, skills: &[PathBuf]) -> Result<Vec<u8>> {
    let mut pack = Pack { archive: Builder::new(Vec::new()), bytes: 0, files: 0 };
    for (number, skill) in skills.iter().enumerate() {
        let name = skill.file_name().unwrap_or_default().to_string_lossy();
        pack.add(&base.join(skill), &PathBuf::from(format!("{number:02}-{name}")), 0)?;
    }
    pack.archive.into_inner().map_err(|e| Error::Skills(e.to_string()))
}

struct Pack {
    archive: Builder<Vec<u8>>,
    bytes: u64,
    files: usize,
}

impl Pack {
    fn add(&mut self, from: &Path, to: &Path, depth: usize) -> Result<()> {
        self.files += 1;
        if self.files > MOST_FILES || depth > MOST_DEPTH {
            return Err(Error::Skills(format!(
                "more than {MOST_FILES} files, or more than {MOST_DEPTH} directories within each other"
            )));
        }
        let cannot = |e| PathError::at("read", from)(e);
        let meta = fs::metadata(from).map_err(cannot)?;
        if meta.is_dir() {
            self.put(to, EntryType::Directory, 0o755, 0, io::empty())?;
            let mut names = fs::read_dir(from)
                .and_then(|entries| {
                    entries.map(|e| Ok(e?.file_name())).collect::<io::Result<Vec<_>>>()
                })
                .map_err(|e| PathError::at("read", from)(e))?;
            names.sort();
            for name in names {
                self.add(&from.join(&name), &to.join(&name), depth + 1)?;
            }
        } else if meta.is_file() {
            self.bytes += meta.len();
            if self.bytes > MOST_BYTES {
                return Err(Error::Skills(format!("more than {} MiB", MOST_BYTES >> 20)));
            }
            let mode = if meta.permissions().mode() & 0o111 == 0 { 0o644 } else { 0o755 };
            let file = File::open(from).map_err(|e| PathError::at("read", from)(e))?;
            self.put(to, EntryType::Regular, mode, meta.len(), file.take(meta.len()))?;
        }
        Ok(())
    }

    fn put(
        &mut self,
        to: &Path,
        kind: EntryType,
        mode: u32,
        size: u64,
        content: impl Read,
    ) -> Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size);
        // A file that shrinks while it is read would spoil what follows.
        let padded = content.chain(io::repeat(0)).take(size);
        let put = self.archive.append_data(&mut header, to, padded);
        put.map_err(|e| Error::Skills(format!("{}: {e}", to.display())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(archive: &[u8]) -> Vec<(String, u32)> {
        let mut archive = tar::Archive::new(archive);
        let entries = archive.entries().unwrap().map(|entry| {
            let entry = entry.unwrap();
            let path = entry.path().unwrap().to_string_lossy().into_owned();
            (path, entry.header().mode().unwrap())
        });
        entries.collect()
    }

    #[test]
    fn folders_keep_their_files_and_who_may_run_them() {
        let base = tempfile::tempdir().unwrap();
        let web = base.path().join("skills/web");
        fs::create_dir_all(web.join("data")).unwrap();
        fs::write(web.join("SKILL.md"), "---").unwrap();
        fs::write(web.join("run"), "#!/bin/sh").unwrap();
        fs::set_permissions(web.join("run"), fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(web.join("data/words"), "a b").unwrap();
        std::os::unix::net::UnixListener::bind(web.join("socket")).unwrap();
        let packed = pack(base.path(), &["skills/web".into()]).unwrap();
        let expected = [
            ("00-web", 0o755),
            ("00-web/SKILL.md", 0o644),
            ("00-web/data", 0o755),
            ("00-web/data/words", 0o644),
            ("00-web/run", 0o755),
        ];
        assert_eq!(names(&packed), expected.map(|(name, mode)| (name.to_owned(), mode)));
    }

    #[test]
    fn too_much_is_refused() {
        let base = tempfile::tempdir().unwrap();
        fs::create_dir(base.path().join("big")).unwrap();
        let file = File::create(base.path().join("big/file")).unwrap();
        file.set_len(MOST_BYTES + 1).unwrap();
        let refused = pack(base.path(), &["big".into()]).unwrap_err();
        assert!(refused.to_string().contains("more than 16 MiB"), "{refused}");
        // A directory within itself.
        fs::create_dir(base.path().join("loop")).unwrap();
        std::os::unix::fs::symlink(".", base.path().join("loop/again")).unwrap();
        assert!(pack(base.path(), &["loop".into()]).is_err());
        assert!(pack(base.path(), &["missing".into()]).is_err());
    }
}
