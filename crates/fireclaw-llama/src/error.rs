//! Why there is no local model server.

use fireclaw_host::PathError;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A program or model of the local server could not be fetched.
    #[error("cannot fetch {what}: {problem}")]
    Fetch {
        /// What was to be fetched.
        what: String,
        /// Why it failed.
        problem: String,
    },
    /// A fetched file is not the one that was pinned.
    #[error("checksum mismatch for {what}: its SHA-256 is {found}, expected {expected}")]
    WrongDigest {
        /// What was fetched.
        what: String,
        /// The digest that is pinned.
        expected: String,
        /// The digest of what came.
        found: String,
    },
    /// The prebuilt program cannot run on this host, and none can be compiled.
    #[error(
        "the prebuilt model server cannot run on {name}, which lacks {missing}, and to compile \
         one {tools} is missing"
    )]
    Processor {
        /// The processor, escaped.
        name: String,
        /// What it lacks.
        missing: String,
        /// The programs that are not there.
        tools: String,
    },
    /// The local server could not be compiled.
    #[error("the model server could not be compiled: {problem}")]
    Build {
        /// The last words of what compiles, escaped.
        problem: String,
    },
    /// The local server did not start or did not stay.
    #[error("the local model server ended ({status})")]
    ServerDied {
        /// How it ended, in words.
        status: String,
        /// The last of what it wrote, escaped.
        log: String,
    },
    /// A file or directory of ours could not be used.
    #[error(transparent)]
    File(#[from] PathError),
    /// It runs, and does not answer as it should.
    #[error(transparent)]
    Model(#[from] fireclaw_llm::Error),
}

/// The result of having a model server.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// What whoever runs the server should see beside the error. Not for people on IRC.
    pub fn detail(&self) -> Option<String> {
        match self {
            Self::ServerDied { status, log } => Some(format!("{status}: {log}")),
            Self::Model(error) => error.detail(),
            _ => None,
        }
    }
}
