//! The command line as a whole, with one file for each command.

pub mod agent;
pub mod completions;
pub mod daemon;
pub mod doctor;
pub mod image;
pub mod logs;
pub mod man;
pub mod net;
pub mod overseer;
pub mod pool;
pub mod run;
pub mod sandbox;
pub mod setup;
pub mod snapshot;
pub mod template;

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use fireclaw_host::PathError;
use fireclaw_image::Home;
use fireclaw_say::out;
use fireclaw_vm::snapshot::Store;

use crate::error::{CliError, Kind, RUN_FAILED, Result};
use crate::logging;

/// Run commands and AI agents in microVMs, each with its own kernel and disk.
#[derive(Debug, Parser)]
#[command(name = "fireclaw", version, propagate_version = true, max_term_width = 100)]
#[command(after_help = "\
Examples:
  fireclaw setup                        set up this host
  fireclaw run \"uname -a\"               a shell command line in a fresh microVM
  echo hi | fireclaw run cat            pipes work both ways
  fireclaw run -t 5 -- sleep 60         a program without a shell; exits 124 after 5 s
  fireclaw run -d --name web --image nginx --publish 8080:80
  fireclaw shell web                    a sandbox with a name stays until it is removed
  fireclaw overseer --local-model       agents on IRC, with a local model
  fireclaw doctor                       check this host

Environment:
  FIRECLAW_HOME   data directory (default ~/.fireclaw)
  FIRECLAW_VMM    auto, firecracker or qemu, like --vmm
  FIRECLAW_LOG    log filter, such as debug or fireclaw_vm=debug")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    Run(Box<run::Args>),
    /// Create a sandbox and leave it stopped
    ///
    /// Takes the options of `fireclaw run`. Without a command, and without one in the image, the
    /// sandbox stays up until it is stopped.
    #[command(after_help = "\
Examples:
  fireclaw create --name box
  fireclaw create --name web --image nginx --publish 8080:80 --restart unless-stopped")]
    Create(Box<run::Args>),
    #[command(flatten)]
    Sandbox(sandbox::Action),
    Daemon(daemon::Args),
    Setup(setup::Args),
    Doctor(doctor::Args),
    #[command(alias = "images")]
    Image(image::Args),
    Snapshot(snapshot::Args),
    Pool(pool::Args),
    Net(net::Args),
    Overseer(overseer::Args),
    Agent(agent::Args),
    Logs(logs::Args),
    Template(template::Args),
    Completions(completions::Args),
    Man(man::Args),
    /// Serve the network interface of one VM; started by other commands
    #[command(hide = true)]
    Gateway,
}

impl Command {
    /// The exit status when Fireclaw itself fails, kept apart from those of
    /// the command in the guest as `env`, `timeout` and `docker run` do.
    pub fn failure_code(&self) -> u8 {
        match self {
            Self::Run(_) => RUN_FAILED,
            Self::Agent(args) if args.is_exec() => RUN_FAILED,
            Self::Sandbox(action) if action.is_exec() => RUN_FAILED,
            _ => 1,
        }
    }
}

/// Runs a command; the value is the exit status.
pub fn execute(cli: Cli) -> Result<u8> {
    // The overseer has a log of its own, and a gateway says only what its starter reads.
    if !matches!(cli.command, Command::Overseer(_) | Command::Daemon(_) | Command::Gateway) {
        logging::start_if_asked()?;
    }
    if keeps_something(&cli.command) {
        let home = Home::from_environment();
        if home.root().exists() {
            home.make_private()?;
        }
    }
    // What a killed run left behind goes first, whatever is asked. Doctor does
    // it itself, to tell of it.
    if matches!(
        cli.command,
        Command::Run(_)
            | Command::Create(_)
            | Command::Sandbox(_)
            | Command::Daemon(_)
            | Command::Setup(_)
            | Command::Image(_)
            | Command::Snapshot(_)
            | Command::Pool(_)
            | Command::Overseer(_)
    ) {
        let home = Home::from_environment();
        fireclaw_vm::sweep(&home.run())?;
        Store::new(home.snapshots()).sweep();
    }
    match cli.command {
        Command::Run(args) => run::execute(*args),
        Command::Create(args) => run::create(*args),
        Command::Sandbox(action) => sandbox::execute(action),
        Command::Daemon(args) => daemon::execute(&args),
        Command::Setup(args) => setup::execute(&args),
        Command::Doctor(args) => doctor::execute(&args),
        Command::Image(args) => image::execute(args),
        Command::Snapshot(args) => snapshot::execute(args),
        Command::Pool(args) => pool::execute(&args),
        Command::Net(args) => net::execute(&args),
        Command::Overseer(args) => overseer::execute(&args),
        Command::Agent(args) => agent::execute(args),
        Command::Logs(args) => logs::execute(&args),
        Command::Template(args) => template::execute(&args),
        // It has told whoever started it.
        Command::Gateway => {
            Ok(if fireclaw_net::gateway_main() == ExitCode::SUCCESS { 0 } else { 1 })
        }
        Command::Completions(args) => completions::execute(&args, Cli::command()),
        Command::Man(args) => man::execute(&args, Cli::command()),
    }
}

/// Whether a command works with the files of a home.
fn keeps_something(command: &Command) -> bool {
    match command {
        Command::Run(_)
        | Command::Create(_)
        | Command::Sandbox(_)
        | Command::Daemon(_)
        | Command::Setup(_)
        | Command::Doctor(_)
        | Command::Image(_)
        | Command::Snapshot(_)
        | Command::Pool(_)
        | Command::Net(_)
        | Command::Overseer(_) => true,
        Command::Agent(_)
        | Command::Logs(_)
        | Command::Template(_)
        | Command::Gateway
        | Command::Completions(_)
        | Command::Man(_) => false,
    }
}

/// Prints a value as JSON.
fn print_json(value: &impl serde::Serialize) -> Result<()> {
    match serde_json::to_string_pretty(value) {
        Ok(text) => print(&harmless(&text)),
        Err(e) => Err(CliError::new(Kind::System, e.to_string())),
    }
}

/// JSON that is the same to a program, and harmless to a terminal: what serde_json writes as it
/// is, such as C1 control characters and marks of direction, stands only in strings.
fn harmless(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        if c != '\n' && (c.is_control() || fireclaw_host::is_hidden(c)) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(text, "\\u{unit:04x}");
            }
        } else {
            text.push(c);
        }
    }
    text
}

/// Prints a text and a newline. A reader that has gone (`| head`) has enough.
fn print(text: &str) -> Result<()> {
    out!("{text}").map_err(|e| PathError::at("write", "standard output")(e).into())
}

#[cfg(test)]
mod json_tests {
    use super::*;

    #[test]
    fn json_is_harmless_to_a_terminal_and_the_same_to_a_program() {
        let value = serde_json::json!({ "env": "a\u{9b}31m\u{202e}\u{e0041}\x1b\n\u{7f}é" });
        let text = harmless(&serde_json::to_string_pretty(&value).unwrap());
        assert!(
            text.chars().all(|c| c == '\n' || !(c.is_control() || fireclaw_host::is_hidden(c)))
        );
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }
}
