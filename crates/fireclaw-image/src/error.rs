//! Why something could not be prepared.

use std::collections::BTreeMap;
use std::path::PathBuf;

use fireclaw_host::PathError;

/// An error of this crate. The command line adds the hint for each kind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Set-up has not been done in this home.
    #[error("setup has not run: no {what} in {}", home.display())]
    NotSetUp {
        /// What is missing.
        what: &'static str,
        /// Where it was looked for.
        home: PathBuf,
    },
    /// No image of that name.
    #[error("there is no image named {name:?}")]
    UnknownImage {
        /// The name asked for.
        name: String,
        /// The names that there are.
        known: Vec<String>,
    },
    /// A name that cannot be an image's.
    #[error(
        "{name:?} cannot be a name: 1 to 64 letters, digits, '-', '_' or '.', starting with a letter or digit"
    )]
    BadName {
        /// The name asked for.
        name: String,
    },
    /// A file is not what the manifest says.
    #[error("{} is damaged: {problem}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What differs.
        problem: String,
    },
    /// A kernel file that cannot be booted.
    #[error("{} is not a kernel that can be booted: {problem}", path.display())]
    BadKernel {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A root file system archive that cannot be read.
    #[error("cannot import {origin}: {problem}")]
    BadArchive {
        /// Where it came from.
        origin: String,
        /// What is wrong with it.
        problem: String,
    },
    /// An archive in which everything lies in one folder.
    #[error("cannot import {origin}: all of it is below {folder}/")]
    BelowFolder {
        /// Where it came from.
        origin: String,
        /// The folder, escaped.
        folder: String,
    },
    /// One layer of an image instead of a whole one.
    #[error("cannot import {origin}: it is one layer of an image, {mark} marks what it removes")]
    OneLayer {
        /// Where it came from.
        origin: String,
        /// A file that marks what is removed, escaped.
        mark: String,
    },
    /// Several images in one archive, or none of the tag that was asked for.
    #[error("{}", which_image(origin, wanted.as_deref(), known))]
    WhichImage {
        /// Where it came from.
        origin: String,
        /// The tag that was asked for.
        wanted: Option<String>,
        /// The tags that there are, escaped.
        known: Vec<String>,
    },
    /// A program that set-up needs is not installed.
    #[error("{program} is not installed")]
    ToolMissing {
        /// The program.
        program: &'static str,
    },
    /// A program that set-up runs failed.
    #[error("{program} failed: {problem}")]
    ToolFailed {
        /// The program.
        program: &'static str,
        /// Its last words, escaped.
        problem: String,
    },
    /// [`cancel`](crate::cancel) was called.
    #[error("interrupted")]
    Cancelled,
    /// Too little space, before or while something was written.
    #[error("no space left for {}: {needed_mib} MiB are needed, {free_mib} MiB are free", path.display())]
    NoSpace {
        /// The directory.
        path: PathBuf,
        /// MiB that are needed at most.
        needed_mib: u64,
        /// MiB that are free.
        free_mib: u64,
    },
    /// A file or directory could not be used.
    #[error(transparent)]
    File(#[from] PathError),
}

impl Error {
    /// The error for a name that is not among those of `images`.
    pub(crate) fn unknown_image<T>(name: &str, images: &BTreeMap<String, T>) -> Self {
        Self::UnknownImage { name: name.to_owned(), known: images.keys().cloned().collect() }
    }
}

fn which_image(origin: &str, wanted: Option<&str>, known: &[String]) -> String {
    match (wanted, known) {
        (Some(wanted), []) => {
            format!("{origin} has no images with tags, and {wanted:?} was asked for")
        }
        (Some(wanted), _) => format!("{origin} has no single image with the tag {wanted:?}"),
        (None, _) => format!("{origin} has several images"),
    }
}

/// The result of preparing something.
pub type Result<T> = std::result::Result<T, Error>;
