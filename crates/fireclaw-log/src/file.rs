//! A log in a file of bounded size: written by a thread, read by other processes.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use fireclaw_say::Queue;

/// How large a file grows before it is set aside, in bytes.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// How much of a file's end is searched for its last lines.
const MAX_TAIL: u64 = MAX_BYTES * 2;

/// Appends a line with its end. A file that has become too large is set aside first: as
/// `<name>.1`, of which there is one.
///
/// # Errors
/// Those of the system.
pub fn append(path: &Path, line: &str, max_bytes: u64) -> io::Result<()> {
    if fs::metadata(path).is_ok_and(|file| file.len() > max_bytes) {
        fs::rename(path, aside(path))?;
    }
    // In one piece: others may append too.
    File::options().create(true).append(true).open(path)?.write_all(line.as_bytes())
}

fn aside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

/// What takes lines for a file, and never waits for its disk. A disk that does not take them
/// loses them.
pub(crate) fn writer(path: &Path) -> impl Fn(&str) + Send + Sync + 'static {
    let path = path.to_owned();
    let queue = Queue::start(move |line| {
        let _ = append(&path, line, MAX_BYTES);
    });
    move |line: &str| {
        if let Some(queue) = &queue {
            queue.add(line.to_owned());
        }
    }
}

/// Reads a log file as it grows, also when it is set aside and begun anew.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    file: Option<File>,
    /// A line whose end is not there yet.
    part: Vec<u8>,
}

impl Reader {
    /// Of a file that may not be there yet.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), file: None, part: Vec::new() }
    }

    /// The last lines that there are, at most so many, oldest first. What comes after them is
    /// [`Reader::more`].
    ///
    /// # Errors
    /// Those of the system.
    pub fn last(&mut self, most: usize) -> io::Result<Vec<String>> {
        let mut bytes = Vec::new();
        if let Ok(mut old) = File::open(aside(&self.path)) {
            old.read_to_end(&mut bytes)?;
        }
        if self.open()?
            && let Some(file) = &mut self.file
        {
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(MAX_TAIL)))?;
            file.read_to_end(&mut bytes)?;
        }
        let mut lines = self.lines(&bytes);
        drop(lines.drain(..lines.len().saturating_sub(most)));
        Ok(lines)
    }

    /// The whole lines that have come since, if any.
    ///
    /// # Errors
    /// Those of the system.
    pub fn more(&mut self) -> io::Result<Vec<String>> {
        let mut bytes = Vec::new();
        if let Some(file) = &mut self.file {
            file.read_to_end(&mut bytes)?;
        }
        // What was set aside has been read to its end.
        if !self.is_current()
            && self.open()?
            && let Some(file) = &mut self.file
        {
            file.read_to_end(&mut bytes)?;
        }
        Ok(self.lines(&bytes))
    }

    /// Opens what has the name now; whether there is something.
    fn open(&mut self) -> io::Result<bool> {
        match File::open(&self.path) {
            Ok(file) => {
                self.file = Some(file);
                Ok(true)
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn is_current(&self) -> bool {
        let inode = |file: fs::Metadata| (file.dev(), file.ino());
        let open = self.file.as_ref().and_then(|file| file.metadata().ok()).map(inode);
        open.is_some() && open == fs::metadata(&self.path).ok().map(inode)
    }

    fn lines(&mut self, bytes: &[u8]) -> Vec<String> {
        self.part.extend_from_slice(bytes);
        let Some(end) = self.part.iter().rposition(|byte| *byte == b'\n') else {
            return Vec::new();
        };
        let rest = self.part.split_off(end + 1);
        let whole = std::mem::replace(&mut self.part, rest);
        String::from_utf8_lossy(&whole).lines().map(crate::lines::harmless_line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded_and_a_reader_misses_nothing_when_it_is_set_aside() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.log");
        let mut reader = Reader::new(&path);
        assert_eq!(reader.last(5).unwrap(), Vec::<String>::new());
        let mut read = Vec::new();
        for n in 0..100 {
            append(&path, &format!("line {n} {}\n", "x".repeat(90)), 1000).unwrap();
            if n % 7 == 0 {
                read.extend(reader.more().unwrap());
            }
        }
        read.extend(reader.more().unwrap());
        assert_eq!(read.len(), 100);
        assert!(read.iter().enumerate().all(|(n, line)| line.starts_with(&format!("line {n} "))));
        assert!(fs::metadata(&path).unwrap().len() < 1200);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
        let mut late = Reader::new(&path);
        let last = late.last(5).unwrap();
        assert_eq!(last[0].split(' ').nth(1), Some("95"));
        assert_eq!(late.more().unwrap(), Vec::<String>::new());
    }

    #[test]
    fn half_a_line_waits_for_the_other_half_and_nothing_is_obeyed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.log");
        fs::write(&path, "one\x1b[2J\ntw").unwrap();
        let mut reader = Reader::new(&path);
        assert_eq!(reader.last(5).unwrap(), ["one\\u{1b}[2J"]);
        append(&path, "o\n", 1000).unwrap();
        assert_eq!(reader.more().unwrap(), ["two"]);
    }
}
