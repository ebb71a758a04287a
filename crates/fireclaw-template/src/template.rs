//! The template itself.

use std::path::PathBuf;
use std::time::Duration;

use fireclaw_protocol::agent::{Config, Rule};

use crate::{Network, Schedule, defaults};

/// When an agent answers in a channel. In private it always does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Trigger {
    /// When its nick is said at the start of a line: `worker: …`, `worker, …`, `@worker …`.
    #[default]
    Mention,
    /// To every line that a person says. Other agents still have to address it: two
    /// agents that answer everything would talk to each other for ever.
    Always,
}

impl Trigger {
    /// All words, as a template has them.
    pub(crate) const WORDS: [&'static str; 2] = ["mention", "always"];

    pub(crate) fn named(word: &str) -> Option<Self> {
        match word {
            "mention" => Some(Self::Mention),
            "always" => Some(Self::Always),
            _ => None,
        }
    }

    /// The word in a template.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mention => "mention",
            Self::Always => "always",
        }
    }
}

/// What an agent is made from. Every value is within its [`limits`].
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    /// The name: that of the file, without its ending.
    pub name: String,
    /// One line for people; may be empty.
    pub description: String,
    /// The nick that the agent asks for; the name if the file has none.
    pub nick: String,
    /// The model's name as its server has it. Absent only if there is a `command`.
    pub model: Option<String>,
    /// When the agent answers in a channel.
    pub trigger: Trigger,
    /// What it is like, the beginning of every prompt; may be empty.
    pub persona: String,
    /// Whether it may use tools.
    pub tools: bool,
    /// Directories with skills, relative to the template's own directory. None leads out
    /// of it by its words; what a symbolic link does is its owner's affair.
    pub skills: Vec<PathBuf>,
    /// What it can reach.
    pub network: Network,
    /// The VM's memory, in MiB.
    pub memory_mib: u64,
    /// The VM's virtual processors.
    pub cpus: u32,
    /// The scratch disk, in MiB: what the agent writes outside its workspace. Sparse, and
    /// gone with the VM.
    pub disk_mib: u64,
    /// The workspace, in MiB. It outlives the VM; a larger value makes it grow at the
    /// next start, a smaller one changes nothing.
    pub workspace_mib: u64,
    /// The template's own rules. [`Template::effective_rules`] has those that count.
    pub rules: Vec<Rule>,
    /// When an agent is started by itself.
    pub schedule: Option<Schedule>,
    /// How long such an agent lives.
    pub schedule_timeout: Duration,
    /// What such an agent is told when it starts; may be empty.
    pub task: String,
    /// The agent's own program and its arguments; empty for the built-in one.
    pub command: Vec<String>,
    /// The most rounds of tools for one message.
    pub max_rounds: u32,
    /// How long one command of the agent may take, in seconds.
    pub command_seconds: u32,
    /// How many tokens of context the model gets.
    pub context_tokens: u32,
    /// An answer with more lines than this goes to a file.
    pub max_lines: u32,
}

impl Template {
    /// The rules that count, in order: the template's own, then, if the agent has tools,
    /// [`defaults::dangerous`]. The first that fits decides, so a template can allow what
    /// the defaults ask about.
    pub fn effective_rules(&self) -> Vec<Rule> {
        let mut rules = self.rules.clone();
        if self.tools {
            rules.extend_from_slice(defaults::dangerous());
        }
        rules
    }

    /// What an agent made from this, with this name and nick, is told about itself.
    pub fn config(&self, name: &str, nick: &str) -> Config {
        Config {
            name: name.to_owned(),
            nick: nick.to_owned(),
            persona: self.persona.clone(),
            model: self.model.clone().unwrap_or_default(),
            context_tokens: self.context_tokens,
            tools: self.tools,
            max_rounds: self.max_rounds,
            command_seconds: self.command_seconds,
            max_lines: self.max_lines,
            rules: self.effective_rules(),
            may_fetch: self.network != Network::None,
        }
    }
}

