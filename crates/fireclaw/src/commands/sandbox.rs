//! Named sandboxes: `fireclaw create`, `start`, `stop`, `ls` and so on.

mod ls;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use fireclaw_daemon::api::{Client, Kind as Of, NewSandbox, Problem, Rename, Signal, Stop};
use fireclaw_daemon::{ListedSandbox, Restart, SandboxConfig, SandboxStatus};
use fireclaw_image::Home;
use fireclaw_say::say;
use hyper::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::exec::Options;
use super::{daemon, print, print_json, run};
use crate::attended::{self, Attended};
use crate::error::{CliError, Kind, Result};
use crate::run::relay::Reads;
use crate::runtime::runtime;
use crate::signals::Signals;
use crate::values;

/// What can be done with named sandboxes.
#[derive(Debug, clap::Subcommand)]
pub enum Action {
    /// Create a sandbox and leave it stopped
    ///
    /// Takes the options of `fireclaw run`. Without a command, and without one in the image, the
    /// sandbox stays up until it is stopped.
    #[command(after_help = "\
Examples:
  fireclaw create --name box
  fireclaw create --name web --image nginx --publish 8080:80 --restart unless-stopped")]
    Create(Box<run::Args>),
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

/// Asks the daemon, which is started if none runs.
pub struct Sandboxes(Client);

/// Does what was asked.
pub fn execute(action: Action) -> Result<u8> {
    let home = Home::from_environment();
    let action = match action {
        Action::Create(args) => return run::create(*args),
        action => action,
    };
    let runtime = runtime()?;
    let done = runtime.block_on(async {
        let sandboxes = Sandboxes::of(&home).await?;
        sandboxes.act(action).await
    });
    // Reading standard input cannot be interrupted: do not wait for it.
    runtime.shutdown_background();
    done
}

/// Where the log of a sandbox is, if there is such a sandbox.
pub fn log_of(home: &Home, name: &str) -> Result<PathBuf> {
    runtime()?.block_on(async {
        let sandboxes = Sandboxes::of(home).await?;
        Ok(sandboxes.inspect(name).await?.log)
    })
}

impl Sandboxes {
    /// Those of a home.
    pub async fn of(home: &Home) -> Result<Self> {
        daemon::ensure(home).await?;
        Ok(Self(Client::new(home.clone())))
    }

    async fn act(&self, action: Action) -> Result<u8> {
        match action {
            Action::Create(_) => {}
            Action::Start { names, attach: true } => {
                let [name] = &names[..] else {
                    return Err(CliError::usage("--attach is for one sandbox"));
                };
                return self.attach(name, true, false).await;
            }
            Action::Start { names, attach: false } => {
                for name in &names {
                    self.start(name).await?;
                }
            }
            Action::Stop(StopArgs { names, time }) => self.stop(&names, "stop", time).await?,
            Action::Restart(StopArgs { names, time }) => self.stop(&names, "restart", time).await?,
            Action::Kill { names, signal } => {
                for name in &names {
                    self.post(name, "signal", &Signal { signal }).await?;
                }
            }
            Action::Rm { names, force } => {
                for name in &names {
                    self.remove(name, force).await?;
                }
            }
            Action::Rename { name, new_name } => {
                self.post(&name, "rename", &Rename { name: new_name }).await?;
            }
            Action::Ls(args) => {
                let all = self.ask(Method::GET, "/v1/sandboxes", &Value::Null).await?;
                args.show(all)?;
            }
            Action::Inspect { names } => {
                let mut all = Vec::new();
                for name in &names {
                    all.push(self.inspect(name).await?);
                }
                print_json(&all)?;
            }
            Action::Port { name } => {
                for published in self.inspect(&name).await?.config.publish {
                    print(&format!("{}/tcp -> {}", published.guest(), published.host()))?;
                }
            }
            Action::Exec(ExecArgs { name, options, command }) => {
                return options.run(&self.0, &path(&name, "/exec")?, command, refused).await;
            }
            Action::Shell { name, user, workdir } => return self.shell(&name, user, workdir).await,
            Action::Attach { name, no_stdin } => return self.attach(&name, false, no_stdin).await,
            Action::Wait { names } => {
                for name in &names {
                    let status = self.wait(name, false).await?.and_then(|status| status.status);
                    print(&status.map_or_else(|| "none".into(), |code| code.to_string()))?;
                }
            }
        }
        Ok(0)
    }

    /// Makes one; its name.
    pub async fn create(&self, name: Option<String>, config: SandboxConfig) -> Result<String> {
        let body = json(&NewSandbox { name, config })?;
        let made: Value = self.ask(Method::POST, "/v1/sandboxes", &body).await?;
        Ok(made["name"].as_str().unwrap_or_default().to_owned())
    }

    /// Starts one.
    pub async fn start(&self, name: &str) -> Result<()> {
        self.post(name, "start", &Value::Null).await
    }

