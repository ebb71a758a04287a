//! Named sandboxes: `fireclaw create`, `start`, `stop`, `ls` and so on.

mod ls;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use fireclaw_daemon::api::{Rename, Signal};
use fireclaw_image::Home;

use super::{print, print_json};
use crate::client::exec::Options;
use crate::client::sandboxes::Sandboxes;
use crate::error::{CliError, Result};
use crate::runtime::runtime;
use crate::values;

/// What can be done with named sandboxes.
#[derive(Debug, clap::Subcommand)]
pub enum Action {
    /// Start sandboxes
    #[command(after_help = "Example:\n  fireclaw start web")]
    Start {
        /// The sandboxes
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        /// Attach to the sandbox's command, and exit with its status
        #[arg(short, long)]
        attach: bool,
    },
    /// Stop sandboxes and keep their disks
    #[command(after_help = "Example:\n  fireclaw stop -t 30 web")]
    Stop(StopArgs),
    /// Stop sandboxes and start them again
    #[command(after_help = "Example:\n  fireclaw restart web")]
    Restart(StopArgs),
    /// Send a signal to the command of sandboxes
    #[command(after_help = "Example:\n  fireclaw kill -s HUP web")]
    Kill {
        /// The sandboxes
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        /// The signal, by name or number
        #[arg(short, long, default_value = "KILL", value_parser = values::signal)]
        signal: u8,
    },
    /// Remove stopped sandboxes with their disks
    #[command(after_help = "Example:\n  fireclaw rm -f web")]
    Rm {
        /// The sandboxes
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        /// End running ones first
        #[arg(short, long)]
        force: bool,
    },
    /// Rename a sandbox
    #[command(after_help = "Example:\n  fireclaw rename web old-web")]
    Rename {
        /// The sandbox
        name: String,
        /// What it is called from now on
        new_name: String,
    },
    /// List sandboxes
    #[command(
        visible_alias = "ps",
        alias = "list",
        after_help = "\
Examples:
  fireclaw ls                        those that run
  fireclaw ls -a --json              all, as JSON"
    )]
    Ls(ls::Args),
    /// Show all that is known of sandboxes, as JSON
    #[command(after_help = "Example:\n  fireclaw inspect web")]
    Inspect {
        /// The sandboxes
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
    /// Show the published ports of a sandbox
    #[command(after_help = "Example:\n  fireclaw port web")]
    Port {
        /// The sandbox
        name: String,
    },
    /// Run a command in a running sandbox
    ///
    /// User, working directory and variables are the sandbox's unless others are named. Standard
    /// input, output and error are streamed. Signals are forwarded; a second one kills the
    /// command. Exit status: the command's own, 128+n if signal n killed it, 124 on timeout, 127
    /// if the command was not found, 126 if it cannot be executed, 125 if Fireclaw failed.
    #[command(after_help = "\
Examples:
  fireclaw exec web ls -la /etc/nginx
  fireclaw exec -it web bash
  tar c src | fireclaw exec web tar x -C /srv")]
    Exec(ExecArgs),
    /// Open a shell in a running sandbox
    #[command(after_help = "Example:\n  fireclaw shell web")]
    Shell {
        /// The sandbox
        name: String,
        /// User in the VM, by name or number
        #[arg(short, long)]
        user: Option<String>,
        /// Working directory in the VM
        #[arg(short, long, value_name = "DIR")]
        workdir: Option<String>,
    },
    /// Attach to the command of a running sandbox
    ///
    /// Shows what it writes from now on, and exits with its status. With a terminal, Ctrl-P
    /// Ctrl-Q detaches and leaves it running.
    #[command(after_help = "Example:\n  fireclaw attach web")]
    Attach {
        /// The sandbox
        name: String,
        /// Do not forward standard input
        #[arg(short = 'n', long)]
        no_stdin: bool,
    },
    /// Wait until sandboxes have ended, and print the exit status of each
    #[command(after_help = "Example:\n  fireclaw wait job")]
    Wait {
        /// The sandboxes
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
}

/// A sandbox and a command in it.
#[derive(Debug, clap::Args)]
pub struct ExecArgs {
    /// The sandbox
    name: String,

    #[command(flatten)]
    options: Options,

    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// What is stopped, and how fast.
#[derive(Debug, clap::Args)]
pub struct StopArgs {
    /// The sandboxes
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// How long the command may take to end before it is killed
    #[arg(short, long, value_name = "SECONDS", default_value = "10", value_parser = values::grace)]
    time: Duration,
}

impl Action {
    /// Whether the exit status is that of a command in the guest.
    pub fn is_exec(&self) -> bool {
        matches!(
            self,
            Self::Exec(_)
                | Self::Shell { .. }
                | Self::Attach { .. }
                | Self::Start { attach: true, .. }
        )
    }
}

/// Does what was asked.
pub fn execute(action: Action) -> Result<u8> {
    let home = Home::from_environment();
    let runtime = runtime()?;
    let done = runtime.block_on(async {
        let sandboxes = Sandboxes::of(&home).await?;
        act(&sandboxes, action).await
    });
    // Reading standard input cannot be interrupted: do not wait for it.
    runtime.shutdown_background();
    done
}

/// Whether anything of a sandbox runs, or may by itself.
pub fn goes_on(home: &Home, name: &str) -> Result<bool> {
    runtime()?.block_on(Sandboxes::goes_on(home, name))
}

/// Where the log of a sandbox is, if there is such a sandbox.
pub fn log_of(home: &Home, name: &str) -> Result<PathBuf> {
    runtime()?.block_on(async {
        let sandboxes = Sandboxes::of(home).await?;
        Ok(sandboxes.inspect(name).await?.log)
    })
}

/// Does something with several, also if it fails with some. The last failure is the whole's.
async fn each<'a, W: Future<Output = Result<()>>>(
    names: &'a [String],
    work: impl Fn(&'a String) -> W,
) -> Result<()> {
    let mut failed: Option<CliError> = None;
    for name in names {
        if let Err(e) = work(name).await
            && let Some(before) = failed.replace(e)
        {
            before.report();
        }
    }
    failed.map_or(Ok(()), Err)
}

async fn act(sandboxes: &Sandboxes, action: Action) -> Result<u8> {
    match action {
        Action::Start { names, attach: true } => {
            let [name] = &names[..] else {
                return Err(CliError::usage("--attach is for one sandbox"));
            };
            return sandboxes.attach(name, true, false).await;
        }
        Action::Start { names, attach: false } => {
            each(&names, |name| sandboxes.start(name)).await?;
        }
        Action::Stop(StopArgs { names, time }) => {
            each(&names, |name| sandboxes.stop(name, "stop", time)).await?
        }
        Action::Restart(StopArgs { names, time }) => {
            each(&names, |name| sandboxes.stop(name, "restart", time)).await?
        }
        Action::Kill { names, signal } => {
            let body = Signal { signal };
            each(&names, |name| sandboxes.post(name, "signal", &body)).await?;
        }
        Action::Rm { names, force } => {
            each(&names, |name| sandboxes.remove(name, force)).await?;
        }
        Action::Rename { name, new_name } => {
            sandboxes.post(&name, "rename", &Rename { name: new_name }).await?;
        }
        Action::Ls(args) => {
            args.show(sandboxes.list().await?)?;
        }
        Action::Inspect { names } => {
            let mut all = Vec::new();
            for name in &names {
                all.push(sandboxes.inspect(name).await?);
            }
            print_json(&all)?;
        }
        Action::Port { name } => {
            for published in sandboxes.inspect(&name).await?.status.ports {
                if let Some((host, guest)) = published.rsplit_once(':') {
                    print(&format!("{guest}/tcp -> {host}"))?;
                }
            }
        }
        Action::Exec(ExecArgs { name, options, command }) => {
            return sandboxes.exec(&name, options, command).await;
        }
        Action::Shell { name, user, workdir } => {
            return sandboxes.shell(&name, user, workdir).await;
        }
        Action::Attach { name, no_stdin } => return sandboxes.attach(&name, false, no_stdin).await,
        Action::Wait { names } => {
            for name in &names {
                let status = sandboxes.wait(name, false).await?.and_then(|status| status.status);
                print(&status.map_or_else(|| "none".into(), |code| code.to_string()))?;
            }
        }
    }
    Ok(0)
}
