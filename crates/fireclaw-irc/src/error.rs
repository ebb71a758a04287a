//! What can go wrong before a line is sent, and around the private server.

use fireclaw_host::PathError;

use crate::message::InvalidLine;

/// An error of this crate. What happens to a connection later is an
/// [`Event`](crate::Event), not an error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting cannot be used.
    #[error("the IRC setting `{setting}` is not usable: {reason}")]
    Config {
        /// The field's name in [`Config`](crate::Config) or
        /// [`Options`](crate::server::Options).
        setting: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Neither a channel nor a nick.
    #[error("`{name}` is not a valid IRC {what}")]
    Name {
        /// What it should have been: `channel`, `nick` or `target`.
        what: &'static str,
        /// What it is, escaped.
        name: String,
    },
    /// The words do not form a line of the protocol.
    #[error("not a valid IRC line: {0}")]
    Line(InvalidLine),
    /// Too many lines wait to be sent; none of these was taken.
    #[error("the IRC send queue is full: {waiting} lines are waiting")]
    QueueFull {
        /// How many lines wait.
        waiting: usize,
    },
    /// What was to be said waited too long for a connection.
    #[error("not sent: no IRC connection for too long")]
    TooLate,
    /// The client has stopped, by `quit`, by a fatal answer of the server, or
    /// because nobody listens to its events.
    #[error("the IRC client has stopped")]
    Stopped,
    /// No ngircd is installed.
    #[error("{program} is not installed")]
    ServerMissing {
        /// The program's name or path as asked for.
        program: String,
        /// The environment variable that can name it.
        variable: &'static str,
        /// The Debian package that carries it.
        package: &'static str,
    },
    /// ngircd did not come up.
    #[error("the private IRC server did not start: {reason}")]
    ServerFailed {
        /// How it ended or what was waited for, in words.
        reason: String,
        /// The last lines that it wrote, escaped.
        log: String,
    },
    /// A file of ours could not be used.
    #[error(transparent)]
    File(#[from] PathError),
    /// Another system call failed.
    #[error("{what}: {cause}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        cause: std::io::Error,
    },
}

impl From<InvalidLine> for Error {
    /// Its words are part of ours, so it is not told again as the source.
    fn from(cause: InvalidLine) -> Self {
        Self::Line(cause)
    }
}

/// The result of an operation of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn system(what: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |cause| Self::System { what, cause }
    }

    pub(crate) fn name(what: &'static str, name: &str) -> Self {
        Self::Name { what, name: name.chars().take(80).flat_map(char::escape_debug).collect() }
    }
}
