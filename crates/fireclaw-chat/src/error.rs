//! What can go wrong before something is said.

use fireclaw_host::PathError;

/// An error of a network. What happens to a connection later is an
/// [`Event`](crate::Event), not an error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting cannot be used.
    #[error("the {network} setting `{setting}` is not usable: {reason}")]
    Setting {
        /// The network's kind, such as `IRC`.
        network: &'static str,
        /// Which.
        setting: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A name that the network cannot have.
    #[error("`{name}` is not a valid {network} {what}")]
    Name {
        /// The network's kind, such as `IRC`.
        network: &'static str,
        /// What it should have been: `channel`, `nick` or `target`.
        what: &'static str,
        /// What it is, escaped.
        name: String,
    },
    /// There is no chat network.
    #[error("there is no chat network")]
    NoNetwork,
    /// A file that the connection needs, such as one of certificates.
    #[error(transparent)]
    File(#[from] PathError),
    /// Too much waits to be sent; nothing of this was taken.
    #[error("the send queue is full: {waiting} lines are waiting")]
    QueueFull {
        /// How many lines wait.
        waiting: usize,
    },
    /// What was to be said waited too long for a connection.
    #[error("not sent: no connection for too long")]
    TooLate,
    /// The connection has ended for good.
    #[error("the connection has stopped")]
    Stopped,
    /// Something else.
    #[error("{0}")]
    Other(String),
}

/// The result of asking something of a network.
pub type Result<T> = std::result::Result<T, Error>;
