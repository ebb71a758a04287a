//! `fireclaw daemon`: the daemon that owns named sandboxes, where no overseer does.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fireclaw_chat::{NoNetwork, Owners};
use fireclaw_daemon::api::{self, About};
use fireclaw_daemon::{Claim, Config, Daemon};
use fireclaw_host::PathError;
use fireclaw_image::Home;
use fireclaw_llm::{Limits, ServerConfig, ServerKind};
use fireclaw_say::say;
use rustix::fs::Mode;
use rustix::process::{Pid, Signal, kill_process, setsid};

use super::overseer::{LOG_FILE, OLLAMA, daemon_error, stalls};
use super::{print, print_json};
use crate::client::background::{about, end, ensure};
use crate::error::Result;
use crate::logging;
use crate::machine::Vmm;
use crate::runtime::{runtime, runtime_with};
use crate::signals::Signals;

/// How often it is looked whether the daemon has died.
const LOOK: Duration = Duration::from_millis(200);

/// The first wait before a daemon that died is started again; it doubles with each.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// The longest.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// A daemon that ran so long did not die at once.
const STABLE: Duration = Duration::from_secs(60);

/// How long work that blocks may hold the end up.
const LAST_WORK: Duration = Duration::from_secs(2);

/// Manage the daemon that owns named sandboxes
///
/// Commands such as `fireclaw run -d` start it in the background when it is needed; an overseer
/// does its work as well. Sandboxes go on while it is stopped, and the next one adopts them; only
/// commands of `fireclaw exec` end with it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fireclaw daemon status
  fireclaw daemon stop               sandboxes keep running
  fireclaw daemon run                in the foreground, until Ctrl-C")]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Show whether a daemon runs; exits 1 if not
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Start it in the background
    Start,
    /// Stop it, or the overseer; VMs keep running
    Stop,
    /// Run it in the foreground
    Run {
        /// The VMM
        #[arg(long, value_name = "VMM", env = "FIRECLAW_VMM", default_value = "auto")]
        vmm: Vmm,
        /// Become a background process that starts it again when it dies
        #[arg(long, hide = true)]
        supervised: bool,
    },
}

/// Does what was asked.
pub fn execute(args: &Args) -> Result<u8> {
    let home = Home::from_environment();
    match args.action {
        Action::Status { json } => status(&home, json),
        Action::Start => {
            let about = runtime()?.block_on(ensure(&home))?;
            print(&format!("process {}", about.pid)).map(|()| 0)
        }
        Action::Stop => stop(&home),
        Action::Run { supervised: true, .. } => supervise(),
        Action::Run { vmm, supervised: false } => run(home, vmm),
    }
}

fn status(home: &Home, json: bool) -> Result<u8> {
    let about = runtime()?.block_on(about(home))?;
    if json {
        let json = serde_json::json!({ "running": about.is_some(), "daemon": about });
        return print_json(&json).map(|()| u8::from(about.is_none()));
    }
    let Some(About { pid, version, overseer }) = about else {
        return print("no daemon is running").map(|()| 1);
    };
    let what = if overseer { "an overseer" } else { "a daemon" };
    print(&format!("{what} of version {version} is running: process {pid}")).map(|()| 0)
}

fn stop(home: &Home) -> Result<u8> {
    let runtime = runtime()?;
    let Some(about) = runtime.block_on(about(home))? else {
        return print("no daemon is running").map(|()| 0);
    };
    end(home, about.pid)?;
    Ok(0)
}

/// Starts the daemon again when it dies, until it ends as it was told to.
fn supervise() -> Result<u8> {
    // The terminal of who needed it first is not ours.
    let _ = setsid();
    let program = std::env::current_exe().map_err(PathError::at("find", "this program"))?;
    let runtime = runtime()?;
    runtime.block_on(async {
        let mut signals = Signals::listen()?;
        let mut wait = FIRST_WAIT;
        loop {
            let since = Instant::now();
            let mut command = Command::new(&program);
            command.args(["daemon", "run"]).stdin(Stdio::null());
            let mut child = command.spawn().map_err(PathError::at("start", "the daemon"))?;
            let ended = loop {
                if let Some(ended) = ended(&mut child)? {
                    break ended;
                }
                tokio::select! {
                    _ = signals.next() => terminate(&child),
                    () = tokio::time::sleep(LOOK) => {}
                }
            };
            match (ended.code(), ended.signal()) {
                // It ended as it was told to, or refused to start and would again.
                (Some(code @ 0..=2), _) => return Ok(u8::try_from(code).unwrap_or(1)),
                (_, Some(signal)) if signal == Signal::TERM.as_raw() => return Ok(0),
                _ => {}
            }
            if since.elapsed() > STABLE {
                wait = FIRST_WAIT;
            }
            tokio::select! {
                _ = signals.next() => return Ok(0),
                () = tokio::time::sleep(wait) => {}
            }
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    })
}

fn ended(child: &mut Child) -> Result<Option<ExitStatus>> {
    Ok(child.try_wait().map_err(PathError::at("wait for", "the daemon"))?)
}

fn terminate(child: &Child) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, Signal::TERM);
    }
}

/// Runs the daemon until a signal comes.
fn run(home: Home, vmm: Vmm) -> Result<u8> {
    fireclaw_say::never_wait();
    // What it keeps is its owner's alone, sockets too from when they are made.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let log = home.root().join(LOG_FILE);
    logging::start(fireclaw_log::Options { format: None, file: Some(&log), filter: "info" })?;
    let (local, runtime) = (tokio::task::LocalSet::new(), runtime_with(stalls::watch)?);
    let ended = runtime.block_on_local(local, async {
        let mut signals = Signals::listen()?;
        tokio::select! {
            ended = serve(home, vmm) => ended,
            _ = signals.next() => {
                say!("fireclaw: daemon stopped; sandboxes keep running");
                Ok(0)
            }
        }
    });
    // A disk that is being copied is not waited for: it is copied anew the next time.
    runtime.shutdown_timeout(LAST_WORK);
    ended
}

async fn serve(home: Home, vmm: Vmm) -> Result<u8> {
    let claim = Claim::of(&home).map_err(daemon_error)?;
    let config = Config {
        chat: Arc::new(NoNetwork),
        owners: Owners::default(),
        vmm: vmm.into(),
        nick: "overseer".into(),
        control: "#control".into(),
        lobby: "#agents".into(),
        approval_time: Duration::from_secs(600),
        max_hops: 0,
        loop_pause: Duration::ZERO,
        limits: Limits::default(),
        model: ServerConfig {
            kind: ServerKind::default(),
            url: OLLAMA.into(),
            key: None,
            ca_file: None,
        },
        home,
    };
    let (daemon, _events) = Daemon::open(claim, config).map_err(daemon_error)?;
    let listener = api::listen(&daemon.config().home).map_err(daemon_error)?;
    stalls::start();
    let handle = daemon.handle();
    let ended: std::result::Result<(), _> = tokio::select! {
        never = daemon.serve() => match never {},
        never = listener.serve(&handle) => match never {},
        e = async { daemon.reconcile().await?; std::future::pending().await } => e,
    };
    daemon.release().await;
    ended.map(|()| 0).map_err(daemon_error)
}
