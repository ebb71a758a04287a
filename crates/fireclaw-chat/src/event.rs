//! What happens on a network.

use std::time::Duration;

use crate::Sender;

/// Something that happened on a connection. Texts of others come without formatting and
/// control characters; names are as the network gave them.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// Connected; the channels are being joined.
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
    /// The network does not want this bot now. It is tried again ever more rarely, which is
    /// told only when the reason changes.
    Held {
        /// Why, in words.
        reason: String,
        /// When it is tried again.
        retry_in: Duration,
    },
    /// The network will never take this bot. The connection has ended.
    Failed {
        /// Why, in words.
        reason: String,
    },
    /// The bot is in a channel now.
    Joined {
        /// The channel.
        channel: String,
        /// How the network shows the bot to others.
        shown: Sender,
    },
    /// The bot cannot join a channel. It is tried again ever more rarely, and told once.
    CannotJoin {
        /// The channel.
        channel: String,
        /// The network's words.
        reason: String,
    },
    /// Somebody left a channel or was sent out, or the bot.
    Left {
        /// The channel.
        channel: String,
        /// Who.
        nick: String,
        /// Why, in the words of whoever did it.
        reason: String,
        /// Whether it is the bot. It does not join that channel again by itself.
        is_self: bool,
    },
    /// Somebody else left the network.
    Quit {
        /// Who.
        nick: String,
    },
    /// Somebody, or the bot, has another nick.
    NickChanged {
        /// The nick before.
        from: String,
        /// The nick now.
        to: String,
        /// Whether it is the bot.
        is_self: bool,
    },
    /// The bot was invited. It joins only if told to.
    Invited {
        /// Where to.
        channel: String,
        /// By whom.
        by: Sender,
    },
    /// Somebody said something.
    Message(Message),
    /// Who is in a channel: after joining, and whenever somebody's rights change.
    Members {
        /// The channel.
        channel: String,
        /// Everybody in it, the bot too.
        members: Vec<Member>,
    },
    /// The network did not do what was asked.
    Refused {
        /// The channel or nick.
        target: String,
        /// The network's words.
        reason: String,
    },
    /// Lines that waited to be said became too old for it, and were not said.
    Dropped {
        /// How many.
        lines: usize,
    },
}

/// Something that somebody said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Who.
    pub from: Sender,
    /// Whether they may moderate the channel; not in private or in history.
    pub is_operator: bool,
    /// The channel; none if it was said to the bot alone.
    pub channel: Option<String>,
    /// Where an answer reaches those who heard this, and nobody else: the channel, some of its
    /// members, or who said it.
    pub conversation: String,
    /// What was said.
    pub text: String,
    /// How it was said.
    pub kind: Kind,
    /// Whether it is an earlier line that the network played back.
    pub is_history: bool,
}

/// How something was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// In the usual way.
    Plain,
    /// By a program, so that no program answers.
    Notice,
    /// As something that one does: `/me …`.
    Action,
}

/// Somebody in a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub nick: String,
    /// Whether they may moderate it.
    pub is_operator: bool,
}
