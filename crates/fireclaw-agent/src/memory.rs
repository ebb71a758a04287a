//! What the agent wants to remember: a file each, and an index that is in every prompt.

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

/// How many memories there may be.
const MAX_FILES: usize = 500;

/// The most that is read of all memories to search them, in bytes.
const MAX_SEARCHED: usize = 4 * 1024 * 1024;

/// Why something could not be remembered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is too long.
    #[error("the text has more than {MAX_TEXT} bytes; write a file and save where it is")]
    TooLong,
    /// There are too many memories.
    #[error("there are {MAX_FILES} memories already; delete some in /workspace/memory first")]
    TooMany,
    /// The index is too large.
    #[error("it is in {0}, but MEMORY.md has no room for another line; shorten it first")]
    IndexFull(String),
    /// The workspace cannot be written to.
    #[error("the workspace cannot be written to: {0}")]
    File(#[from] io::Error),
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

    /// The index, as far as it is read; empty if there is none.
    pub fn index(&self) -> String {
        files::read(&self.workspace.join(INDEX), MAX_INDEX).map_or(String::new(), |s| s.text)
    }

    /// Says in words what is too large or cannot be read.
    pub fn check(&self) -> Vec<String> {
        let index = (INDEX.to_owned(), self.workspace.join(INDEX));
        let all = std::iter::once(index).chain(self.list());
        all.filter_map(|(name, path)| match files::read(&path, MAX_FILE) {
            Ok(files::Start { more: Some(size), .. }) => {
                Some(format!("{name} has {size} bytes; only the first {MAX_FILE} are read"))
            }
            Ok(_) => None,
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => Some(format!("{name} cannot be read: {e}")),
        })
        .collect()
    }

    /// Saves a text and lists it in the index. One with the same name is replaced. Returns
    /// the path in the workspace.
    pub fn save(&self, name: &str, text: &str) -> Result<String, Error> {
        if text.len() > MAX_TEXT {
            return Err(Error::TooLong);
        }
        let file = format!("memory/{}.md", slug::name(name));
        let path = self.workspace.join(&file);
        if !path.exists() && self.list().len() >= MAX_FILES {
            return Err(Error::TooMany);
        }
        files::replace(&path, format!("{}\n", text.trim_end()).as_bytes())?;
        self.list_in_index(&file, name, text)?;
        Ok(file)
    }

    fn list_in_index(&self, file: &str, name: &str, text: &str) -> Result<(), Error> {
        let path = self.workspace.join(INDEX);
        let full = || Error::IndexFull(file.to_owned());
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

    /// All memories, as far as they are read.
    pub fn all(&self) -> Vec<Found> {
        let mut room = MAX_SEARCHED;
        let mut all = Vec::new();
        for (name, path) in self.list() {
            let Ok(start) = files::read(&path, MAX_FILE.min(room)) else { continue };
            room -= start.text.len().min(room);
            all.push(Found { name, text: start.text });
        }
        all
    }

    fn list(&self) -> Vec<(String, PathBuf)> {
        let Ok(entries) = fs::read_dir(self.workspace.join("memory")) else { return Vec::new() };
        let paths = entries.flatten().map(|entry| entry.path());
        let memories = paths.filter(|path| path.extension().is_some_and(|e| e == "md"));
        let named = memories.filter_map(|path| {
            let name = path.file_name()?.to_string_lossy();
            // Files that are being replaced.
            (!name.starts_with('.')).then(|| (format!("memory/{name}"), path.clone()))
        });
        let mut list: Vec<_> = named.take(MAX_FILES).collect();
        list.sort();
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_listed_once() {
        let dir = tempfile::tempdir().unwrap();
        let memory = Memory::new(dir.path());
        assert_eq!(memory.index(), "");
        assert_eq!(memory.save("Ann's cat", "It is  called\nTom.").unwrap(), "memory/ann-s-cat.md");
        memory.save("[x](y)", "z").unwrap();
        memory.save("ann s cat", "It is called Tim.").unwrap();
        assert_eq!(
            memory.index(),
            "# Memory\n\n- [ann s cat](memory/ann-s-cat.md): It is called Tim.\n- [x (y)](memory/x-y.md): z\n"
        );
        assert_eq!(memory.all()[0].text, "It is called Tim.\n");
        assert!(memory.check().is_empty());
    }

    #[test]
    fn an_index_of_a_person_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(INDEX), "my own words").unwrap();
        let memory = Memory::new(dir.path());
        memory.save("a", "b").unwrap();
        assert_eq!(memory.index(), "my own words\n- [a](memory/a.md): b\n");
    }

    #[test]
    fn what_is_huge_is_told_and_not_cut() {
        let dir = tempfile::tempdir().unwrap();
        let memory = Memory::new(dir.path());
        let huge = "x".repeat(MAX_INDEX + 1);
        fs::write(dir.path().join(INDEX), &huge).unwrap();
        fs::create_dir_all(dir.path().join("memory/odd.md")).unwrap();
        fs::write(dir.path().join("memory/big.md"), &huge).unwrap();
        assert!(
            matches!(memory.save("a", "b"), Err(Error::IndexFull(file)) if file == "memory/a.md")
        );
        assert!(matches!(memory.save("a", &huge), Err(Error::TooLong)));
        assert_eq!(fs::read_to_string(dir.path().join(INDEX)).unwrap(), huge);
        let notes = memory.check().join("\n");
        for name in ["MEMORY.md has 65537", "memory/big.md has", "memory/odd.md cannot"] {
            assert!(notes.contains(name), "{notes}");
        }
        assert_eq!(memory.index().len(), MAX_INDEX);
    }
}
