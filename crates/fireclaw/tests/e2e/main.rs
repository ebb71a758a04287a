//! End-to-end tests: the real command, real machines.
//!
//! Each test has a home of its own that shares kernel and image with the one
//! that is set up once. The monitor is the one that `FIRECLAW_VMM` names, so
//! the same tests run on Firecracker where KVM works. `FIRECLAW_BIN` names
//! another binary than the one just built.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod agent_faults;
mod agent_machines;
mod agents;
mod card;
mod clean;
mod cli;
mod clones;
mod errors;
mod exec;
mod faults;
mod harness;
mod images;
mod network;
mod overseer;
mod publish;
mod run;
mod service;
mod snapshots;
mod streams;
