//! Lines of the protocol: what a server sends, and what may be sent to it.
//!
//! Incoming lines are read strictly but with every byte sequence as text
//! ([`Message::parse`]); outgoing ones exist only if they are valid
//! ([`Line`]), so nothing that reaches the socket can carry a second command.
//!
//! Sources: RFC 1459 and RFC 2812, section 2.3; the IRCv3 [message tags]
//! specification.
//!
//! [message tags]: https://ircv3.net/specs/extensions/message-tags

mod line;
mod parse;
mod source;
pub(crate) mod tags;

pub use line::{InvalidLine, Line};
pub use parse::{Message, ParseError};
pub use source::Source;

/// The longest line without tags, in bytes, with CR and LF (RFC 2812, 2.3).
pub const LINE_LEN: usize = 512;

/// The longest line without tags that is taken from a server or believed of
/// one that announces `LINELEN`, in bytes, with CR and LF.
pub const MAX_LINE_LEN: usize = 4096;

/// The longest tags section of a server, in bytes, with `@` and the space.
pub const MAX_TAGS_LEN: usize = 8191;

/// The longest tags section of a client, in bytes, with `@` and the space.
pub const MAX_CLIENT_TAGS_LEN: usize = 4096;

/// The most parameters of one message (RFC 2812, 2.3).
pub const MAX_PARAMS: usize = 15;
