//! The `fireclaw` command.

mod args;
mod commands;
mod error;
mod machine;
mod phases;
mod preparation;
mod progress;
mod run;
mod runtime;
mod signals;
mod values;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    let failure_code = cli.command.failure_code();
    match commands::execute(cli) {
        Ok(code) => ExitCode::from(code),
        Err(e) => {
            e.report();
            ExitCode::from(e.exit_code.unwrap_or(failure_code))
        }
    }
}
