//! One file for each command.

pub mod agent;
pub mod completions;
pub mod doctor;
pub mod images;
pub mod logs;
pub mod man;
pub mod net;
pub mod overseer;
pub mod pool;
pub mod run;
pub mod setup;
pub mod snapshot;
pub mod template;

use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory;
use fireclaw_image::Home;
use fireclaw_say::out;
use fireclaw_vm::snapshot::Store;

use crate::args::{Cli, Command};
use crate::error::{CliError, Kind, Result};
use crate::logging;

/// Runs a command; the value is the exit status.
pub fn execute(cli: Cli) -> Result<u8> {
    // The overseer has a log of its own, and a gateway says only what its starter reads.
    if !matches!(cli.command, Command::Overseer(_) | Command::Gateway) {
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
            | Command::Setup(_)
            | Command::Images(_)
            | Command::Snapshot(_)
            | Command::Pool(_)
            | Command::Overseer(_)
    ) {
        let home = Home::from_environment();
        fireclaw_vm::sweep(&home.run())?;
        Store::new(home.snapshots()).sweep();
    }
    match cli.command {
        Command::Run(args) => run::execute(args),
        Command::Setup(args) => setup::execute(&args),
        Command::Doctor(args) => doctor::execute(&args),
        Command::Images(args) => images::execute(args),
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
        | Command::Setup(_)
        | Command::Doctor(_)
        | Command::Images(_)
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
        Ok(text) => print(&text),
        Err(e) => Err(CliError::new(Kind::System, e.to_string())),
    }
}

/// Prints a text and a newline. A reader that has gone (`| head`) has enough.
fn print(text: &str) -> Result<()> {
    out!("{text}").map_err(|e| CliError::file("write", Path::new("standard output"), &e))
}
