//! What was said in each conversation, in memory and in the workspace.

mod record;

use std::collections::{HashMap, VecDeque};
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::{cut, files};
pub use record::{Exchange, Made};
use record::{MAX_TEXT, parse};

/// When a file is larger it is written anew with what is in memory, in bytes.
const MAX_FILE: u64 = 256 * 1024;

/// How much of a conversation is kept in memory, in bytes: more than most prompts have room for.
const MAX_PLACE: usize = 128 * 1024;

/// The most that is read of a file: more than we write is not ours.
const MAX_READ: u64 = 1024 * 1024;

/// Places that are kept in memory; the others are read again.
const MAX_PLACES: usize = 32;

/// How many files are looked at when the agent starts.
const MAX_CHECKED: usize = 256;

/// The histories of all conversations.
#[derive(Debug)]
pub struct History {
    directory: PathBuf,
    conversations: HashMap<String, Conversation>,
    /// Rises with each use, to find the conversation that was not used for longest.
    uses: u64,
}

#[derive(Debug, Default)]
struct Conversation {
    exchanges: VecDeque<Exchange>,
    size: usize,
    used: u64,
    /// Whether the file lacks something, because it could not be written.
    is_behind: bool,
}

impl Conversation {
    fn push(&mut self, exchange: Exchange) {
        self.size += exchange.size();
        self.exchanges.push_back(exchange);
        while self.size > MAX_PLACE
            && let Some(oldest) = self.exchanges.pop_front()
        {
            self.size -= oldest.size();
        }
    }
}

impl History {
    pub fn new(directory: PathBuf) -> Self {
        Self { directory, conversations: HashMap::new(), uses: 0 }
    }

    /// Reads every file once, so that what is broken is known at the start. Says in words
    /// what was.
    pub fn check(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(&self.directory) else { return Vec::new() };
        let paths = entries.flatten().take(MAX_CHECKED).map(|entry| entry.path());
        let histories = paths.filter(|path| path.extension().is_some_and(|e| e == "jsonl"));
        histories.filter_map(|path| load(&path).1).collect()
    }

    /// What was said in a conversation, oldest first, and in words what was wrong with its file.
    pub fn of(&mut self, conversation: &str) -> (&VecDeque<Exchange>, Option<String>) {
        let note = self.load(conversation);
        self.uses += 1;
        let known = self.conversations.entry(conversation.to_owned()).or_default();
        known.used = self.uses;
        (&known.exchanges, note)
    }

    /// Keeps an exchange; its texts are cut to what is kept.
    ///
    /// # Errors
    /// When it is in memory only.
    pub fn append(&mut self, conversation: &str, mut exchange: Exchange) -> io::Result<()> {
        self.load(conversation);
        exchange.text = cut::middle(&exchange.text, MAX_TEXT);
        exchange.answer = cut::middle(&exchange.answer, MAX_TEXT);
        let line = line(&exchange)?;
        let known = self.conversations.entry(conversation.to_owned()).or_default();
        known.push(exchange);
        let written = write(&path(&self.directory, conversation), &line, known);
        known.is_behind = written.is_err();
        written
    }

    /// Reads a conversation's file unless it is in memory.
    fn load(&mut self, conversation: &str) -> Option<String> {
        if self.conversations.contains_key(conversation) {
            return None;
        }
        if self.conversations.len() >= MAX_PLACES {
            let oldest =
                self.conversations.iter().min_by_key(|(_, p)| p.used).map(|(n, _)| n.clone());
            oldest.map(|name| self.conversations.remove(&name));
        }
        let (exchanges, note) = load(&path(&self.directory, conversation));
        let mut known = Conversation::default();
        exchanges.into_iter().for_each(|exchange| known.push(exchange));
        self.conversations.insert(conversation.to_owned(), known);
        note
    }
}

fn path(directory: &Path, conversation: &str) -> PathBuf {
    directory.join(format!("{conversation}.jsonl"))
}

fn line(exchange: &Exchange) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(exchange)?;
    line.push(b'\n');
    Ok(line)
}

