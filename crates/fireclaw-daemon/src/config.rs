//! What the daemon is started with.

use std::time::Duration;

use fireclaw_image::Home;
use fireclaw_irc::client;
use fireclaw_irc::mask::HostMask;
use fireclaw_irc::message::Source;
use fireclaw_irc::names::CaseMapping;
use fireclaw_llm::{Limits, ServerConfig};
use fireclaw_vm::probe::Choice;

/// What the daemon is started with.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where everything is kept.
    pub home: Home,
    /// The VMM.
    pub vmm: Choice,
    /// The chat server.
    pub irc: Irc,
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

/// A chat server.
#[derive(Debug, Clone)]
pub struct Irc {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// TLS, if it speaks that.
    pub tls: Option<client::Tls>,
    /// Its password.
    pub password: Option<fireclaw_irc::Secret>,
    /// The account to log in to.
    pub sasl: Option<client::Sasl>,
    /// How fast one may send.
    pub rate: client::Rate,
}

impl Irc {
    /// The settings of one connection.
    pub fn client(&self, nick: &str, channels: Vec<String>) -> client::Config {
        let mut config = client::Config::new(&self.host, self.port, nick);
        config.tls.clone_from(&self.tls);
        config.password.clone_from(&self.password);
        config.sasl.clone_from(&self.sasl);
        config.rate = self.rate;
        config.channels = channels;
        config.bot = true;
        config
    }
}

/// Who may give commands. Whoever fits one of these may.
#[derive(Debug, Clone, Default)]
pub struct Owners {
    /// Everybody who is in the control channel: for a private server.
    pub everybody: bool,
    /// Operators of the control channel.
    pub operators: bool,
    /// Accounts, as the server tells them.
    pub accounts: Vec<String>,
    /// Hostmasks.
    pub masks: Vec<HostMask>,
}

impl Owners {
    /// Whether somebody may give commands: who they are, the account that the server
    /// vouches for, and their rank in the control channel.
    pub fn may(
        &self,
        from: &Source,
        account: Option<&str>,
        rank: client::Rank,
        case: CaseMapping,
    ) -> bool {
        let has_account = |account| self.accounts.iter().any(|a| case.same(a, account));
        self.everybody
            || (self.operators && rank >= client::Rank::HalfOperator)
            || account.is_some_and(has_account)
            || self.masks.iter().any(|mask| mask.matches(from, case))
    }
}
