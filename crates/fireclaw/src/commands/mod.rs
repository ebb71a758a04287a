//! One file for each command.

pub mod completions;
pub mod doctor;
pub mod images;
pub mod man;
pub mod run;
pub mod setup;

use fireclaw_image::Home;

use crate::args::{Cli, Command};
use crate::error::Result;

/// Runs a command; the value is the exit status.
pub fn execute(cli: Cli) -> Result<u8> {
    // What a killed run left behind goes first, whatever is asked. Doctor does
    // it itself, to tell of it.
    if matches!(cli.command, Command::Run(_) | Command::Setup(_) | Command::Images(_)) {
        fireclaw_vm::sweep(&Home::from_environment().run())?;
    }
    match cli.command {
        Command::Run(args) => run::execute(args),
        Command::Setup(args) => setup::execute(&args),
        Command::Doctor(args) => doctor::execute(&args),
        Command::Images(args) => images::execute(args),
        Command::Completions(args) => completions::execute(&args),
        Command::Man(args) => man::execute(&args),
    }
}

/// Prints a value as JSON.
fn print_json(value: &impl serde::Serialize) -> Result<()> {
    match serde_json::to_string_pretty(value) {
        Ok(text) => {
            println!("{text}");
            Ok(())
        }
        Err(e) => Err(crate::error::CliError::new(crate::error::Kind::System, e.to_string())),
    }
}