/// Reads a history. A broken one is moved aside, and what can be read of it is written
/// anew; the text says so.
fn load(path: &Path) -> (Vec<Exchange>, Option<String>) {
    let (bytes, mut problem) = match read(path) {
        Ok((bytes, false)) => (bytes, None),
        Ok((bytes, true)) => (bytes, Some("it is too large".to_owned())),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return (Vec::new(), None);
        }
        Err(e) => (Vec::new(), Some(e.to_string())),
    };
    let parsed = parse(&bytes);
    if parsed.bad > 0 {
        problem.get_or_insert(format!("{} lines cannot be read", parsed.bad));
    }
    let note = problem.map(|problem| {
        let mut aside = path.as_os_str().to_owned();
        aside.push(".broken");
        let aside = PathBuf::from(aside);
        let kept = parsed.exchanges.len();
        let name = path.display();
        let moved = fs::rename(path, &aside).and_then(|()| {
            let lines: io::Result<Vec<_>> = parsed.exchanges.iter().map(line).collect();
            files::replace(path, &lines?.concat())
        });
        match moved {
            Ok(()) => format!("the history {name} is broken: {problem}; it is now {}, and {kept} exchanges of it were kept", aside.display()),
            Err(e) => format!("the history {name} is broken: {problem}; it cannot be moved aside: {e}"),
        }
    });
    (parsed.exchanges, note)
}

/// The end of a file, and whether there is more before it.
fn read(path: &Path) -> io::Result<(Vec<u8>, bool)> {
    let mut file = files::open(OpenOptions::new().read(true), path)?;
    let size = file.metadata()?.len();
    let before = size.saturating_sub(MAX_READ);
    file.seek(SeekFrom::Start(before))?;
    let mut bytes = Vec::new();
    file.take(MAX_READ).read_to_end(&mut bytes)?;
    if before > 0 {
        let end = bytes.iter().position(|b| *b == b'\n').map_or(bytes.len(), |at| at + 1);
        bytes.drain(..end);
    }
    Ok((bytes, before > 0))
}

/// Writes a conversation's newest line, or all of it where that does not do.
fn write(path: &Path, line: &[u8], conversation: &Conversation) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    if !conversation.is_behind && append(path, line)? {
        return Ok(());
    }
    let lines: io::Result<Vec<_>> = conversation.exchanges.iter().map(self::line).collect();
    files::replace(path, &lines?.concat())
}

