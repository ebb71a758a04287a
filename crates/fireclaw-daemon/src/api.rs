//! The daemon's interface for programs of the same user: HTTP with JSON on a Unix socket.
//!
//! All requests are in `docs/reference/api.md`.
//!
//! Who can connect to the socket may do everything; it lies in the home, with
//! mode 0600. An error has a status of 4xx or 5xx and the body `{"error": "…"}`.

mod attach;
mod client;
mod frame;
mod inputs;
mod request;
mod sandboxes;
mod server;
mod streams;

pub use client::{Client, Problem, Streams};
pub use frame::{Ended, Frame, MOST};
pub use server::{Door, listen};

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Condition, Error, SandboxConfig};

/// The socket's name in the home.
const SOCKET: &str = "daemon.sock";

/// The longest body, in bytes.
const MAX_BODY: usize = 4 * 1024 * 1024;

/// The body of `POST /v1/agents`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewAgent {
    /// The template's name.
    pub template: String,
    /// The agent's name, if it is not the template's.
    #[serde(default)]
    pub name: Option<String>,
    /// A model instead of the template's.
    #[serde(default)]
    pub model: Option<String>,
}

/// The answer to `GET /v1/daemon`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct About {
    /// Its process id.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// Whether it is an overseer: it connects agents to a chat network.
    pub overseer: bool,
}

/// The body of `POST /v1/sandboxes`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewSandbox {
    /// Its name; one is made up if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What it is made from.
    pub config: SandboxConfig,
}

/// The body of `POST /v1/sandboxes/NAME/stop`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stop {
    /// How many seconds its program has to end; 10 if absent.
    #[serde(default)]
    pub seconds: Option<f64>,
}

/// The body of `POST /v1/sandboxes/NAME/signal`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signal {
    /// Linux's number.
    pub signal: u8,
}

/// The body of `POST /v1/sandboxes/NAME/rename`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rename {
    /// What it is called from now on.
    pub name: String,
}

/// The body of `POST /v1/agents/NAME/exec` and `POST /v1/sandboxes/NAME/exec`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exec {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// As whom; if absent, `agent` in an agent's VM, and in a sandbox as its program.
    #[serde(default)]
    pub user: Option<String>,
    /// For how long at most, in seconds, more than 0.
    #[serde(default)]
    pub seconds: Option<f64>,
    /// Variables beside the usual ones.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// The directory to start in; the user's home if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// A terminal for all three streams; pipes if absent. Only if the connection is upgraded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<Terminal>,
}

/// The terminal of a command.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terminal {
    /// Its kind, for the variable `TERM`.
    pub kind: String,
    /// Its lines; 0 if that is not known.
    pub rows: u16,
    /// The characters in each; 0 if that is not known.
    pub columns: u16,
}

/// The answer to it, unless the connection was to be upgraded.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Executed {
    /// The exit status; absent if a signal or the time limit ended it.
    pub status: Option<u8>,
    /// What it wrote, standard output before standard error, up to 64 KiB each.
    pub output: String,
}

/// Why a request is refused: the body of every answer that is an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{error}")]
pub struct Refused {
    /// In words for a person.
    pub error: String,
    /// For programs.
    pub kind: Kind,
    /// The exit status that a shell gives for a program that could not be started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u8>,
    /// How the agent is, if that is the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<Condition>,
}

/// The kinds of refusals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Kind {
    /// The request cannot be right, whatever the overseer's state is.
    BadRequest,
    /// There is no such request.
    NotFound,
    /// There is this path, but not with this method.
    MethodNotAllowed,
    /// The body is too large.
    TooLarge,
    /// There is no such agent.
    UnknownAgent,
    /// There is no such sandbox.
    UnknownSandbox,
    /// There is no such image.
    UnknownImage,
    /// The program could not be started.
    Command,
    /// There is no such template, or it has mistakes.
    Template,
    /// The agent's name or nick is taken.
    NameTaken,
    /// The agent is in no condition for this.
    NotNow,
    /// The agent runs, and must not for this.
    Running,
    /// What is asked for is not possible as things are.
    Conflict,
    /// The model server refuses, or does not answer.
    ModelServer,
    /// The overseer is ending.
    Ending,
    /// Something failed that should not.
    Internal,
    /// One that only a newer overseer knows.
    #[serde(other)]
    Other,
}

impl Refused {
    fn new(kind: Kind, error: impl ToString) -> Self {
        Self { error: error.to_string(), kind, status: None, condition: None }
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        let condition = match error {
            Error::NotNow { condition, .. } => Some(condition),
            _ => None,
        };
        let status = match error {
            Error::Command { status, .. } => Some(status),
            _ => None,
        };
        let kind = match &error {
            Error::UnknownAgent { .. } | Error::NoWorkspace { .. } => Kind::UnknownAgent,
            Error::UnknownSandbox { .. } => Kind::UnknownSandbox,
            Error::Image(fireclaw_image::Error::UnknownImage { .. })
            | Error::Sandbox(fireclaw_sandbox::Error::Image(
                fireclaw_image::Error::UnknownImage { .. },
            )) => Kind::UnknownImage,
            Error::Command { .. } => Kind::Command,
            Error::Running { .. } => Kind::Running,
            Error::NameTaken { .. } => Kind::NameTaken,
            Error::NotNow { .. } | Error::SandboxNotNow { .. } => Kind::NotNow,
            Error::BadName { .. } => Kind::BadRequest,
            Error::Template(_) => Kind::Template,
            Error::NoQuestion(_)
            | Error::Unconfirmed { .. }
            | Error::TooManyQuestions
            | Error::NoCommand { .. }
            | Error::Sandbox(fireclaw_sandbox::Error::Publish { .. })
            | Error::Unsupported(_) => Kind::Conflict,
            Error::Model(_) => Kind::ModelServer,
            Error::Ending => Kind::Ending,
            _ => Kind::Internal,
        };
        Self { status, condition, ..Self::new(kind, error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_of_a_newer_overseer_is_some_other() {
        let newer = r#"{"error": "no", "kind": "phase-of-the-moon"}"#;
        assert_eq!(
            serde_json::from_str::<Refused>(newer).unwrap(),
            Refused::new(Kind::Other, "no")
        );
    }

    #[test]
    fn what_an_agent_is_in_no_condition_for_says_the_condition() {
        let error =
            Error::NotNow { name: "worker".into(), condition: Condition::Paused, problem: None };
        let refused = serde_json::to_value(Refused::from(error)).unwrap();
        let expected = serde_json::json!({
            "error": "worker is paused", "kind": "not-now", "condition": "paused",
        });
        assert_eq!(refused, expected);
    }
}
