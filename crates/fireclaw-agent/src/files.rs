//! Files of the workspace, where a person or a command may have put anything: a pipe
//! without a writer, a file without an end, a link to a device.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

/// A file's beginning.
#[derive(Debug)]
pub struct Start {
    /// At most as much as was asked for. Bytes that are no text are replaced.
    pub text: String,
    /// How many bytes the file has, if there is more of it than `text`.
    pub more: Option<u64>,
}

/// Reads at most `max` bytes of a regular file.
pub fn read(path: &Path, max: usize) -> io::Result<Start> {
    let file = open(OpenOptions::new().read(true), path)?;
    let size = file.metadata()?.len();
    let mut bytes = Vec::new();
    // One more shows whether there is more, also of files in /proc, which have no size.
    file.take(max as u64 + 1).read_to_end(&mut bytes)?;
    let more = (bytes.len() > max).then_some(size.max(max as u64 + 1));
    bytes.truncate(max);
    Ok(Start { text: String::from_utf8_lossy(&bytes).into_owned(), more })
}

/// Opens a regular file, and does not wait for one that is something else.
pub fn open(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    let file = options.custom_flags(flags).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("not a regular file")),
    }
}

/// Puts a file in the place of another at once: after a crash there is the old one or the
/// new one. Its directory is made if it is missing.
///
/// When it returns, the new one is on the disk: who asked is told that it is saved, and the
/// VM may be ended before the kernel writes by itself.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    };
    make_directory(directory)?;
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(".new");
    let temporary = directory.join(temporary);
    let _ = fs::remove_file(&temporary);
    let written = File::create_new(&temporary)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            // Before the name leads to it: else a crash may leave an empty file.
            sync(&file)
        })
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written.and_then(|()| sync_directory(directory))
}

/// Writes into a file as it is, so that links, owner and mode stay. Directories that are
/// missing are made. When it returns, all of it is on the disk.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    make_directory(directory)?;
    let is_new = !path.exists();
    let mut file = open(OpenOptions::new().write(true).create(true).truncate(false), path)?;
    file.set_len(0)?;
    file.write_all(bytes)?;
    sync(&file)?;
    if is_new { sync_directory(directory) } else { Ok(()) }
}

/// Makes a directory and those above it, so that they survive a crash.
fn make_directory(directory: &Path) -> io::Result<()> {
    let missing = directory.ancestors().take_while(|above| !above.exists()).count();
    fs::create_dir_all(directory)?;
    // The name of each that was made is in the one above it.
    let holders = directory.ancestors().skip(1).take(missing);
    holders.into_iter().try_for_each(sync_directory)
}

/// Has the names in a directory survive a crash (fsync(2)).
fn sync_directory(directory: &Path) -> io::Result<()> {
    // The parent of a relative path with one name is an empty one.
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    match File::open(directory) {
        // One may put files into a directory that one may not read.
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        opened => sync(&opened?),
    }
}

/// Waits until a file or directory is on the disk, if that is where it is.
pub fn sync(file: &File) -> io::Result<()> {
    match file.sync_all() {
        // Nothing that can be synced (fsync(2)): a file of /proc.
        Err(e) if e.kind() == io::ErrorKind::InvalidInput => Ok(()),
        synced => synced,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_beginning_of_a_huge_file_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("huge");
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        let start = read(&path, 1000).unwrap();
        assert_eq!((start.text.len(), start.more), (1000, Some(1 << 40)));
        fs::write(&path, b"a\xffb").unwrap();
        let start = read(&path, 3).unwrap();
        assert_eq!((start.text.as_str(), start.more), ("a\u{fffd}b", None));
        assert!(!read(Path::new("/proc/self/status"), 1000).unwrap().text.is_empty());
    }

    #[test]
    fn a_pipe_or_device_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert!(read(&pipe, 10).is_err());
        assert!(write(&pipe, b"x").is_err());
        assert!(read(Path::new("/dev/zero"), 10).is_err());
        assert!(read(dir.path(), 10).is_err());
        replace(&pipe, b"x").unwrap();
        assert_eq!(read(&pipe, 10).unwrap().text, "x");
    }

    #[test]
    fn a_file_is_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/c");
        replace(&path, b"one").unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        write(&path, b"x").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"x");
    }
}