/// What a field may be, and what it is if a template does not have it.
pub mod limits {
    use std::ops::RangeInclusive;
    use std::time::Duration;

    /// Memory in MiB. A guest does not boot with less.
    pub const MEMORY_MIB: RangeInclusive<u64> = 96..=1024 * 1024;
    /// Memory unless said otherwise, in MiB.
    pub const DEFAULT_MEMORY_MIB: u64 = 256;
    /// Virtual processors; the monitors take no more.
    pub const CPUS: RangeInclusive<u32> = 1..=32;
    /// Virtual processors unless said otherwise.
    pub const DEFAULT_CPUS: u32 = 1;
    /// The scratch disk in MiB.
    pub const DISK_MIB: RangeInclusive<u64> = 16..=1024 * 1024;
    /// The scratch disk unless said otherwise, in MiB.
    pub const DEFAULT_DISK_MIB: u64 = 1024;
    /// The workspace in MiB. A file system with a journal needs the least.
    pub const WORKSPACE_MIB: RangeInclusive<u64> = 16..=1024 * 1024;
    /// The workspace unless said otherwise, in MiB.
    pub const DEFAULT_WORKSPACE_MIB: u64 = 64;
    /// How long an agent of a schedule lives. Less would end before a model has answered.
    pub const SCHEDULE_TIMEOUT: RangeInclusive<Duration> =
        Duration::from_secs(10)..=Duration::from_secs(24 * 3600);
    /// How long an agent of a schedule lives unless said otherwise.
    pub const DEFAULT_SCHEDULE_TIMEOUT: Duration = Duration::from_secs(600);
    /// Rounds of tools for one message.
    pub const MAX_ROUNDS: RangeInclusive<u32> = 1..=100;
    /// Rounds of tools unless said otherwise.
    pub const DEFAULT_MAX_ROUNDS: u32 = 10;
    /// The time of one command, in seconds.
    pub const COMMAND_SECONDS: RangeInclusive<u32> = 1..=3600;
    /// The time of one command unless said otherwise, in seconds.
    pub const DEFAULT_COMMAND_SECONDS: u32 = 60;
    /// The model's context in tokens. Persona, tools and a question fill the least.
    pub const CONTEXT_TOKENS: RangeInclusive<u32> = 1024..=1024 * 1024;
    /// The model's context unless said otherwise, in tokens.
    pub const DEFAULT_CONTEXT_TOKENS: u32 = 8192;
    /// Lines of an answer. More would be a flood in a channel.
    pub const MAX_LINES: RangeInclusive<u32> = 1..=50;
    /// Lines of an answer unless said otherwise.
    pub const DEFAULT_MAX_LINES: u32 = 8;

    /// The longest description, in characters: a line of a list.
    pub const DESCRIPTION: usize = 200;
    /// The longest name of a model, in characters.
    pub const MODEL: usize = 200;
    /// The longest persona, in bytes. It is part of every prompt.
    pub const PERSONA: usize = 16 * 1024;
    /// The longest task, in bytes: a long message.
    pub const TASK: usize = 4 * 1024;
    /// The most directories with skills.
    pub const SKILLS: usize = 32;
    /// The longest path of a directory with skills, in bytes.
    pub const SKILL: usize = 255;
    /// The most names that a network policy allows, and as many that it denies.
    pub const TARGETS: usize = fireclaw_policy::MAX_TARGETS;
    /// The most rules of one template.
    pub const RULES: usize = 200;
    /// The longest name of a tool in a rule, in characters.
    pub const TOOL: usize = 64;
    /// The longest pattern of a rule, in bytes.
    pub const PATTERN: usize = 1000;
    /// The most words of a command.
    pub const COMMAND: usize = 64;
    /// The longest word of a command, in bytes.
    pub const COMMAND_WORD: usize = 4096;
}
