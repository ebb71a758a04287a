//! `fireclaw overseer`: the daemon.

mod errors;
mod notify;
mod servers;
mod service;
mod settings;
pub mod stalls;
mod unit;
mod words;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::CommandFactory;
use fireclaw_chat::{Mask, Owners};
use fireclaw_daemon::{Claim, Config, Daemon, api};
use fireclaw_host::{PathError, Secret};
use fireclaw_image::Home;
use fireclaw_irc::Network;
use fireclaw_irc::client::{Rate, Sasl, Tls};
use fireclaw_say::say;
use rustix::fs::Mode;

use crate::client::background::make_way;
use crate::commands::Cli;
use crate::error::{CliError, Result};
use crate::logging;
use crate::machine::Vmm;
use crate::preparation;
use crate::runtime::runtime_with;
use crate::signals::Signals;
pub use errors::daemon_error;
use servers::Chat;
use settings::Settings;

/// Where Ollama listens unless told otherwise.
pub const OLLAMA: &str = "http://127.0.0.1:11434";

/// How long work that blocks may hold the end up.
const LAST_WORK: Duration = Duration::from_secs(2);

/// Run the daemon that keeps agents alive and connects them to IRC
///
/// Runs in the foreground until Ctrl-C or SIGTERM. Agent VMs keep running, and the next
/// overseer adopts them; `fireclaw agent stop` ends them. Type !help in the control channel to
/// list its commands.
///
/// Without --server, the overseer starts a private IRC server that only this host can reach.
/// Its password is in irc/password under FIRECLAW_HOME; whoever has it may give commands.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  fireclaw overseer                                   private IRC server on 127.0.0.1:6667
  fireclaw overseer --local-model                     with a small local model
  fireclaw overseer --server irc.example.org --tls --port 6697 --owner 'ann!*@*.example.org'
  fireclaw overseer install --local-model             as a systemd service
  fireclaw overseer check                             check overseer.toml

Options can also be set in overseer.toml under FIRECLAW_HOME; flags and environment variables
override it.

Environment:
  FIRECLAW_LOG             log filter: error, warn, info (default), debug, trace, or
                           directives such as info,fireclaw_net=debug
  FIRECLAW_MODEL_KEY       API key for the model server
  FIRECLAW_IRC_PASSWORD    IRC server password; account password with --account
  FIRECLAW_NGIRCD          path of ngircd for the private IRC server
  FIRECLAW_LLAMA_SERVER    path of llama-server for --local-model"
)]
pub struct Args {
    #[command(subcommand)]
    action: Option<Action>,

    #[command(flatten)]
    options: Options,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Check overseer.toml and explain every mistake
    Check {
        /// The file; the data directory's own if absent
        file: Option<PathBuf>,
    },
    #[command(flatten)]
    Service(service::Action),
}

/// The overseer's own log, in the data directory.
pub const LOG_FILE: &str = "overseer.log";

/// The forms of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum LogFormat {
    /// Time, level, message
    Human,
    /// One JSON object per line
    Json,
}

impl From<LogFormat> for fireclaw_log::Format {
    fn from(format: LogFormat) -> Self {
        match format {
            LogFormat::Human => Self::Human,
            LogFormat::Json => Self::Json,
        }
    }
}

/// How it is to work.
#[derive(Debug, PartialEq, Eq, clap::Args)]
struct Options {
    /// IRC server; without it, a private one on this host
    #[arg(long, value_name = "HOST")]
    server: Option<String>,

    /// IRC port; the private server picks another if this one is taken, and any with 0
    #[arg(long, value_name = "PORT", default_value = "6667")]
    port: u16,

    /// Connect with TLS
    #[arg(long, requires = "server")]
    tls: bool,

    /// CA certificates (PEM) to trust instead of the system's
    #[arg(long, value_name = "FILE", requires = "tls")]
    tls_ca: Option<PathBuf>,

    /// Account to log in to (SASL PLAIN), with FIRECLAW_IRC_PASSWORD
    #[arg(long, value_name = "NAME", requires = "server")]
    account: Option<String>,

    /// Nick of the overseer
    #[arg(long, value_name = "NICK", default_value = "overseer")]
    nick: String,

    /// Control channel, in which people give commands
    #[arg(long, value_name = "CHANNEL", default_value = "#control")]
    channel: String,

    /// Channel that all agents join
    #[arg(long, value_name = "CHANNEL", default_value = "#agents")]
    agents_channel: String,

