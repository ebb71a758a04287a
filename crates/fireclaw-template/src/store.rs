//! Templates by name: the user's own files, then those that ship.

use fireclaw_config::{Format, MAX_FILE, Mistake, quoted};
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::{Error, Result, Source, Template, parse, shipped};

/// Where a template comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// From the program.
    Shipped,
    /// From a file.
    File(PathBuf),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shipped => f.write_str("shipped"),
            Self::File(path) => f.write_str(&quoted_path(path)),
        }
    }
}

/// A template of a list, which need not be free of mistakes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name: that of the file, which need not be a valid one.
    pub name: String,
    /// Where it comes from.
    pub origin: Origin,
    /// Whether it stands in for one that ships, or for one of a later directory.
    pub overrides: bool,
}

/// Finds templates. Files are read anew each time, so a change counts at once.
#[derive(Debug, Clone)]
pub struct Store {
    directories: Vec<PathBuf>,
}

impl Store {
    /// A store of these directories, which need not exist, and of the templates that ship.
    /// Of several templates with the same name, that of the first directory counts, and a
    /// shipped one last.
    pub fn open(directories: impl IntoIterator<Item = PathBuf>) -> Self {
        Self { directories: directories.into_iter().collect() }
    }

    /// All templates, by name. Files that do not end in `.toml` or `.json`, or whose names
    /// begin with a dot, are none.
    ///
    /// # Errors
    /// [`Error::Read`] if a directory is there but cannot be read, [`Error::Twice`] if one
    /// has the same name in both formats.
    pub fn list(&self) -> Result<Vec<Entry>> {
        let mut entries: BTreeMap<String, Entry> = BTreeMap::new();
        let shipped = shipped::TEMPLATES.iter().map(|(name, _)| (*name).to_owned());
        add(&mut entries, shipped.map(|name| (name, Origin::Shipped)));
        for directory in self.directories.iter().rev() {
            let files = files(directory)?;
            add(&mut entries, files.into_iter().map(|(name, path)| (name, Origin::File(path))));
        }
        Ok(entries.into_values().collect())
    }

    /// The template of this name.
    ///
    /// # Errors
    /// [`Error::Unknown`] if there is none, [`Error::Mistakes`] if it is wrong, and those of
    /// [`Store::list`].
    pub fn get(&self, name: &str) -> Result<Template> {
        self.check(name).map(|(template, _)| template)
    }

    /// The template of this name, and what in it has no effect.
    ///
    /// # Errors
    /// Those of [`Store::get`].
    pub fn check(&self, name: &str) -> Result<(Template, Vec<Mistake>)> {
        let entry = self.find(name)?;
        match &entry.origin {
            Origin::File(path) => check_file(path),
            Origin::Shipped => {
                let text = shipped::text(name).unwrap_or_default();
                let file = format!("{name}.toml");
                read(&entry.name, &file, text.as_bytes(), Format::Toml, None)
            }
        }
    }

    /// The text of the template of this name as it is written, and where it comes from.
    ///
    /// # Errors
    /// Those of [`Store::get`], but mistakes are none here. What is not UTF-8 is replaced.
    pub fn text(&self, name: &str) -> Result<(String, Origin)> {
        let entry = self.find(name)?;
        let text = match &entry.origin {
            Origin::File(path) => {
                let bytes = content(path).map_err(Error::read(path))?;
                String::from_utf8_lossy(&bytes).into_owned()
            }
            Origin::Shipped => shipped::text(name).unwrap_or_default().to_owned(),
        };
        Ok((text, entry.origin))
    }

    fn find(&self, name: &str) -> Result<Entry> {
        let entries = self.list()?;
        if let Some(entry) = entries.iter().find(|entry| entry.name == name) {
            return Ok(entry.clone());
        }
        let known: Vec<String> = entries.into_iter().map(|entry| entry.name).collect();
        let near =
            fireclaw_config::nearest(name, known.iter().map(String::as_str)).map(str::to_owned);
        Err(Error::Unknown { name: name.to_owned(), near, known })
    }
}

/// Checks a file that need not be in a store: the template, and what has no effect in it.
///
/// # Errors
/// [`Error::Read`] if it cannot be read or its name ends in neither `.toml` nor `.json`,
/// [`Error::Mistakes`] if it is wrong.
pub fn check_file(path: &Path) -> Result<(Template, Vec<Mistake>)> {
    let format = Format::of(path).ok_or_else(|| {
        let problem = "a template's file ends in .toml or .json";
        Error::read(path)(io::Error::new(io::ErrorKind::InvalidInput, problem))
    })?;
    let text = content(path).map_err(Error::read(path))?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let directory = path.parent().unwrap_or(Path::new("."));
    // A file without directory is in this one.
    let directory = if directory == Path::new("") { Path::new(".") } else { directory };
    read(&name, &quoted_path(path), &text, format, Some(directory))
}

fn read(
    name: &str,
    file: &str,
    text: &[u8],
    format: Format,
    directory: Option<&Path>,
) -> Result<(Template, Vec<Mistake>)> {
    let parsed = parse(&Source { name, file, text, format, directory });
    match parsed.template {
        Ok(template) => Ok((template, parsed.warnings)),
        Err(mistakes) => Err(Error::Mistakes { name: quoted(name), mistakes }),
    }
}

/// Adds templates that count before those that are there.
fn add(entries: &mut BTreeMap<String, Entry>, more: impl Iterator<Item = (String, Origin)>) {
    for (name, origin) in more {
        let overrides = entries.contains_key(&name);
        entries.insert(name.clone(), Entry { name, origin, overrides });
    }
}

/// The templates of one directory.
fn files(directory: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut files = BTreeMap::new();
    let listing = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(files),
        listing => listing.map_err(Error::read(directory))?,
    };
    for entry in listing {
        let path = entry.map_err(Error::read(directory))?.path();
        let Some(name) = path.file_stem().and_then(|stem| stem.to_str()) else { continue };
        if name.starts_with('.') || Format::of(&path).is_none() {
            continue;
        }
        if let Some(other) = files.insert(name.to_owned(), path.clone()) {
            let name = quoted(name);
            return Err(Error::Twice {
                name,
                first: path.clone().min(other.clone()),
                second: path.max(other),
            });
        }
    }
    Ok(files)
}

/// The content of a regular file, at most one byte more than a template may have: what is
/// too large is said with the other mistakes.
fn content(path: &Path) -> io::Result<Vec<u8>> {
    // A pipe would block for ever.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(MAX_FILE as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A path without commands to a terminal.
fn quoted_path(path: &Path) -> String {
    path.to_string_lossy().chars().map(fireclaw_config::printable).collect()
}
