//! The sandboxes of agents, as an agent's life needs them.
//!
//! [`Vms`] has real ones. The unit tests of an agent's life have others, so that years of it
//! pass in milliseconds.

mod exec;
mod named;
mod program;
mod provision;
mod vms;

use std::path::PathBuf;
use std::time::Duration;

use fireclaw_host::ProcessStamp;
use fireclaw_policy::Network;
use fireclaw_template::Template;
use fireclaw_vm::Commands;
use futures_util::future::LocalBoxFuture;

use crate::Result;

pub use exec::run;
pub use program::{Program, Said};
pub use provision::leave;
pub use vms::Vms;

/// The guest's own program.
const GUEST: &str = "/run/fireclaw/guest";

/// How long a guest may take to have its root on a disk, with the disk's journal replayed.
const ROOT_LIMIT: Duration = Duration::from_secs(120);

/// The sandbox that an agent is to have.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// The agent.
    pub agent: &'a str,
    /// What it is made from.
    pub template: &'a Template,
    /// What it may reach.
    pub policy: Network,
    /// The sandbox's id.
    pub id: &'a str,
}

/// Makes and finds the sandboxes of agents.
pub trait Sandboxes {
    /// What belongs to an agent whether it runs or not.
    fn agent_directory(&self, agent: &str) -> PathBuf;

    /// Starts a sandbox that outlives this process. What people should know of it goes to
    /// `tell`.
    fn start<'a>(
        &'a self,
        wanted: Request<'a>,
        tell: &'a dyn Fn(&str),
    ) -> LocalBoxFuture<'a, Result<Box<dyn Sandbox>>>;

    /// Takes over a sandbox that an earlier daemon started.
    fn adopt<'a>(
        &'a self,
        wanted: Request<'a>,
        process: ProcessStamp,
        tell: &'a dyn Fn(&str),
    ) -> LocalBoxFuture<'a, Result<Box<dyn Sandbox>>>;

    /// Ends whatever carries this id and removes its directory.
    fn clear<'a>(&'a self, id: &'a str) -> LocalBoxFuture<'a, Result<()>>;

    /// Has a sandbox's gateway follow another policy.
    fn set_policy<'a>(&'a self, id: &'a str, policy: Network) -> LocalBoxFuture<'a, Result<()>>;

    /// Gives a sandbox its template's skills as they are now.
    fn refresh_skills<'a>(
        &'a self,
        commands: &'a Commands,
        template: &'a Template,
    ) -> LocalBoxFuture<'a, Result<()>>;
}

/// A sandbox that runs.
pub trait Sandbox {
    /// The process id of its VMM.
    fn vmm_pid(&self) -> Option<u32>;

    /// What tells its VMM from any other process.
    fn stamp(&self) -> Option<ProcessStamp>;

    /// What starts commands in it.
    fn commands(&self) -> Commands;

    /// Starts the agent's program: the built-in one, or a template's own.
    fn program<'a>(&'a self, command: &'a [String]) -> LocalBoxFuture<'a, Result<Program>>;

    /// Stops it where it is, or lets it go on.
    fn pause(&self, paused: bool) -> Result<()>;

    /// Ends when the sandbox does by itself; with the reason. Cancel-safe.
    fn died(&mut self) -> LocalBoxFuture<'_, String>;

    /// Has it write everything to its disks, since it is about to be ended.
    fn save(&self) -> LocalBoxFuture<'static, Result<()>>;

    /// How it is.
    fn health(&self) -> LocalBoxFuture<'static, Health>;
}

/// How a sandbox is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It answers.
    Well,
    /// It does not.
    Silent,
    /// Nothing can be written to its workspace: Linux mounts a file system read-only after
    /// an error of its disk.
    ReadOnly,
}
