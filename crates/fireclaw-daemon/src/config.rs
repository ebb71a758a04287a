//! What the daemon is started with.

use std::sync::Arc;
use std::time::Duration;

use fireclaw_chat::{Network, Owners};
use fireclaw_image::Home;
use fireclaw_llm::{Limits, ServerConfig};
use fireclaw_vm::probe::Choice;

/// What the daemon is started with.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where everything is kept.
    pub home: Home,
    /// The VMM.
    pub vmm: Choice,
    /// The chat network.
    pub chat: Arc<dyn Network>,
    /// The overseer's own nick.
    pub nick: String,
    /// Where commands are given.
    pub control: String,
    /// Where all agents are.
    pub lobby: String,
    /// Who may give commands.
    pub owners: Owners,
    /// Where models are.
    pub model: ServerConfig,
    /// What agents may ask of it.
    pub limits: Limits,
    /// How long a question to the people waits for an answer.
    pub approval_time: Duration,
    /// Through how many agents a message may go.
    pub max_hops: u32,
    /// How long two agents that went in circles do not hear each other.
    pub loop_pause: Duration,
}
