//! What a network does for a bot.

use std::fmt::Debug;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;

use crate::{Case, Event, Result};

/// A chat network, with all that it takes to connect to it.
pub trait Network: Debug + Send + Sync {
    /// Connects a bot. The connection stays: it comes back after a failure, with its channels
    /// and its nick. Dropping the events or all clones of the connection ends it.
    ///
    /// # Errors
    /// For what can never work: [`Error::Name`](crate::Error::Name),
    /// [`Error::Setting`](crate::Error::Setting), [`Error::File`](crate::Error::File).
    fn connect(&self, bot: Bot) -> Result<(Arc<dyn Connection>, Events)>;

    /// The account that all bots log in to, if they do.
    fn account(&self) -> Option<&str>;

    /// Whether there is one at all.
    fn is_there(&self) -> bool {
        true
    }
}

/// No network: nobody can be connected.
#[derive(Debug, Clone, Copy)]
pub struct NoNetwork;

impl Network for NoNetwork {
    fn connect(&self, _bot: Bot) -> Result<(Arc<dyn Connection>, Events)> {
        Err(crate::Error::NoNetwork)
    }

    fn account(&self) -> Option<&str> {
        None
    }

    fn is_there(&self) -> bool {
        false
    }
}

/// Everything that happens on a connection, in order.
pub type Events = BoxStream<'static, Event>;

/// A bot that is to be connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bot {
    /// The nick that it wants.
    pub nick: String,
    /// Where it is.
    pub channels: Vec<String>,
    /// Whether lines that somebody sends within a moment come as one message, as those of a
    /// paste that the network had to split.
    pub joins_pastes: bool,
}

/// A text as lines to be said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Folded {
    /// The lines: none empty, each as long as may be said at once, no more than asked for.
    pub lines: Vec<String>,
    /// Whether there was more.
    pub rest: bool,
}

/// A bot's connection.
///
/// A conversation is a channel, a part of its members, or one person's nick. Text may come
/// from anywhere: what the network would take for formatting or control is left out.
pub trait Connection: Debug + Send + Sync {
    /// The nick now, or the wanted one while there is no connection.
    fn nick(&self) -> String;

    /// Which names are the same.
    fn case(&self) -> Case;

    /// A text as at most `most` lines that can be said in a conversation.
    fn fold(&self, conversation: &str, text: &str, most: usize) -> Folded;

    /// All of a line in pieces that can be said in a conversation, each with `spare` more
    /// bytes.
    fn split<'a>(&self, conversation: &str, line: &'a str, spare: usize) -> Vec<&'a str>;

    /// Says something, in as many lines as it takes. Ready when it waits to be sent.
    ///
    /// # Errors
    /// [`Error::Name`](crate::Error::Name), [`Error::QueueFull`](crate::Error::QueueFull),
    /// [`Error::Stopped`](crate::Error::Stopped).
    fn say<'a>(&'a self, conversation: &'a str, text: &'a str) -> BoxFuture<'a, Result<()>>;

    /// The same before everything that waits: for what people decide on or asked for.
    ///
    /// # Errors
    /// Those of [`Connection::say`].
    fn say_urgent<'a>(&'a self, conversation: &'a str, text: &'a str) -> BoxFuture<'a, Result<()>>;

    /// The same, and ready only when it was sent.
    ///
    /// # Errors
    /// Those of [`Connection::say`]; [`Error::TooLate`](crate::Error::TooLate) if it waited too
    /// long for a connection and was dropped.
    fn deliver<'a>(&'a self, conversation: &'a str, text: &'a str) -> BoxFuture<'a, Result<()>>;

    /// Shows, where it can be shown, that an answer is being written, or no longer is. To be
    /// repeated every few seconds.
    ///
    /// # Errors
    /// [`Error::Name`](crate::Error::Name), [`Error::Stopped`](crate::Error::Stopped).
    fn typing<'a>(&'a self, conversation: &'a str, is_typing: bool) -> BoxFuture<'a, Result<()>>;

    /// Joins a channel, now and after each connecting. Whether it worked is told by an event.
    ///
    /// # Errors
    /// [`Error::Name`](crate::Error::Name), [`Error::Stopped`](crate::Error::Stopped).
    fn join<'a>(&'a self, channel: &'a str) -> BoxFuture<'a, Result<()>>;

    /// Leaves a channel; the reason may be empty.
    ///
    /// # Errors
    /// [`Error::Name`](crate::Error::Name), [`Error::Stopped`](crate::Error::Stopped).
    fn part<'a>(&'a self, channel: &'a str, reason: &'a str) -> BoxFuture<'a, Result<()>>;

    /// Leaves the network with a reason, which others see. Ready when it has, or will not.
    fn quit<'a>(&'a self, reason: &'a str) -> BoxFuture<'a, ()>;
}
