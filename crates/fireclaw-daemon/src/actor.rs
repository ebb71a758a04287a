//! Who has something done.

use std::fmt;

use fireclaw_chat::Sender;

/// Who has something done.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Actor {
    /// Somebody on the chat server.
    Person {
        /// The nick, which anybody may take.
        nick: String,
        /// The account that the server proved.
        account: Option<String>,
        /// The user and host that the server shows, as `user@host`.
        host: String,
    },
    /// A user of this host, through the daemon's socket.
    Local {
        /// Its user id.
        uid: u32,
    },
    /// The clock.
    Schedule,
    /// The overseer by itself.
    Overseer,
}

impl Actor {
    /// Who is behind something that was said.
    pub fn person(from: &Sender) -> Self {
        Self::Person {
            nick: from.nick.clone(),
            account: from.account.clone(),
            host: format!("{}@{}", from.user, from.host),
        }
    }

    /// The account that the chat server proved.
    pub fn account(&self) -> Option<&str> {
        match self {
            Self::Person { account, .. } => account.as_deref(),
            Self::Local { .. } | Self::Schedule | Self::Overseer => None,
        }
    }

    /// The user and host that the chat server shows.
    pub fn host(&self) -> Option<&str> {
        match self {
            Self::Person { host, .. } => Some(host),
            Self::Local { .. } | Self::Schedule | Self::Overseer => None,
        }
    }
}

impl fmt::Display for Actor {
    /// As people call it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Person { nick, .. } => f.write_str(nick),
            Self::Local { uid } => write!(f, "user {uid} of this host"),
            Self::Schedule => f.write_str("the schedule"),
            Self::Overseer => f.write_str("the overseer"),
        }
    }
}
