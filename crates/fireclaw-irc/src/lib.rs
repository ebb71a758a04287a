//! One IRC connection for one bot, and a private server to talk on.
//!
//! The host program holds a [`Client`] for each bot; what the bot says comes
//! from a language model in a guest and is trusted with nothing: it cannot end
//! a line, colour it, reorder it, or make it longer than the server relays.
//! [`PrivateServer`] runs ngircd on the loopback interface for those who have no
//! server.
//!
//! - [`message`]: lines as RFC 1459, RFC 2812 and the IRCv3 message tags have them;
//! - [`text`]: scrubbing, splitting and folding of what is to be said;
//! - [`address`], [`names`], [`mask`]: who is spoken to, which names are valid,
//!   who matches a hostmask;
//! - [`client`]: the connection;
//! - [`server`]: ngircd.

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
