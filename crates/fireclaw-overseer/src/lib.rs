//! The overseer: the daemon's face in the control channel.
//!
//! People type commands, the overseer does what they ask of the
//! daemon and says what came of it, and what the daemon wants people to know.

mod advice;
mod command;
mod control;
mod obey;
mod pace;

pub use control::run;
