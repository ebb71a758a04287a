//! The one byte stream between host and guest, and everything said on it.
//!
//! The stream is whatever the VMM offers: a virtio-serial port under QEMU, a
//! vsock connection under Firecracker. It carries one *session* at a time:
//!
//! 1. the guest speaks first ([`hello::GuestHello`]), so nothing is sent into a
//!    device that nobody reads yet;
//! 2. the host answers with the guest's identity ([`hello::HostHello`]) and the
//!    guest confirms ([`hello::Ready`]) once clock, randomness and names are
//!    set. No command can start before that;
//! 3. both sides switch to [yamux], and every channel is one of its
//!    flow-controlled streams, opened by the host with an [`message::Open`].
//!
//! The guest is hostile: every length is bounded before memory is allocated,
//! and a guest that opens a channel ends its session.
//!
//! [yamux]: https://github.com/hashicorp/yamux/blob/master/spec.md

pub mod agent;
pub mod boot;
pub mod chat;
pub mod frame;
pub mod hello;
pub mod id;
pub mod message;
pub mod session;

/// The generation of this protocol, sent in both hellos.
///
/// `VERSIONING.md` says when it is raised: the newer host adapts to the older
/// guest, and refuses a guest that is newer than itself.
pub const GENERATION: u32 = 5;

/// The oldest guest generation that this host still speaks.
pub const OLDEST_GUEST: u32 = 1;

/// Why a stream to the other side could not go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The transport failed or closed.
    #[error("the stream broke: {0}")]
    Io(std::io::Error),
    /// The other side sent bytes that this protocol does not allow.
    #[error("protocol violation: {0}")]
    Violation(String),
    /// The other side speaks a generation that this side does not.
    #[error(
        "the guest speaks protocol generation {theirs}, this program {OLDEST_GUEST} to {GENERATION}"
    )]
    Generation {
        /// The generation in the other side's hello.
        theirs: u32,
    },
    /// The other side is of an older generation, which cannot do this.
    #[error(
        "the guest speaks protocol generation {theirs}, {what} came with {needed}; start it anew"
    )]
    TooOld {
        /// What was asked of it.
        what: &'static str,
        /// The generation that can.
        needed: u32,
        /// The generation in the guest's hello.
        theirs: u32,
    },
    /// The guest could not connect to one of its ports.
    #[error("no server answers in the guest: {0}")]
    NotConnected(String),
    /// All channels are taken, and as many wait for one as may.
    #[error(
        "too many commands: the VM is at its limit, and {} more are waiting",
        session::MAX_WAITING
    )]
    Busy,
    /// The session has ended; no channel can be opened.
    #[error("the session is closed")]
    Closed,
}

impl From<std::io::Error> for Error {
    /// Its words are part of ours, so it is not told again as the source.
    fn from(cause: std::io::Error) -> Self {
        Self::Io(cause)
    }
}

impl Error {
    pub(crate) fn violation(what: impl std::fmt::Display) -> Self {
        Self::Violation(what.to_string())
    }
}

/// The result of a protocol operation.
pub type Result<T> = std::result::Result<T, Error>;