    /// Who may give commands: an account, or a hostmask such as ann!*@*.example.org. Operators
    /// of the control channel always may; on the private server, whoever has the password
    #[arg(long, value_name = "WHO")]
    owner: Vec<String>,

    /// Model server: Ollama or OpenAI-compatible
    #[arg(long, value_name = "URL", env = "FIRECLAW_MODEL_SERVER", default_value = OLLAMA)]
    model_server: String,

    /// CA certificates (PEM) to trust for the model server, besides the system's
    #[arg(long, value_name = "FILE")]
    model_ca: Option<PathBuf>,

    /// If no model server answers, run a small model on this host
    #[arg(long)]
    local_model: bool,

    /// The VMM
    #[arg(long, value_name = "VMM", env = "FIRECLAW_VMM", default_value = "auto")]
    vmm: Vmm,

    /// Log format on standard error; by default human, or journald fields under systemd
    #[arg(long, value_name = "FORMAT", env = "FIRECLAW_LOG_FORMAT")]
    log_format: Option<LogFormat>,

    /// Approval timeout: how many seconds a question waits for an answer
    #[arg(long, value_name = "SECONDS", default_value = "600")]
    approval_time: u64,
}

/// Runs the overseer until a signal comes, or makes it a service.
pub fn execute(args: &Args) -> Result<u8> {
    let home = Home::from_environment();
    let file = home.root().join(settings::FILE);
    match &args.action {
        Some(Action::Check { file: named }) => return check(named.as_deref().unwrap_or(&file)),
        Some(Action::Service(action)) => return service::execute(action),
        None => {}
    }
    let settings = Settings::of(&file)?;
    let options = settings.under(&given())?;
    ensure_set_up(&home)?;
    fireclaw_say::never_wait();
    // What it keeps is its owner's alone, sockets too from when they are made.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let log = home.root().join(LOG_FILE);
    logging::start(fireclaw_log::Options {
        format: options.log_format.map(LogFormat::into),
        file: Some(&log),
        filter: "info",
    })?;
    let (local, runtime) = (tokio::task::LocalSet::new(), runtime_with(stalls::watch)?);
    let ended = runtime.block_on_local(local, async {
        let mut signals = Signals::listen()?;
        let serving = serve(&options, &settings, home);
        tokio::select! {
            ended = serving => ended,
            _ = signals.next() => {
                notify::stopping();
                say!("fireclaw: overseer stopped; agent VMs keep running");
                Ok(0)
            }
        }
    });
    // A disk that is being copied is not waited for: it is copied anew the next time.
    runtime.shutdown_timeout(LAST_WORK);
    ended
}

/// The options that the command line and the environment give.
fn given() -> Vec<std::ffi::OsString> {
    // It was read before, so it can be.
    let matches = Cli::command().try_get_matches_from(std::env::args_os());
    let overseer = matches.as_ref().ok().and_then(|all| all.subcommand_matches("overseer"));
    overseer.map(settings::given).unwrap_or_default()
}

/// Explains what is wrong with a file of settings.
fn check(file: &Path) -> Result<u8> {
    let text = std::fs::read(file).map_err(PathError::at("read", file))?;
    match Settings::read(file, &text) {
        Ok(settings) => {
            settings.check()?;
            super::print(&format!("{}: fine", file.display())).map(|()| 0)
        }
        Err(mistakes) => {
            for mistake in &mistakes {
                super::print(&format!("{mistake}\n"))?;
            }
            super::print(&format!("{}: {} mistakes", file.display(), mistakes.len())).map(|()| 1)
        }
    }
}

/// Sets the home up if nobody has yet.
fn ensure_set_up(home: &Home) -> Result<()> {
    if matches!(
        fireclaw_image::resolve(home, fireclaw_image::Manifest::BASE_IMAGE, None),
        Err(fireclaw_image::Error::NotSetUp { .. })
    ) {
        say!("fireclaw: first use: setting up {}", home.root().display());
        preparation::prepare(home, &fireclaw_image::Options::default())?;
    }
    Ok(())
}

