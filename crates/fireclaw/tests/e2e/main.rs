//! End-to-end tests: the real command, real VMs.
//!
//! Each test has a home of its own that shares kernel and image with the one
//! that is set up once. The VMM is the one that `FIRECLAW_VMM` names, so
//! the same tests run on Firecracker where KVM works. `FIRECLAW_BIN` names
//! another binary than the one just built.

#![allow(clippy::disallowed_macros, reason = "the test harness collects what these print")]
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod agent_approvals;
mod agent_cli;
mod agent_commands;
mod agent_faults;
mod agent_life;
mod agent_machines;
mod agent_models;
mod agent_network;
mod agent_servers;
mod agent_talk;
mod agents;
mod background;
mod clean;
mod cli;
mod clones;
mod errors;
mod exec;
mod faults;
mod guest;
mod harness;
mod hostile;
mod images;
mod inspircd;
mod interface;
mod logs;
mod network;
mod outputs;
mod overseer;
mod person;
mod private;
mod private_server;
mod publish;
mod registry;
mod run;
mod sandboxes;
mod service;
mod snapshots;
mod streams;
mod terminal;
mod tmux;
