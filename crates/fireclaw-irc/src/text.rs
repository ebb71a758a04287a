//! What is said, made fit to be sent.
//!
//! A model's answer goes through [`fold`] (or [`lines`], where nothing may be
//! left out): control characters go ([`scrub`]), lines are cut to what the
//! server relays whole ([`Relay`], [`split`]), and their number is bounded.

#[cfg(test)]
mod cost;
mod fold;
mod relay;
mod scrub;
mod split;

pub use fold::{fold, lines};
pub use relay::Relay;
pub(crate) use scrub::is_unsafe;
pub use scrub::{Formatting, scrub};
pub use split::{MIN_LIMIT, split};
