//! The daemon as a command of a person sees it.

pub mod attended;
pub mod background;
pub mod exec;
pub mod sandboxes;
