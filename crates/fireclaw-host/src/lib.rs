//! What every part of Fireclaw needs of the host.
//!
//! Programs that others wrote and that we start do not outlive their owner, and what they said
//! last can be shown: [`die_with_owner`] ties any command to this process, [`Child`] also to a
//! value, and [`Tail`] keeps the end of what one writes. [`is_hidden`] knows what is escaped of
//! it. [`find_program`] finds them, and a [`ProcessStamp`] tells a process from any later one
//! with its number. A [`SocketDir`] makes sockets reachable whose path is long, a
//! [`PathError`] says what failed with a file, [`claim`] gives one maker a file at a time, and a
//! [`Secret`] stays out of logs.

mod child;
mod claim;
mod hidden;
mod owner;
mod path_error;
mod process_stamp;
mod program;
mod secret;
mod socket_dir;
mod starter;
mod tail;

pub use child::Child;
pub use claim::claim;
pub use hidden::is_hidden;
pub use owner::{die_with_owner, keep_open, own_mounts};
pub use path_error::PathError;
pub use process_stamp::ProcessStamp;
pub use program::{ProgramMissing, find_program, is_program};
pub use rustix::process::Signal;
pub use secret::Secret;
pub use socket_dir::SocketDir;
pub use starter::{finish_starts, on_starter};
pub use tail::{Tail, escape};
