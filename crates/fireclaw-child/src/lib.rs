//! Programs that others wrote and that we start: they do not outlive their owner, and what
//! they said last can be shown.
//!
//! [`die_with_owner`] ties any command to this process, [`Child`] also to a value, and
//! [`Tail`] keeps the end of what one writes. [`is_hidden`] knows what is escaped of it.

mod child;
mod hidden;
mod owner;
mod starter;
mod tail;

pub use child::Child;
pub use hidden::is_hidden;
pub use owner::{die_with_owner, keep_open, own_mounts};
pub use rustix::process::Signal;
pub use starter::{finish_starts, on_starter};
pub use tail::{Tail, escape};