/// Appends a line, or says that the file has no room for it. What an earlier attempt left
/// half-written is taken away first, and what this one does, after.
fn append(path: &Path, line: &[u8]) -> io::Result<bool> {
    let mut options = OpenOptions::new();
    let mut file = files::open(options.read(true).append(true).create(true), path)?;
    let size = file.metadata()?.len();
    if size + line.len() as u64 > MAX_FILE {
        return Ok(false);
    }
    let mut bytes = Vec::new();
    if size > 0 {
        file.seek(SeekFrom::Start(size - 1))?;
        (&file).take(1).read_to_end(&mut bytes)?;
    }
    if bytes.first().is_some_and(|last| *last != b'\n') {
        // Torn, or whole but for its end: writing it anew keeps what can be read.
        return Ok(false);
    }
    let written = file.write_all(line).and_then(|()| files::sync(&file));
    if written.is_err() {
        let _ = file.set_len(size);
    }
    written.map(|()| true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(id: u64) -> Exchange {
        let (from, text, answer) = ("ann".into(), format!("q{id}"), "a".into());
        Exchange { id, at: 0, from, text, calls: Vec::new(), answer }
    }

    fn ids(history: &mut History) -> Vec<u64> {
        history.of("p").0.iter().map(|e| e.id).collect()
    }

    #[test]
    fn what_was_said_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let mut history = History::new(dir.path().join("h"));
        for id in 0..3 {
            history.append("p", exchange(id)).unwrap();
        }
        assert_eq!(ids(&mut history), [0, 1, 2]);
        assert_eq!(ids(&mut History::new(dir.path().join("h"))), [0, 1, 2]);
        assert!(history.check().is_empty());
    }

    #[test]
    fn a_torn_line_is_skipped_and_taken_away() {
        let dir = tempfile::tempdir().unwrap();
        let whole = String::from_utf8(line(&exchange(1)).unwrap()).unwrap();
        for (torn, expected) in [(r#"{"id":2,"at""#, vec![1, 3]), (whole.trim_end(), vec![1, 1, 3])]
        {
            fs::write(dir.path().join("p.jsonl"), format!("{whole}{torn}")).unwrap();
            let mut history = History::new(dir.path().to_owned());
            assert!(history.check().is_empty());
            history.append("p", exchange(3)).unwrap();
            let mut again = History::new(dir.path().to_owned());
            assert_eq!(again.check(), Vec::<String>::new());
            assert_eq!(ids(&mut again), expected);
        }
    }

    #[test]
    fn a_broken_file_is_moved_aside_and_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.jsonl");
        let mut bytes = b"\0\0garbage\n".to_vec();
        bytes.extend(line(&exchange(5)).unwrap());
        fs::write(&path, &bytes).unwrap();
        let mut history = History::new(dir.path().to_owned());
        let notes = history.check();
        assert!(notes.len() == 1 && notes[0].contains("1 lines cannot be read"), "{notes:?}");
        assert_eq!(fs::read(dir.path().join("p.jsonl.broken")).unwrap(), bytes);
        assert_eq!(ids(&mut history), [5]);
        assert!(history.check().is_empty());
        // A directory in its place.
        fs::remove_file(&path).unwrap();
        fs::remove_file(dir.path().join("p.jsonl.broken")).unwrap();
        fs::create_dir(&path).unwrap();
        let mut history = History::new(dir.path().to_owned());
        assert!(history.of("p").1.unwrap().contains("not a regular file"));
        history.append("p", exchange(6)).unwrap();
    }

    #[test]
    fn files_stay_small() {
        let dir = tempfile::tempdir().unwrap();
        let mut history = History::new(dir.path().to_owned());
        let long = "x".repeat(MAX_TEXT * 3);
        for id in 0..100 {
            history.append("p", Exchange { text: long.clone(), ..exchange(id) }).unwrap();
            assert!(fs::metadata(dir.path().join("p.jsonl")).unwrap().len() <= MAX_FILE);
        }
        let mut again = History::new(dir.path().to_owned());
        assert!(again.check().is_empty());
        assert_eq!(ids(&mut again), ids(&mut history));
        assert_eq!(ids(&mut again).last(), Some(&99));
        // One that somebody blew up.
        let file = OpenOptions::new().write(true).open(dir.path().join("p.jsonl")).unwrap();
        file.set_len(1 << 36).unwrap();
        let mut history = History::new(dir.path().to_owned());
        assert!(history.of("p").1.unwrap().contains("too large"));
        assert!(history.append("p", exchange(7)).is_ok());
    }

    #[test]
    fn what_could_not_be_written_is_written_later() {
        let dir = tempfile::tempdir().unwrap();
        let directory = dir.path().join("h");
        fs::write(&directory, "").unwrap();
        let mut history = History::new(directory.clone());
        assert!(history.append("p", exchange(1)).is_err());
        fs::remove_file(&directory).unwrap();
        history.append("p", exchange(2)).unwrap();
        history.append("p", exchange(3)).unwrap();
        assert_eq!(ids(&mut History::new(directory)), [1, 2, 3]);
    }

    #[test]
    fn places_that_are_not_used_leave_memory() {
        let dir = tempfile::tempdir().unwrap();
        let mut history = History::new(dir.path().to_owned());
        for number in 0..MAX_PLACES * 2 {
            history.append(&format!("p{number}"), exchange(1)).unwrap();
        }
        assert_eq!(history.conversations.len(), MAX_PLACES);
        assert_eq!(history.of("p0").0.len(), 1);
    }
}
