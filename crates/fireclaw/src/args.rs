//! The command line as a whole; each command's own part is with the command.

use clap::{Parser, Subcommand};

use crate::commands::{
    agent, completions, doctor, images, logs, man, net, overseer, pool, run, setup, snapshot,
    template,
};
use crate::error::RUN_FAILED;

/// Runs commands and AI agents in microVMs: a kernel and a disk of their own.
#[derive(Debug, Parser)]
#[command(name = "fireclaw", version, propagate_version = true, max_term_width = 100)]
#[command(after_help = "\
Examples:
  fireclaw setup                        prepare this machine once
  fireclaw run \"uname -a\"               a shell line in a fresh microVM
  echo hi | fireclaw run cat            standard input, output and error stream through
  fireclaw run -t 5 -- sleep 60         arguments as they are; exit status 124 after 5 s
  fireclaw overseer --local-model       agents that talk on IRC
  fireclaw doctor                       what works on this machine, and what to do if not

Environment:
  FIRECLAW_HOME   where everything is kept (default ~/.fireclaw)
  FIRECLAW_VMM    auto, firecracker or qemu, like --vmm
  FIRECLAW_LOG    what is logged on standard error, such as debug or fireclaw_vm=debug")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    Run(run::Args),
    Setup(setup::Args),
    Doctor(doctor::Args),
    Images(images::Args),
    Snapshot(snapshot::Args),
    Pool(pool::Args),
    Net(net::Args),
    Overseer(overseer::Args),
    Agent(agent::Args),
    Logs(logs::Args),
    Template(template::Args),
    Completions(completions::Args),
    Man(man::Args),
    /// Serves the network card of one machine; started by other commands
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
            _ => 1,
        }
    }
}
