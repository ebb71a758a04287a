//! What an owner asks of a client.

use tokio::sync::{mpsc, oneshot, watch};

use super::event::{Member, Typing};
use super::outbox::{Lane, Verb};
use crate::names::CaseMapping;
use crate::text::Relay;
use crate::{Error, Result};

/// One request, with the place for its answer.
#[derive(Debug)]
pub(super) enum Command {
    Say {
        lane: Lane,
        verb: Verb,
        target: String,
        text: String,
        sent: Option<oneshot::Sender<()>>,
        reply: oneshot::Sender<Result<usize>>,
    },
    Join {
        channel: String,
        reply: oneshot::Sender<Result<()>>,
    },
    Part {
        channel: String,
        reason: String,
        reply: oneshot::Sender<Result<()>>,
    },
    Nick {
        nick: String,
        reply: oneshot::Sender<Result<()>>,
    },
    Typing {
        target: String,
        typing: Typing,
        reply: oneshot::Sender<Result<()>>,
    },
    Members {
        channel: String,
        reply: oneshot::Sender<Option<Vec<Member>>>,
    },
    Quit {
        reason: String,
        reply: oneshot::Sender<()>,
    },
}

/// The state of a client, for who needs no event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Whether it is registered with the server.
    pub connected: bool,
    /// The present nick, or the wanted one while there is no connection.
    pub nick: String,
    /// Which names are the same to the server.
    pub case: CaseMapping,
    /// What the server puts around our words.
    pub relay: Relay,
}

/// The owner's side of a client; clones share it. The client quits when all are
/// dropped.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) status: watch::Receiver<Status>,
}

impl Handle {
    /// Says `text` to a channel or nick, in as many lines as it takes, and
    /// returns their number. Control characters and blank lines are left out.
    ///
    /// It returns when the lines wait to be sent, at the rate of
    /// [`Config::rate`](super::Config::rate). Without a connection they wait up
    /// to five minutes for one, and what waits longer is dropped, which
    /// [`Event::Dropped`](super::Event::Dropped) tells; what was sent right before a
    /// connection broke may be lost. Use [`text::fold`](crate::text::fold) with [`Handle::budget`]
    /// first, to bound the number of lines.
    ///
    /// # Errors
    /// [`Error::Name`] for a target that is neither channel nor nick,
    /// [`Error::QueueFull`] if 512 lines would wait, [`Error::Stopped`].
    pub async fn say(&self, target: &str, text: &str) -> Result<usize> {
        self.chat(Lane::Ordinary, Verb::Say, target, text, None).await
    }

    /// Like [`Handle::say`], before everything that [`Handle::say`] and
    /// [`Handle::notice`] have waiting, and with room of its own: for what people
    /// decide on or asked for, which nobody's chatter may hold up.
    ///
    /// # Errors
    /// As [`Handle::say`]; [`Error::QueueFull`] if 128 urgent lines would wait.
    pub async fn say_urgent(&self, target: &str, text: &str) -> Result<usize> {
        self.chat(Lane::Urgent, Verb::Say, target, text, None).await
    }

    /// Like [`Handle::say`], as a notice, which no program answers.
    ///
    /// # Errors
    /// As [`Handle::say`].
    pub async fn notice(&self, target: &str, text: &str) -> Result<usize> {
        self.chat(Lane::Ordinary, Verb::Notice, target, text, None).await
    }

    /// Like [`Handle::say_urgent`], and returns only when the last line was sent.
    ///
    /// # Errors
    /// As [`Handle::say_urgent`]; [`Error::TooLate`] if it waited too long for a connection
    /// and was dropped.
    pub async fn deliver(&self, target: &str, text: &str) -> Result<()> {
        let (sent, was_sent) = oneshot::channel();
        self.chat(Lane::Urgent, Verb::Say, target, text, Some(sent)).await?;
        was_sent.await.map_err(|_| Error::TooLate)
    }

    async fn chat(
        &self,
        lane: Lane,
        verb: Verb,
        target: &str,
        text: &str,
        sent: Option<oneshot::Sender<()>>,
    ) -> Result<usize> {
        let (target, text) = (target.to_owned(), text.to_owned());
        self.ask(|reply| Command::Say { lane, verb, target, text, sent, reply }).await?
    }

    /// Joins a channel, now and after each connecting, until it leaves or is
    /// kicked. Whether it worked is told by an event.
    ///
    /// # Errors
    /// [`Error::Name`], [`Error::Stopped`].
    pub async fn join(&self, channel: &str) -> Result<()> {
        let channel = channel.to_owned();
        self.ask(|reply| Command::Join { channel, reply }).await?
    }

    /// Leaves a channel; `reason` may be empty.
    ///
    /// # Errors
    /// [`Error::Name`], [`Error::Stopped`].
    pub async fn part(&self, channel: &str, reason: &str) -> Result<()> {
        let (channel, reason) = (channel.to_owned(), reason.to_owned());
        self.ask(|reply| Command::Part { channel, reason, reply }).await?
    }

    /// Takes another nick, now or when it is free.
    ///
    /// # Errors
    /// [`Error::Name`], [`Error::Stopped`].
    pub async fn nick(&self, nick: &str) -> Result<()> {
        let nick = nick.to_owned();
        self.ask(|reply| Command::Nick { nick, reply }).await?
    }

    /// Shows that an answer is being made, where server and people's clients can
    /// (IRCv3 `+typing`). To be repeated: at least 3 s lie between two that are
    /// sent, and clients forget it after 6 s.
    ///
    /// # Errors
    /// [`Error::Name`], [`Error::Stopped`].
    pub async fn typing(&self, target: &str, typing: Typing) -> Result<()> {
        let target = target.to_owned();
        self.ask(|reply| Command::Typing { target, typing, reply }).await?
    }

    /// Who is in a channel; `None` if this client is not.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub async fn members(&self, channel: &str) -> Result<Option<Vec<Member>>> {
        let channel = channel.to_owned();
        self.ask(|reply| Command::Members { channel, reply }).await
    }

    /// Leaves the server with a reason, which others see, and stops the client.
    ///
    /// It returns when the server has closed the connection, or did not within
    /// [`Timing::quit`](super::Timing::quit). Lines that still wait are not sent.
    pub async fn quit(&self, reason: &str) {
        let reason = reason.to_owned();
        // Who has stopped already has quit.
        let _ = self.ask(|reply| Command::Quit { reason, reply }).await;
    }

    /// The present state.
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// How many bytes of text one line to `target` carries at present.
    pub fn budget(&self, target: &str) -> usize {
        let budget = self.status.borrow().relay.budget(Verb::Notice.command(), target);
        budget.min(self.status.borrow().relay.budget(Verb::Say.command(), target))
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| Error::Stopped)?;
        answer.await.map_err(|_| Error::Stopped)
    }
}