async fn serve(args: &Options, settings: &Settings, home: Home) -> Result<u8> {
    let owners = owners(args)?;
    if args.port == 0 && args.server.is_some() {
        return Err(CliError::usage("--port 0 is only for the private server"));
    }
    make_way(&home).await?;
    // First: the private server's directory is one of the things that there is one of.
    let claim = Claim::of(&home).map_err(daemon_error)?;
    let private = match args.server {
        None => Some(servers::chat(&home, args).await?),
        Some(_) => None,
    };
    let (model, local) = servers::model(args, &home).await?;
    let config = Config {
        chat: Arc::new(irc(args, private.as_ref())),
        owners,
        vmm: args.vmm.into(),
        nick: args.nick.clone(),
        control: args.channel.clone(),
        lobby: args.agents_channel.clone(),
        approval_time: Duration::from_secs(args.approval_time),
        max_hops: settings.max_hops,
        loop_pause: settings.loop_pause,
        limits: settings.limits.clone(),
        model,
        home,
    };
    let (daemon, events) = Daemon::open(claim, config).map_err(daemon_error)?;
    let listener = api::listen(&daemon.config().home).map_err(daemon_error)?;
    say(&daemon, private.as_ref());
    let mut said = false;
    let listens = || {
        stalls::start();
        if !std::mem::replace(&mut said, true) {
            say!("fireclaw: {} listens in {}", args.nick, args.channel);
        }
    };
    let supervised = async {
        tokio::select! {
            never = servers::keep(private.map(|chat| chat.server)) => never,
            never = servers::keep(local) => never,
        }
    };
    let handle = daemon.handle();
    let ended = async {
        tokio::select! {
            never = daemon.serve() => match never {},
            never = listener.serve(&handle) => match never {},
            e = async { fireclaw_overseer::run(&daemon, events, listens).await.map(|never| match never {}) } => e,
            e = async {
                daemon.reconcile().await?;
                tokio::select! {
                    never = daemon.keep_schedule() => match never {},
                    never = notify::attend(&daemon) => match never {},
                }
            } => e,
            never = supervised => match never {},
        }
    };
    let ended: std::result::Result<(), _> = ended.await;
    daemon.release().await;
    ended.map(|()| 0).map_err(daemon_error)
}

/// Tells who started it where everything is.
fn say(daemon: &Daemon, private: Option<&Chat>) {
    let config = daemon.config();
    if let Some(Chat { server, file, .. }) = private {
        let port = server.port();
        say!(
            "fireclaw: a private IRC server is on 127.0.0.1:{port}; who has its password may \
             give commands in {}",
            config.control
        );
        // The file is named and never shown: this line ends up in logs.
        say!(
            "fireclaw: join it: irssi -c 127.0.0.1 -p {port} -w \"$(cat {})\" and /join {}",
            quoted(file),
            config.control
        );
    }
    say!("fireclaw: model server: {}", config.model.url);
}

/// A path as one word of a shell, within double quotes too.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "'\\''"))
}

fn irc(args: &Options, private: Option<&Chat>) -> Network {
    let secret = std::env::var("FIRECLAW_IRC_PASSWORD").ok().filter(|text| !text.is_empty());
    let secret = secret.map(Secret::new);
    let sasl = match (&args.account, &secret) {
        (Some(account), Some(password)) => {
            Some(Sasl { account: account.clone(), password: password.clone() })
        }
        _ => None,
    };
    Network {
        host: args.server.clone().unwrap_or_else(|| "127.0.0.1".into()),
        port: private.map_or(args.port, |chat| chat.server.port()),
        tls: args.tls.then(|| Tls { ca_file: args.tls_ca.clone(), server_name: None }),
        password: match private {
            Some(chat) => Some(chat.password.clone()),
            None => secret.filter(|_| args.account.is_none()),
        },
        sasl,
        rate: if private.is_some() { Rate::PRIVATE } else { Rate::default() },
    }
}

fn owners(args: &Options) -> Result<Owners> {
    let private = args.server.is_none();
    if private && let Some(owner) = args.owner.first() {
        // It has no accounts, everybody comes from 127.0.0.1, and a nick is whoever took it.
        return Err(CliError::usage(format!(
            "--owner {owner}: a private server cannot tell who somebody is"
        ))
        .hint(
            "who has its password may give commands, and nobody else can join; to tell people \
             apart use a server with accounts: --server HOST --owner ACCOUNT",
        ));
    }
    let mut owners = Owners { everybody: private, operators: !private, ..Owners::default() };
    for owner in &args.owner {
        if owner.contains(['!', '@', '*']) {
            let mask =
                Mask::parse(owner).map_err(|e| CliError::usage(format!("--owner {owner}: {e}")))?;
            owners.masks.push(mask);
        } else {
            owners.accounts.push(owner.clone());
        }
    }
    Ok(owners)
}
