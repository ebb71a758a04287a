//! Chat as the daemon and its overseer need it, whatever the network.
//!
//! A [`Network`] opens connections for bots. A [`Connection`] says things, and its [`Events`]
//! tell what others say and do. A [`Sender`] is who said something, as far as the network
//! vouches for it; [`Owners`] knows who of them may give commands. How much fits one line is
//! the network's matter: [`Connection::fold`] and [`Connection::split`].
//!
//! `fireclaw-irc` is the first adapter. A second network is one more crate that implements
//! [`Network`] and [`Connection`].

mod address;
mod connection;
mod error;
mod event;
mod mask;
mod names;
mod owners;
mod sender;

pub use address::addressed;
pub use connection::{Bot, Connection, Events, Folded, Network, NoNetwork};
pub use error::{Error, Result};
pub use event::{Event, Kind, Member, Message};
pub use mask::{InvalidMask, Mask};
pub use names::{Case, is_nick};
pub use owners::Owners;
pub use sender::Sender;
