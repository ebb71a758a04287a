//! Skills: tools that are folders with a `SKILL.md` and a program `run`.

mod manifest;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{cut, files};
use manifest::Manifest;

/// The most skills that are used. Each takes room in every prompt.
const MAX_SKILLS: usize = 32;

/// How many entries of a directory are looked at.
const MAX_ENTRIES: usize = 256;

/// The most that is read of a `SKILL.md`, in bytes: its front matter is at its beginning.
const MAX_MANIFEST: usize = 16 * 1024;

/// Why a folder is no skill.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `SKILL.md` cannot be read.
    #[error("SKILL.md cannot be read: {0}")]
    Unreadable(std::io::Error),
    /// `SKILL.md` does not begin with `---`, or that has no end.
    #[error("SKILL.md has no front matter between two lines `---`")]
    NoFrontMatter,
    /// A field that is needed is missing.
    #[error("SKILL.md has no `{0}`")]
    Missing(&'static str),
    /// A name that no tool can have.
    #[error("`{0}` is no name for a tool: letters, digits, `_` and `-`, at most 64")]
    Name(String),
    /// A name that another tool has.
    #[error("there is a tool `{0}` already")]
    Taken(String),
    /// The schema of its parameters cannot be used.
    #[error("`parameters` is no JSON schema of an object: {0}")]
    Parameters(String),
    /// Its program cannot be run.
    #[error("it has no executable program `run`")]
    NoProgram,
}

impl From<std::io::Error> for Error {
    /// Its words are part of ours, so it is not told again as the source.
    fn from(cause: std::io::Error) -> Self {
        Self::Unreadable(cause)
    }
}

/// A tool that is a folder.
#[derive(Debug, Clone, PartialEq)]
pub struct Skill {
    /// The name of the tool.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// The JSON schema of its arguments.
    pub parameters: Value,
    /// Where it is.
    pub folder: PathBuf,
}

/// The skills that were found.
#[derive(Debug, Default)]
pub struct Skills {
    directories: Vec<PathBuf>,
    /// What the directories looked like; empty before the first look.
    seen: Vec<Entry>,
    found: Vec<Skill>,
}

/// A folder as it was at a look: if its files are the same, so is the skill.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    folder: PathBuf,
    files: [Option<Stamp>; 2],
}

/// What shows that a file has changed.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    /// Seconds and nanoseconds; also changes with the mode.
    changed: (i64, i64),
    size: u64,
}

impl Skills {
    pub fn new(directories: Vec<PathBuf>) -> Self {
        Self { directories, ..Self::default() }
    }

    /// What there was at the last look.
    pub fn all(&self) -> &[Skill] {
        &self.found
    }

    /// Looks for skills, reading them only if something has changed. What is wrong with
    /// them is told in words. `is_taken` says which names other tools have.
    pub fn look(&mut self, is_taken: impl Fn(&str) -> bool) -> Vec<String> {
        let entries = entries(&self.directories);
        if entries == self.seen {
            return Vec::new();
        }
        self.seen = entries;
        self.found.clear();
        let mut notes = Vec::new();
        for entry in &self.seen {
            let skill = load(entry).and_then(|skill| {
                let taken =
                    |name: &str| is_taken(name) || self.found.iter().any(|s| s.name == name);
                if taken(&skill.name) { Err(Error::Taken(skill.name)) } else { Ok(skill) }
            });
            let folder = cut::line(&entry.folder.to_string_lossy(), 200);
            match skill {
                Ok(_) if self.found.len() == MAX_SKILLS => {
                    notes.push(format!("more than {MAX_SKILLS} skills: {folder} is not used"));
                    break;
                }
                Ok(skill) => self.found.push(skill),
                Err(problem) => notes.push(format!("the skill {folder} is broken: {problem}")),
            }
        }
        notes
    }
}

/// The folders that have a `SKILL.md`, by name within each directory.
fn entries(directories: &[PathBuf]) -> Vec<Entry> {
    let mut entries = Vec::new();
    for directory in directories {
        let Ok(listed) = fs::read_dir(directory) else { continue };
        let mut folders: Vec<PathBuf> =
            listed.flatten().take(MAX_ENTRIES).map(|entry| entry.path()).collect();
        folders.sort();
        let with_manifest = folders.into_iter().filter_map(|folder| {
            let files = ["SKILL.md", "run"].map(|name| stamp(&folder.join(name)));
            files[0].is_some().then_some(Entry { folder, files })
        });
        entries.extend(with_manifest);
    }
    entries
}

fn stamp(path: &Path) -> Option<Stamp> {
    let found = fs::metadata(path).ok()?;
    let changed = (found.ctime(), found.ctime_nsec());
    Some(Stamp { inode: found.ino(), changed, size: found.size() })
}

fn load(entry: &Entry) -> Result<Skill, Error> {
    let text = files::read(&entry.folder.join("SKILL.md"), MAX_MANIFEST)?.text;
    let Manifest { name, description, parameters } = Manifest::parse(&text)?;
    let program = fs::metadata(entry.folder.join("run"));
    let is_program =
        program.is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0);
    if !is_program {
        return Err(Error::NoProgram);
    }
    Ok(Skill { name, description, parameters, folder: entry.folder.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(directory: &Path, name: &str, manifest: &str, mode: u32) {
        let folder = directory.join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("SKILL.md"), manifest).unwrap();
        fs::write(folder.join("run"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(folder.join("run"), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn good(name: &str) -> String {
        format!("---\nname: {name}\ndescription: d\n---\n")
    }

    #[test]
    fn good_and_broken_ones() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        put(&a, "one", &good("one"), 0o755);
        put(&a, "two", &good("two"), 0o644);
        put(&a, "three", "no front matter", 0o755);
        put(&b, "four", &good("one"), 0o755);
        put(&b, "five", &good("run_command"), 0o755);
        fs::create_dir(b.join("no skill")).unwrap();
        let mut skills = Skills::new(vec![a.clone(), b.clone(), dir.path().join("none")]);
        let notes = skills.look(|name| name == "run_command").join("\n");
        assert_eq!(skills.all().iter().map(|s| &s.folder).collect::<Vec<_>>(), [&a.join("one")]);
        for word in
            ["a/two is broken: it has no", "a/three", "`one` already", "`run_command` already"]
        {
            assert!(notes.contains(word), "{word}: {notes}");
        }
        assert_eq!(notes.lines().count(), 4);
        // Nothing changed, nothing is said again.
        assert!(skills.look(|_| true).is_empty());
        fs::set_permissions(a.join("two/run"), fs::Permissions::from_mode(0o755)).unwrap();
        skills.look(|name| name == "run_command");
        assert_eq!(skills.all().len(), 2);
        fs::remove_dir_all(a.join("one")).unwrap();
        skills.look(|name| name == "run_command");
        assert_eq!(skills.all()[1].folder, b.join("four"));
    }

    #[test]
    fn not_more_than_fit() {
        let dir = tempfile::tempdir().unwrap();
        for number in 0..40 {
            put(dir.path(), &format!("s{number}"), &good(&format!("s{number}")), 0o755);
        }
        let mut skills = Skills::new(vec![dir.path().to_owned()]);
        let notes = skills.look(|_| false);
        assert_eq!((skills.all().len(), notes.len()), (MAX_SKILLS, 1));
    }
}
