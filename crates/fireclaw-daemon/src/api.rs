//! The daemon's door for programs of the same user: HTTP with JSON on a Unix socket.
//!
//! All requests are in `docs/reference/api.md`.
//!
//! Who can connect to the socket may do everything; it lies in the home, with
//! mode 0600. An error has a status of 4xx or 5xx and the body `{"error": "…"}`.

mod client;
mod frame;
mod server;
mod streams;

pub use client::{Client, Streams};
pub use frame::{Ended, Frame, MOST};
pub use server::{Door, listen};

use serde::{Deserialize, Serialize};

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

/// The body of `POST /v1/agents/NAME/exec`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exec {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// As whom; `agent` if absent.
    #[serde(default)]
    pub user: Option<String>,
    /// For how long at most, in seconds, more than 0.
    #[serde(default)]
    pub seconds: Option<f64>,
}

/// The answer to it, unless the connection was to be upgraded.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Executed {
    /// The exit status; absent if a signal or the time limit ended it.
    pub status: Option<u8>,
    /// What it wrote, standard output before standard error, up to 64 KiB each.
    pub output: String,
}
