//! A connection to an IRC server that stays: it comes back after a failure, with
//! its channels and its nick.
//!
//! Inside, `session` is the protocol without a socket, and `driver` gives it one.
//!
//! ```no_run
//! use fireclaw_irc::text::{Formatting, fold};
//! use fireclaw_irc::{Client, Config, Event};
//!
//! # async fn bot() -> fireclaw_irc::Result<()> {
//! let mut config = Config::new("127.0.0.1", 6667, "worker");
//! config.channels.push("#agents".to_owned());
//! let (handle, mut events) = Client::spawn(config)?;
//! while let Some(event) = events.recv().await {
//!     let Event::Message(chat) = event else { continue };
//!     let me = handle.status();
//!     if let Some(asked) = fireclaw_chat::addressed(&chat.text, &me.nick, me.case.into()) {
//!         let answer = format!("{}: you said {asked}", chat.from.nick);
//!         let short = fold(&answer, handle.budget(&chat.target), 4, Formatting::Remove);
//!         handle.say(&chat.target, &short.lines.join("\n")).await?;
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod config;
mod connect;
mod driver;
mod event;
mod handle;
mod lines;
mod outbox;
mod paste;
mod rate;
mod session;

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::Result;

pub use config::{Config, Rate, Sasl, Timing, Tls};
pub use event::{Chat, ChatKind, Event, Member, Rank, Typing};
pub use handle::{Handle, Status};

/// Events that the owner has not taken yet, in the channel to him.
const EVENTS: usize = 256;

/// Requests of the owner that the client has not taken yet.
const COMMANDS: usize = 64;

/// An IRC client.
#[derive(Debug)]
pub struct Client;

impl Client {
    /// Starts a client as a task of the present tokio runtime; any kind will do.
    ///
    /// The events must be read: the client stops reading the server when more
    /// than a thousand wait. They end when the client has stopped. Dropping them
    /// or every [`Handle`] makes it quit.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) or
    /// [`Error::Name`](crate::Error::Name) for a setting that can never work, and
    /// [`Error::File`](crate::Error::File) for certificates that cannot be read.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn spawn(config: Config) -> Result<(Handle, mpsc::Receiver<Event>)> {
        config.check()?;
        let prover =
            config.tls.as_ref().map(|tls| connect::Prover::new(&config.host, tls)).transpose()?;
        let (events, receiver) = mpsc::channel(EVENTS);
        let (commands, requests) = mpsc::channel(COMMANDS);
        let (driver, status) = driver::Driver::new(Arc::new(config), prover, requests, events);
        tokio::spawn(driver.run());
        Ok((Handle { commands, status }, receiver))
    }
}
