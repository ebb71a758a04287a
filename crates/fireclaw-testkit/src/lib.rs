//! What tests of several crates share. Nothing that is installed imports it.

pub mod cost;
