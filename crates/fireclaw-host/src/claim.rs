//! A file that one maker at a time has, until it is whole and gets its name.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use crate::PathError;

/// Opens a file that is being made, with what an earlier maker has left in it; made if it is
/// not there, for its owner alone. None if another maker has it, in this process or another.
///
/// Whoever has it gives it another name, or removes it, before letting go. A lock goes with
/// its holder, however that ends.
///
/// # Errors
/// [`PathError`] if it can be neither opened nor locked.
pub fn claim(path: &Path) -> Result<Option<File>, PathError> {
    loop {
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(path).map_err(PathError::at("create", path))?;
        match file.try_lock() {
            Ok(()) if is_named(&file, path) => return Ok(Some(file)),
            // The maker before has just given it its name: this is the made one.
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(e)) => return Err(PathError::at("lock", path)(e)),
        }
    }
}

/// Whether an open file is still the one with this name.
fn is_named(file: &File, path: &Path) -> bool {
    let inode = |found: io::Result<fs::Metadata>| found.map(|it| (it.dev(), it.ino())).ok();
    inode(file.metadata()).is_some_and(|open| inode(fs::metadata(path)) == Some(open))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn one_maker_has_it_and_the_next_begins_where_it_was_or_anew() {
        let directory = tempfile::tempdir().unwrap();
        let (new, made) = (directory.path().join("new"), directory.path().join("made"));
        let mut first = claim(&new).unwrap().unwrap();
        first.write_all(b"half").unwrap();
        assert!(claim(&new).unwrap().is_none());
        drop(first);
        let second = claim(&new).unwrap().unwrap();
        assert_eq!(second.metadata().unwrap().len(), 4);
        fs::rename(&new, &made).unwrap();
        // Under its new name it is nobody's any more to make.
        let third = claim(&new).unwrap().unwrap();
        assert_eq!(third.metadata().unwrap().len(), 0);
        assert_eq!(fs::read(&made).unwrap(), b"half");
    }
}
