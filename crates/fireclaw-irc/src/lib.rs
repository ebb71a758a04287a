//! One IRC connection for one bot, and a private server to talk on.
//!
//! The host program holds a [`Client`] for each bot; what the bot says comes
//! from a language model in a guest and is trusted with nothing: it cannot end
//! a line, colour it, reorder it, or make it longer than the server relays.
//! [`PrivateServer`] runs ngircd on the loopback interface for those who have no
//! server.
//!
//! [`message`] has lines as RFC 1459, RFC 2812 and the IRCv3 message tags have
//! them. [`text`] scrubs, splits and folds what is to be said. [`address`],
//! [`names`] and [`mask`] know who is spoken to, which names are valid, and who
//! has a hostmask. [`client`] is the connection, [`server`] is ngircd.

pub mod address;
pub mod client;
mod error;
pub mod mask;
pub mod message;
pub mod names;
mod secret;
pub mod server;
pub mod text;

pub use client::{Client, Config, Event, Handle};
pub use error::{Error, Result};
pub use secret::Secret;
pub use server::PrivateServer;
