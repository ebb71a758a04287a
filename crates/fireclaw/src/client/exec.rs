//! A command in a VM of the daemon's, with our own streams: what `fireclaw exec` and
//! `fireclaw agent exec` have in common.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::time::Duration;

use fireclaw_daemon::api::{self, Client, Exec, Problem};
use fireclaw_protocol::message::{self, EnvVar};
use serde_json::Value;

use super::attended::{self, Attended};
use crate::error::{CliError, Result};
use crate::run::relay::Reads;
use crate::signals::Signals;
use crate::values;

/// How a command is run.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// User in the VM, by name or number
    #[arg(short, long)]
    user: Option<String>,

    /// Kill the command after this many seconds
    #[arg(short, long, value_name = "SECONDS", value_parser = values::timeout, allow_negative_numbers = true)]
    timeout: Option<Duration>,

    /// Set an environment variable; NAME alone passes the host's value
    #[arg(short, long = "env", value_name = "NAME[=VALUE]", value_parser = values::variable())]
    envs: Vec<EnvVar>,

    /// Working directory in the VM
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,

    /// Give the command a terminal: yours. -it is the same
    #[arg(long, conflicts_with = "no_stdin")]
    pub tty: bool,

    /// Forward standard input, which is the default
    #[arg(short, long, conflicts_with = "no_stdin")]
    interactive: bool,

    /// Do not forward standard input
    #[arg(short = 'n', long)]
    no_stdin: bool,
}

impl Options {
    /// A shell: on our terminal if that is what we read from.
    pub fn of_shell(user: Option<String>, workdir: Option<String>) -> Self {
        Self {
            user,
            timeout: None,
            envs: Vec::new(),
            workdir,
            tty: std::io::stdin().is_terminal(),
            interactive: true,
            no_stdin: false,
        }
    }

    /// Runs a command where `path` leads to, with our own streams; the exit status.
    pub async fn run(
        self,
        client: &Client,
        path: &str,
        command: Vec<OsString>,
        refused: fn(&Problem) -> CliError,
    ) -> Result<u8> {
        let mut signals = Signals::listen()?;
        let argv = words(command)?;
        if let Some(user) = &self.user {
            values::guest_user(user)?;
        }
        let seconds = self.timeout.map(|limit| limit.as_secs_f64());
        let mut reads = Reads::of(self.tty, self.no_stdin)?;
        // Before the command's time begins.
        tokio::select! {
            handed = reads.hand_over() => handed?,
            signal = signals.next() => return Ok(attended::interrupted(signal)),
        }
        let exec = Exec {
            argv,
            user: self.user,
            seconds,
            env: self.envs.into_iter().map(variable).collect::<Result<_>>()?,
            workdir: self.workdir,
            terminal: reads.terminal().map(described),
        };
        let body = serde_json::to_value(exec).unwrap_or(Value::Null);
        let streams = tokio::select! {
            streams = client.streams(path, &body) => streams.map_err(|problem| refused(&problem))?,
            signal = signals.next() => return Ok(attended::interrupted(signal)),
        };
        let ended = attended::attend(streams, &mut reads, &mut signals, false).await;
        // The terminal is ours again before anything is said.
        drop(reads);
        match ended? {
            Attended::Ended(ended) => attended::status(ended),
            Attended::Left(code) => Ok(code),
            Attended::Detached => Ok(0),
        }
    }
}

/// The words of a command, which JSON has to hold.
pub fn words(command: Vec<OsString>) -> Result<Vec<String>> {
    let words: Option<_> = command.into_iter().map(|word| word.into_string().ok()).collect();
    words.ok_or_else(|| CliError::usage("the command is not UTF-8"))
}

/// A variable, which JSON has to hold.
pub fn variable(variable: EnvVar) -> Result<(String, String)> {
    let EnvVar { name, value } = variable;
    match (String::from_utf8(name.into()), String::from_utf8(value.into())) {
        (Ok(name), Ok(value)) => Ok((name, value)),
        _ => Err(CliError::usage("a variable is not UTF-8")),
    }
}

fn described(terminal: message::Terminal) -> api::Terminal {
    let message::Terminal { kind, size } = terminal;
    let kind = String::from_utf8_lossy(&kind).into_owned();
    api::Terminal { kind, rows: size.rows, columns: size.columns }
}
