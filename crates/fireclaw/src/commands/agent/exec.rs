//! `fireclaw agent exec`: a command in the VM of an agent, with our own streams.

use std::ffi::OsString;

use fireclaw_daemon::api::Client;

use crate::client::exec::Options;
use crate::error::Result;

/// Run a command in an agent's VM
///
/// The user is `agent` unless --user names another, and the working directory is the user's
/// home. Standard input, output and error are streamed. Signals are forwarded; a second one
/// kills the command. Exit status: the command's own, 128+n if signal n killed it, 124 on
/// timeout, 127 if the command was not found, 126 if it cannot be executed, 125 if Fireclaw
/// failed.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fireclaw agent exec bob -- ls -la /workspace
  fireclaw agent exec -it bob bash
  tar c src | fireclaw agent exec bob -- tar x -C /workspace
  fireclaw agent exec bob --user root -n -t 60 -- apt-get update")]
pub struct Args {
    /// The agent
    name: String,

    #[command(flatten)]
    options: Options,

    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// Runs the command; the exit status.
pub async fn execute(client: &Client, args: Args) -> Result<u8> {
    let path = format!("/v1/agents/{}/exec", super::segment(&args.name)?);
    args.options.run(client, &path, args.command, super::refused).await
}