    async fn stop(&self, names: &[String], what: &str, time: Duration) -> Result<()> {
        let seconds = Some(time.as_secs_f64());
        for name in names {
            self.post(name, what, &Stop { seconds }).await?;
        }
        Ok(())
    }

    /// Removes one.
    pub async fn remove(&self, name: &str, force: bool) -> Result<()> {
        let path = path(name, if force { "?force=true" } else { "" })?;
        self.ask::<Value>(Method::DELETE, &path, &Value::Null).await.map(drop)
    }

    async fn inspect(&self, name: &str) -> Result<ListedSandbox> {
        self.ask(Method::GET, &path(name, "")?, &Value::Null).await
    }

    /// Opens bash, or sh where there is none.
    async fn shell(&self, name: &str, user: Option<String>, workdir: Option<String>) -> Result<u8> {
        const SHELL: [&str; 3] =
            ["/bin/sh", "-c", "command -v bash >/dev/null && exec bash -l; exec sh -l"];
        let command = SHELL.map(OsString::from).to_vec();
        let options = Options::of_terminal(user, workdir);
        options.run(&self.0, &path(name, "/exec")?, command, refused).await
    }

    /// Attaches our streams to the command of one, which is started before if that is asked.
    pub async fn attach(&self, name: &str, start: bool, no_stdin: bool) -> Result<u8> {
        let config = self.inspect(name).await?.config;
        let mut signals = Signals::listen()?;
        let mut reads = Reads::of(config.terminal.is_some(), no_stdin || !config.input)?;
        tokio::select! {
            handed = reads.hand_over() => handed?,
            signal = signals.next() => return Ok(attended::interrupted(signal)),
        }
        let path = path(name, if start { "/attach?start=true" } else { "/attach" })?;
        let streams = tokio::select! {
            streams = self.0.streams(&path, &Value::Null) => streams.map_err(|e| refused(&e))?,
            signal = signals.next() => return Ok(attended::interrupted(signal)),
        };
        let ended = attended::attend(streams, &mut reads, &mut signals, true).await;
        drop(reads);
        match ended? {
            Attended::Ended(ended) => {
                if config.restart == Restart::No {
                    self.wait(name, config.remove).await?;
                }
                attended::status(ended)
            }
            Attended::Left(code) => Ok(code),
            Attended::Detached => {
                say!("\nfireclaw: detached; `fireclaw attach {name}` comes back");
                Ok(0)
            }
        }
    }

    /// Waits until one is over, or gone if it may be.
    async fn wait(&self, name: &str, may_be_gone: bool) -> Result<Option<SandboxStatus>> {
        let path = path(name, "/wait")?;
        match self.0.ask(Method::GET, &path, &Value::Null).await {
            Err(Problem::Refused(refused))
                if may_be_gone && matches!(refused.kind, Of::UnknownSandbox | Of::Ending) =>
            {
                Ok(None)
            }
            answer => answer.map(Some).map_err(|problem| refused(&problem)),
        }
    }

    async fn post(&self, name: &str, what: &str, body: &impl Serialize) -> Result<()> {
        let path = path(name, &format!("/{what}"))?;
        self.ask::<Value>(Method::POST, &path, &json(body)?).await.map(drop)
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &Value,
    ) -> Result<T> {
        self.0.ask(method, path, body).await.map_err(|problem| refused(&problem))
    }
}

/// Why the daemon does not do something, with what can be done about it.
fn refused(problem: &Problem) -> CliError {
    let (kind, hint) = match problem {
        Problem::Refused(refused) => match refused.kind {
            Of::UnknownSandbox if refused.error.ends_with("it is an agent") => {
                (Kind::Usage, Some("agents have their own commands: fireclaw agent --help"))
            }
            Of::UnknownSandbox => (Kind::Usage, Some("fireclaw ls -a lists all sandboxes")),
            Of::UnknownImage => (Kind::Usage, Some("fireclaw image ls lists all images")),
            Of::NotNow => (Kind::Usage, Some("fireclaw start NAME; fireclaw ls -a tells more")),
            Of::Running => {
                (Kind::Usage, Some("stop it first: fireclaw stop NAME, or fireclaw rm -f NAME"))
            }
            Of::NameTaken => {
                (Kind::Usage, Some("choose another, or remove that one: fireclaw rm NAME"))
            }
            Of::BadRequest => (Kind::Usage, None),
            _ => (Kind::System, None),
        },
        _ => (Kind::System, None),
    };
    let error = CliError::new(kind, problem.to_string());
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// A request's path: names of sandboxes need no escaping.
fn path(name: &str, rest: &str) -> Result<String> {
    fireclaw_template::names::check_agent(name)
        .map_err(|e| CliError::usage(format!("the name {name:?} {e}")))?;
    Ok(format!("/v1/sandboxes/{name}{rest}"))
}

fn json(value: &impl Serialize) -> Result<Value> {
    serde_json::to_value(value).map_err(|e| CliError::new(Kind::System, e.to_string()))
}
