//! The owner of all agents and named sandboxes: their VMs, their state, their connections.
//!
//! A [`Daemon`] starts agents from templates, keeps them alive, hands them what
//! people say to them and says what they answer, asks models and people for
//! them, and takes them over again after it was itself started anew. People
//! steer it through the overseer on IRC, programs through [`api`].
//!
//! Everything runs on one thread, in a [`tokio::task::LocalSet`].

mod actor;
mod agent;
pub mod api;
mod claim;
mod config;
mod daemon;
mod egress;
mod error;
mod event;
mod handle;
mod lifecycle;
mod log;
mod named;
mod ours;
mod question;
mod questions;
mod sandbox;
mod sandbox_config;
mod sandbox_status;
mod sandboxes;
mod schedule;
mod shared;
mod skills;
mod state;
mod talk;

pub use actor::Actor;
pub use claim::Claim;
pub use config::Config;
pub use daemon::{Daemon, Listed, STATE};
pub use error::{Error, Result};
pub use event::{Event, Events};
pub use fireclaw_net::Status as NetworkStatus;
pub use handle::Handle;
pub use lifecycle::{Condition, Status};
pub use named::ListedSandbox;
pub use question::Question;
pub use sandbox_config::{Restart, SandboxConfig};
pub use sandbox_status::{SandboxCondition, SandboxStatus};
pub use state::{Act, Wanted, time as time_on_state};
