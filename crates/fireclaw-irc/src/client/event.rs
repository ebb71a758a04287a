//! What a client tells its owner.

use std::time::{Duration, SystemTime};

use crate::message::Source;

/// Something that happened. Texts from others come without formatting and
/// control characters; names are as the server gave them.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// Registered with the server; the channels are being joined.
    Connected {
        /// The nick that was got, which may not be the wanted one.
        nick: String,
    },
    /// The connection was lost, or could not be made.
    Disconnected {
        /// Why, in words.
        reason: String,
        /// When it is tried again.
        retry_in: Duration,
    },
    /// The server does not want this client now: a wrong password, a ban, a nick that it
    /// does not allow, too many attempts. It is tried again ever more rarely, which is told
    /// only when the reason changes.
    Held {
        /// Why, in words.
        reason: String,
        /// When it is tried again.
        retry_in: Duration,
    },
    /// Somebody, or this client, is in a channel now.
    Joined {
        /// The channel.
        channel: String,
        /// Who.
        from: Source,
        /// Their account, if the server tells.
        account: Option<String>,
        /// Whether it is this client.
        is_self: bool,
    },
    /// Somebody, or this client, left a channel.
    Parted {
        /// The channel.
        channel: String,
        /// Who.
        nick: String,
        /// Why, in their words.
        reason: String,
        /// Whether it is this client.
        is_self: bool,
    },
    /// Somebody, or this client, was sent out of a channel. After that this
    /// client does not join it again by itself.
    Kicked {
        /// The channel.
        channel: String,
        /// Who had to go.
        nick: String,
        /// Who sent them.
        by: Source,
        /// Why, in their words.
        reason: String,
        /// Whether it is this client.
        is_self: bool,
    },
    /// Somebody else left the server.
    Quit {
        /// Who.
        nick: String,
        /// Why, in their words or the server's.
        reason: String,
    },
    /// Somebody, or this client, has another nick.
    NickChanged {
        /// The nick before.
        from: String,
        /// The nick now.
        to: String,
        /// Whether it is this client.
        is_self: bool,
    },
    /// This client was invited. It joins only if told to.
    Invited {
        /// Where to.
        channel: String,
        /// By whom.
        by: Source,
        /// Their account, if the server tells.
        account: Option<String>,
    },
    /// Somebody said something.
    Message(Chat),
    /// Who is in a channel: after joining, and whenever a rank changes.
    Members {
        /// The channel.
        channel: String,
        /// Everybody in it, this client too.
        members: Vec<Member>,
    },
    /// The server did not do what was asked: a channel that cannot be joined, which is tried
    /// again ever more rarely and told once, a nick that is taken, somebody who is not there.
    Refused {
        /// The channel or nick.
        target: String,
        /// The server's number for it (RFC 2812, 5.2).
        numeric: u16,
        /// The server's words.
        reason: String,
    },
    /// Lines that waited to be said became too old for it, and were not said.
    Dropped {
        /// How many.
        lines: usize,
    },
    /// The server will never take this client: it refuses the account's password. The
    /// client has stopped.
    Failed {
        /// Why, in words.
        reason: String,
    },
}

/// A line that somebody said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chat {
    /// Who.
    pub from: Source,
    /// Their account, if the server tells; a nick alone proves nothing.
    pub account: Option<String>,
    /// Their rank in the channel now; [`Rank::Member`] in private and in history.
    pub rank: Rank,
    /// The channel, or this client's nick.
    pub target: String,
    /// Where an answer reaches those who heard this, and nobody else: the channel, with the
    /// signs that stood before it if it was for some of its members only (`@#channel`), or
    /// the nick of who said it.
    pub reply_to: String,
    /// Whether `target` is a channel.
    pub is_channel: bool,
    /// What was said.
    pub text: String,
    /// When, by the server's clock if it tells, else by ours.
    pub time: SystemTime,
    /// How it was said.
    pub kind: ChatKind,
    /// Whether it is an earlier line that the server played back.
    pub is_history: bool,
}

/// How something was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChatKind {
    /// An ordinary message.
    Message,
    /// A notice, which must not be answered by a program (RFC 2812, 3.3.2).
    Notice,
    /// `/me …`.
    Action,
}

/// Somebody in a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub nick: String,
    /// What they may do there.
    pub rank: Rank,
}

/// What somebody may do in a channel; the greater may more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Rank {
    /// Nothing special.
    #[default]
    Member,
    /// Speak where only some may (`+v`).
    Voice,
    /// Half an operator (`+h`).
    HalfOperator,
    /// Operator (`+o`) or above.
    Operator,
}

/// What is shown while an answer is being made (IRCv3 `+typing`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Typing {
    /// An answer is being made.
    Active,
    /// No longer, and none comes.
    Done,
}
