//! What the agent wants to remember: a file each, and an index that is in every prompt.
//!
//! Each memory has an audience. One that was made in a conversation, which is a channel or a
//! private talk with one person, is in a folder of that conversation and used there only. Those
//! beside the folders are for everyone: what a person said is, and what people put there
//! themselves.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::{cut, files, slug};

/// The index.
const INDEX: &str = "MEMORY.md";

/// The most that is read of the index, in bytes. A longer one is not written to.
const MAX_INDEX: usize = 64 * 1024;

/// The most that is read of a memory, in bytes.
const MAX_FILE: usize = 64 * 1024;

/// The longest text of a new memory, in bytes.
pub const MAX_TEXT: usize = 16 * 1024;

/// How many memories there may be for one audience.
const MAX_FILES: usize = 500;

/// How many files are looked at when the agent starts.
const MAX_CHECKED: usize = 2000;

/// The most that is read of all memories to search them, in bytes.
const MAX_SEARCHED: usize = 4 * 1024 * 1024;

/// Why something could not be remembered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is too long.
    #[error("the text has more than {MAX_TEXT} bytes; write a file and save where it is")]
    TooLong,
    /// There are too many memories.
    #[error("there are {MAX_FILES} memories already; delete some in /workspace/{0} first")]
    TooMany(String),
    /// The index is too large.
    #[error("it is in {file}, but {index} has no room for another line; shorten it first")]
    IndexFull { file: String, index: String },
    /// The workspace cannot be written to.
    #[error("the workspace cannot be written to: {0}")]
    File(io::Error),
}

impl From<io::Error> for Error {
    /// Its words are part of ours, so it is not told again as the source.
    fn from(cause: io::Error) -> Self {
        Self::File(cause)
    }
}

/// Who may know something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience<'a> {
    /// Whoever speaks with the agent, wherever.
    Everyone,
    /// Who is in this conversation, by the name that [`slug::conversation`] gives it.
    Conversation(&'a str),
}

impl Audience<'_> {
    /// Where its memories are in the workspace.
    fn folder(self) -> String {
        match self {
            Self::Everyone => "memory".to_owned(),
            Self::Conversation(conversation) => format!("memory/{conversation}"),
        }
    }

    /// Its index in the workspace.
    fn index(self) -> String {
        match self {
            Self::Everyone => INDEX.to_owned(),
            Self::Conversation(_) => format!("{}/{INDEX}", self.folder()),
        }
    }
}

/// An index, as far as it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// Its path in the workspace.
    pub path: String,
    pub text: String,
}

/// A memory that was found.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    /// Its path in the workspace.
    pub name: String,
    pub text: String,
}

/// The memories in a workspace.
#[derive(Debug)]
pub struct Memory {
    workspace: PathBuf,
}

impl Memory {
    pub fn new(workspace: &Path) -> Self {
        Self { workspace: workspace.to_owned() }
    }

