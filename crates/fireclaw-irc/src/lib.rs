//! One IRC connection for one bot, and a private server to talk on.
//!
//! The host program holds a [`Client`] for each bot; what the bot says comes
//! from a language model in a guest and is trusted with nothing: it cannot end
//! a line, colour it, reorder it, or make it longer than the server relays.
//! [`PrivateServer`] runs ngircd on the loopback interface for those who have no
//! server.
//!
//! [`message`] has lines as RFC 1459, RFC 2812 and the IRCv3 message tags have
//! them. [`text`] scrubs, splits and folds what is to be said. [`names`] knows which names
//! are valid, and which are the same. [`client`] is the connection, [`server`] is ngircd.
//! [`Network`] makes of it what `fireclaw-chat` asks of a network.

mod adapter;
pub mod client;
mod error;
pub mod message;
pub mod names;
pub mod server;
pub mod text;

pub use adapter::Network;
pub use client::{Client, Config, Event, Handle};
pub use error::{Error, Result};
pub use server::PrivateServer;
