//! What can go wrong around a store of templates.

use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;

use crate::Mistake;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No template has this name.
    #[error("there is no template `{}`", fireclaw_config::quoted(name))]
    Unknown {
        /// The name that was asked for.
        name: String,
        /// The name that was meant, perhaps.
        near: Option<String>,
        /// All names there are.
        known: Vec<String>,
    },
    /// One directory has the template as TOML and as JSON.
    #[error("the template `{name}` is there twice: {} and {}", first.display(), second.display())]
    Twice {
        /// The name.
        name: String,
        /// The one file.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// The template is wrong.
    #[error("the template `{name}` has {}", listed(mistakes))]
    Mistakes {
        /// The name.
        name: String,
        /// All of them, in the order of the file.
        mistakes: Vec<Mistake>,
    },
    /// A file or directory cannot be read.
    #[error("cannot read {}: {cause}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
}

impl Error {
    pub(crate) fn read(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        |cause| Self::Read { path, cause }
    }
}

/// The result of asking a store.
pub type Result<T> = std::result::Result<T, Error>;

fn listed(mistakes: &[Mistake]) -> String {
    let mut text = match mistakes.len() {
        1 => "a mistake:".to_owned(),
        n => format!("{n} mistakes:"),
    };
    for mistake in mistakes {
        // Writing to a string does not fail.
        let _ = write!(text, "\n\n{mistake}");
    }
    text
}