    /// The indexes of what may be known in a conversation; empty ones are left out.
    pub fn indexes(&self, conversation: &str) -> Vec<Index> {
        let audiences = [Audience::Everyone, Audience::Conversation(conversation)];
        let read = |audience: Audience<'_>| {
            let path = audience.index();
            let text = files::read(&self.workspace.join(&path), MAX_INDEX).ok()?.text;
            (!text.trim().is_empty()).then_some(Index { path, text })
        };
        audiences.into_iter().filter_map(read).collect()
    }

    /// Says in words what is too large or cannot be read.
    pub fn check(&self) -> Vec<String> {
        let conversations = self.conversations();
        let audiences =
            conversations.iter().map(|conversation| Audience::Conversation(conversation));
        let all = std::iter::once(Audience::Everyone).chain(audiences).flat_map(|audience| {
            let index = (audience.index(), self.workspace.join(audience.index()));
            std::iter::once(index).chain(self.list(audience))
        });
        all.take(MAX_CHECKED)
            .filter_map(|(name, path)| match files::read(&path, MAX_FILE) {
                Ok(files::Start { more: Some(size), .. }) => {
                    Some(format!("{name} has {size} bytes; only the first {MAX_FILE} are read"))
                }
                Ok(_) => None,
                Err(e) if e.kind() == io::ErrorKind::NotFound => None,
                Err(e) => Some(format!("{name} cannot be read: {e}")),
            })
            .collect()
    }

    /// Saves a text for an audience and lists it in its index. One with the same name and
    /// audience is replaced. Returns the path in the workspace.
    pub fn save(&self, audience: Audience<'_>, name: &str, text: &str) -> Result<String, Error> {
        if text.len() > MAX_TEXT {
            return Err(Error::TooLong);
        }
        let file = format!("{}/{}.md", audience.folder(), slug::name(name));
        let path = self.workspace.join(&file);
        if !path.exists() && self.list(audience).len() >= MAX_FILES {
            return Err(Error::TooMany(audience.folder()));
        }
        files::replace(&path, format!("{}\n", text.trim_end()).as_bytes())?;
        self.list_in_index(audience, &file, name, text)?;
        Ok(file)
    }

    fn list_in_index(
        &self,
        audience: Audience<'_>,
        file: &str,
        name: &str,
        text: &str,
    ) -> Result<(), Error> {
        let path = self.workspace.join(audience.index());
        let full = || Error::IndexFull { file: file.to_owned(), index: audience.index() };
        let old = match files::read(&path, MAX_INDEX) {
            Ok(files::Start { text, more: None }) => text,
            Ok(_) => return Err(full()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => "# Memory\n\n".to_owned(),
            Err(e) => return Err(e.into()),
        };
        let link = format!("]({file})");
        let name: String = name.chars().map(|c| if "[]".contains(c) { ' ' } else { c }).collect();
        let line = format!("- [{}{link}: {}\n", cut::line(&name, 60), cut::line(text, 100));
        let mut new = String::new();
        let mut is_listed = false;
        for old in old.split_inclusive('\n') {
            let is_this = old.contains(&link);
            if !is_this {
                new.push_str(old);
            } else if !is_listed {
                new.push_str(&line);
            }
            is_listed |= is_this;
        }
        if !is_listed {
            if !new.is_empty() && !new.ends_with('\n') {
                new.push('\n');
            }
            new.push_str(&line);
        }
        if new.len() > MAX_INDEX {
            return Err(full());
        }
        Ok(files::replace(&path, new.as_bytes())?)
    }

    /// What may be known in a conversation, as far as it is read.
    pub fn all(&self, conversation: &str) -> Vec<Found> {
        let mut room = MAX_SEARCHED;
        let mut all = Vec::new();
        let audiences = [Audience::Conversation(conversation), Audience::Everyone];
        for (name, path) in audiences.into_iter().flat_map(|audience| self.list(audience)) {
            let Ok(start) = files::read(&path, MAX_FILE.min(room)) else { continue };
            room -= start.text.len().min(room);
            all.push(Found { name, text: start.text });
        }
        all
    }

    fn list(&self, audience: Audience<'_>) -> Vec<(String, PathBuf)> {
        let folder = audience.folder();
        let Ok(entries) = fs::read_dir(self.workspace.join(&folder)) else { return Vec::new() };
        let paths = entries.flatten().map(|entry| entry.path());
        let memories = paths.filter(|path| path.extension().is_some_and(|e| e == "md"));
        let named = memories.filter_map(|path| {
            let name = path.file_name()?.to_string_lossy();
            // Files that are being replaced.
            let is_memory = !name.starts_with('.') && name != INDEX;
            is_memory.then(|| (format!("{folder}/{name}"), path.clone()))
        });
        let mut list: Vec<_> = named.take(MAX_FILES).collect();
        list.sort();
        list
    }

    /// The conversations that have memories.
    fn conversations(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.workspace.join("memory")) else { return Vec::new() };
        let folders = entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
        let names = folders.filter_map(|e| e.file_name().into_string().ok());
        names.filter(|name| !name.ends_with(".md")).take(MAX_CHECKED).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    use super::Audience::{Conversation, Everyone};

    fn index(memory: &Memory) -> String {
        memory.indexes("p").into_iter().map(|index| index.text).collect()
    }

    #[test]
    fn what_is_saved_is_listed_once() {
        let dir = tempfile::tempdir().unwrap();
        let memory = Memory::new(dir.path());
        assert_eq!(index(&memory), "");
        assert_eq!(
            memory.save(Everyone, "Ann's cat", "It is  called\nTom.").unwrap(),
            "memory/ann-s-cat.md"
        );
        memory.save(Everyone, "[x](y)", "z").unwrap();
        memory.save(Everyone, "ann s cat", "It is called Tim.").unwrap();
        assert_eq!(
            index(&memory),
            "# Memory\n\n- [ann s cat](memory/ann-s-cat.md): It is called Tim.\n- [x (y)](memory/x-y.md): z\n"
        );
        assert_eq!(memory.all("p")[0].text, "It is called Tim.\n");
        assert!(memory.check().is_empty());
    }

    #[test]
    fn a_memory_stays_in_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let memory = Memory::new(dir.path());
        let saved = memory.save(Conversation("private-ann"), "door", "4711").unwrap();
        assert_eq!(saved, "memory/private-ann/door.md");
        memory.save(Conversation("channel-_23a"), "door", "It is green.").unwrap();
        memory.save(Everyone, "door", "There is one.").unwrap();
        let known = |conversation: &str| {
            let all = memory.all(conversation).into_iter().map(|found| found.text);
            let indexes = memory.indexes(conversation).into_iter().map(|index| index.text);
            all.chain(indexes).collect::<String>()
        };
        let ann = known("private-ann");
        assert!(ann.contains("4711") && ann.contains("There is one.") && !ann.contains("green"));
        let channel = known("channel-_23a");
        assert!(channel.contains("green") && channel.contains("There is one."));
        for conversation in ["channel-_23a", "private-bob", "channel-ann"] {
            assert!(!known(conversation).contains("4711"), "{conversation}");
        }
        assert!(memory.check().is_empty());
        // One that cannot be read is told, wherever it is.
        fs::create_dir(dir.path().join("memory/private-ann/odd.md")).unwrap();
        let notes = memory.check();
        assert!(notes.len() == 1 && notes[0].starts_with("memory/private-ann/odd.md"), "{notes:?}");
    }

    proptest! {
        #[test]
        fn no_memory_reaches_another_audience(
            saved in prop::collection::vec((0_usize..4, "[a-c./]{1,3}"), 1..12)
        ) {
            let conversations = ["private-ann", "private-bob", "channel-_23a"];
            let dir = tempfile::tempdir().unwrap();
            let memory = Memory::new(dir.path());
            for (number, (audience, name)) in saved.iter().enumerate() {
                let to = conversations.get(*audience).map_or(Everyone, |conversation| Conversation(conversation));
                memory.save(to, name, &format!("<secret {number} of {audience}>")).unwrap();
            }
            for (at, conversation) in conversations.iter().enumerate() {
                let all = memory.all(conversation).into_iter().map(|found| found.text);
                let indexes = memory.indexes(conversation).into_iter().map(|index| index.text);
                let known: String = all.chain(indexes).collect();
                for audience in 0..4 {
                    let of = format!(" of {audience}>");
                    let may = audience == at || audience == 3;
                    let was_saved = saved.iter().any(|(to, _)| *to == audience);
                    prop_assert_eq!(known.contains(&of), may && was_saved);
                }
            }
        }
    }

    #[test]
    fn an_index_of_a_person_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(INDEX), "my own words").unwrap();
        let memory = Memory::new(dir.path());
        memory.save(Everyone, "a", "b").unwrap();
        assert_eq!(index(&memory), "my own words\n- [a](memory/a.md): b\n");
    }

    #[test]
    fn what_is_huge_is_told_and_not_cut() {
        let dir = tempfile::tempdir().unwrap();
        let memory = Memory::new(dir.path());
        let huge = "x".repeat(MAX_INDEX + 1);
        fs::write(dir.path().join(INDEX), &huge).unwrap();
        fs::create_dir_all(dir.path().join("memory/odd.md")).unwrap();
        fs::write(dir.path().join("memory/big.md"), &huge).unwrap();
        let full = memory.save(Everyone, "a", "b");
        assert!(matches!(full, Err(Error::IndexFull { file, .. }) if file == "memory/a.md"));
        assert!(matches!(memory.save(Conversation("p"), "a", &huge), Err(Error::TooLong)));
        assert_eq!(fs::read_to_string(dir.path().join(INDEX)).unwrap(), huge);
        let notes = memory.check().join("\n");
        for name in ["MEMORY.md has 65537", "memory/big.md has", "memory/odd.md cannot"] {
            assert!(notes.contains(name), "{notes}");
        }
        assert_eq!(index(&memory).len(), MAX_INDEX);
    }
}
