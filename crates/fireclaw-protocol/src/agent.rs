//! What the host and an agent program say to each other: JSON, one object a line.
//!
//! An agent program runs in the VM as user `agent`. It reads [`Event`]s from its
//! standard input and writes [`Action`]s to its standard output; what it writes to
//! standard error is its log. The built-in agent speaks this, and so can any program.
//!
//! The host starts it anew when it ends, when the host itself was started anew, and after
//! the VM was; it then gets [`Event::Configure`] first and again every message that
//! was not [`Action::Done`]. So an agent keeps what it wants to remember in `/workspace`.
//!
//! The host trusts none of it: a line has at most [`MAX_LINE`] bytes, an action that does
//! not fit its state is dropped and logged, and text is scrubbed before anybody sees it.

use serde::{Deserialize, Serialize};

use crate::chat::{Message, Tool, ToolCall};

/// The longest line in either direction, in bytes, without its end.
pub const MAX_LINE: usize = 256 * 1024;

/// Where an agent keeps what outlives its VM.
pub const WORKSPACE: &str = "/workspace";

/// What the host tells an agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// Who the agent is: the first event, and again whenever that changes.
    Configure(Config),
    /// Somebody speaks to it.
    Message(Incoming),
    /// What the model answered to [`Action::Think`].
    Thought {
        /// The number of the action.
        ask: u64,
        /// What it wants.
        step: Step,
    },
    /// [`Action::Think`] failed. The host has told the asker why if it is for them to know,
    /// and the agent ends the message with [`Action::Done`].
    Failed {
        /// The number of the action.
        ask: u64,
        /// Why, for a person.
        reason: String,
    },
    /// The people's word on [`Action::Approve`].
    Approval {
        /// The number of the action.
        ask: u64,
        /// Whether it may be done.
        granted: bool,
        /// Why not, or who allowed it.
        reason: String,
    },
    /// The asker no longer wants an answer: leave off, and say [`Action::Done`].
    Stop {
        /// The message.
        message: u64,
    },
}

/// Who an agent is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// The agent's name.
    pub name: String,
    /// Its nick, which may differ.
    pub nick: String,
    /// What it is like: the beginning of every prompt.
    pub persona: String,
    /// The model's name, for the agent's own words only.
    pub model: String,
    /// How many tokens the model's context has.
    pub context_tokens: u32,
    /// Whether it may use tools.
    pub tools: bool,
    /// The most rounds of tools for one message.
    pub max_rounds: u32,
    /// How long a command may take, in seconds.
    pub command_seconds: u32,
    /// An answer with more lines than this goes to a file that the answer names.
    pub max_lines: u32,
    /// What needs to be asked for, or is not done at all.
    #[serde(default)]
    pub rules: Vec<Rule>,
    /// Whether the VM has a network interface, so that fetching pages is of any use.
    #[serde(default)]
    pub may_fetch: bool,
}

/// What may be done with commands or tools that fit a pattern. The first that fits counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The tool; any if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// A regular expression that is looked for in the command, or in the tool's arguments as
    /// JSON; any if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// What then.
    pub verdict: Verdict,
}

/// What a [`Rule`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Do it.
    Allow,
    /// Ask the people first.
    Ask,
    /// Do not do it.
    Deny,
}

/// Something said to the agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Incoming {
    /// Names it in actions. Rises with time, also over restarts.
    pub id: u64,
    /// Where the answer goes: a channel, or the nick of who spoke in private.
    #[serde(rename = "place")]
    pub conversation: String,
    /// Whether it was said in private.
    pub private: bool,
    /// The nick of who spoke.
    pub from: String,
    /// The text, without the agent's nick at its start.
    pub text: String,
    /// Whether who spoke is another agent.
    #[serde(default)]
    pub from_agent: bool,
    /// What was said there just before, oldest first, by others than the agent.
    #[serde(default)]
    pub recent: Vec<Said>,
}

/// A line of a channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// Who said it.
    pub from: String,
    /// What.
    pub text: String,
}

/// What the model wants.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// To answer.
    Say(String),
    /// To call tools, all of which were offered.
    Call(Vec<ToolCall>),
}

/// What an agent wants of the host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Action {
    /// The agent is up and has taken the first [`Event::Configure`] on. It comes again only
    /// with new notes.
    Ready {
        /// What it noticed that people should know: a memory that cannot be read, a skill
        /// that is broken.
        #[serde(default)]
        notes: Vec<String>,
    },
    /// Say this where the message came from.
    Say {
        /// The message.
        message: u64,
        /// The text, of any length and number of lines.
        text: String,
    },
    /// Ask the model. [`Event::Thought`] or [`Event::Failed`] follows.
    Think {
        /// Chosen by the agent, unique while it is under way.
        ask: u64,
        /// The message that this is for.
        message: u64,
        /// The conversation, oldest first.
        messages: Vec<Message>,
        /// The tools that the model may call.
        tools: Vec<Tool>,
    },
    /// Ask the people whether this may be done. [`Event::Approval`] follows.
    Approve {
        /// Chosen by the agent, unique while it is under way.
        ask: u64,
        /// The message that this is for.
        message: u64,
        /// The tool.
        tool: String,
        /// The command, or the tool's arguments.
        what: String,
    },
    /// The message has been dealt with.
    Done {
        /// The message.
        message: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_on_the_wire() {
        let incoming = Incoming {
            id: 7,
            conversation: "#agents".into(),
            private: false,
            from: "ann".into(),
            text: "hi".into(),
            from_agent: false,
            recent: Vec::new(),
        };
        let json = serde_json::to_string(&Event::Message(incoming)).unwrap();
        assert_eq!(
            json,
            r##"{"event":"message","id":7,"place":"#agents","private":false,"from":"ann","text":"hi","from_agent":false,"recent":[]}"##
        );
        let say: Action =
            serde_json::from_str(r#"{"action":"say","message":7,"text":"hello"}"#).unwrap();
        assert_eq!(say, Action::Say { message: 7, text: "hello".into() });
        let ready: Action = serde_json::from_str(r#"{"action":"ready"}"#).unwrap();
        assert_eq!(ready, Action::Ready { notes: Vec::new() });
        assert!(serde_json::from_str::<Action>(r#"{"action":"reboot"}"#).is_err());
        let step: Step = serde_json::from_str(r#"{"say":"x"}"#).unwrap();
        assert_eq!(step, Step::Say("x".into()));
    }
}
