//! The `fireclaw` command.

mod client;
mod commands;
mod error;
mod habits;
mod logging;
mod machine;
mod phases;
mod preparation;
mod progress;
mod pull;
mod run;
mod runtime;
mod signals;
mod stack;
mod stdin;
mod terminal;
mod values;

use std::io::ErrorKind;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use fireclaw_host::PathError;

fn main() -> ExitCode {
    if let Err(e) = stack::ensure() {
        e.report();
        return ExitCode::from(error::RUN_FAILED);
    }
    let words = habits::understood(std::env::args_os(), &commands::Cli::command());
    let cli = match commands::Cli::try_parse_from(words) {
        Ok(cli) => cli,
        Err(words) => return ExitCode::from(tell(&words)),
    };
    let failure_code = cli.command.failure_code();
    let code = commands::execute(cli).unwrap_or_else(|e| {
        e.report();
        e.exit_code.unwrap_or(failure_code)
    });
    fireclaw_say::flush();
    ExitCode::from(code)
}

/// Shows help, a version or what is wrong with the command line; the value is the exit
/// status.
fn tell(words: &clap::Error) -> u8 {
    match words.print() {
        Err(e) if !words.use_stderr() && e.kind() != ErrorKind::BrokenPipe => {
            error::CliError::from(PathError::at("write", "standard output")(e)).report();
            1
        }
        _ => {
            if let Some(hint) = habits::hint(words) {
                fireclaw_say::say!("hint: {hint}");
                fireclaw_say::flush();
            }
            u8::try_from(words.exit_code()).unwrap_or(1)
        }
    }
}
