//! What an agent is made from.
//!
//! A [`Template`] is a small file, TOML or the JSON of older set-ups: nick, model,
//! persona, VM, network policy, approval rules, schedule. [`parse`] reads one and
//! explains every [`Mistake`] in it, not only the first. A [`Store`] finds templates by
//! name: the user's own, then the five that ship with the program ([`shipped`]).
//!
//! [`defaults`] has the rules that every agent with tools gets after its own, [`names`]
//! knows what agents and nicks may be called, and a [`Schedule`] knows when the next run
//! is due. Nothing here starts anything.

pub mod defaults;
mod error;
pub mod names;
mod read;
mod schedule;
pub mod shipped;
mod store;
mod template;

pub use error::{Error, Result};
pub use fireclaw_config::{Format, MAX_FILE, Mistake, nearest};
pub use fireclaw_policy::{Dns, Host, Network, Target};
pub use read::{Parsed, Source, parse};
pub use schedule::{InvalidSchedule, Schedule};
pub use store::{Entry, Origin, Store, check_file};
pub use template::{Template, Trigger, limits};
