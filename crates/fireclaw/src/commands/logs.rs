//! `fireclaw logs`: what the overseer and the agents logged.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fireclaw_daemon::STATE;
use fireclaw_host::PathError;
use fireclaw_image::Home;
use fireclaw_log::file::Reader;
use fireclaw_template::names;

use super::overseer::LOG_FILE;
use super::print;
use crate::error::{CliError, Kind, Result};

/// How often a log that is followed is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// Show what a sandbox's command wrote, or the log of an agent or of the overseer
///
/// Works without a running overseer for agents, also those that are gone. Under systemd, the journal
/// also has the overseer's log, with structured fields.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fireclaw logs                      the last lines of the overseer's log
  fireclaw logs -f                   follow it
  fireclaw logs worker -n 200        the last 200 lines of the agent worker
  fireclaw logs -f web               follow what the command of the sandbox web writes
  journalctl -u fireclaw-overseer FIRECLAW_AGENT=worker")]
pub struct Args {
    /// Sandbox or agent; without it, the overseer
    name: Option<String>,
    /// Number of lines
    #[arg(short = 'n', long, value_name = "LINES", default_value_t = 50)]
    lines: usize,
    /// Follow the log, until Ctrl-C or the end of the sandbox
    #[arg(short, long)]
    follow: bool,
    /// Show when each line of a sandbox was written, which the others always do
    #[arg(short, long)]
    timestamps: bool,
}

/// Shows it.
pub fn execute(args: &Args) -> Result<u8> {
    let home = Home::from_environment();
    let (path, is_sandbox) = match &args.name {
        None => (home.root().join(LOG_FILE), false),
        Some(name) => find(&home, name)?,
    };
    let show = |lines: &[String]| show(lines, is_sandbox && !args.timestamps);
    if args.name.is_none() && !path.exists() && !args.follow {
        return Err(CliError::new(Kind::Host, format!("there is no log in {}", path.display()))
            .hint("the overseer creates it: fireclaw overseer"));
    }
    let mut reader = Reader::new(&path);
    show(&reader.last(args.lines).map_err(PathError::at("read", &path))?)?;
    if !args.follow {
        return Ok(0);
    }
    loop {
        std::thread::sleep(LOOK);
        // What a sandbox wrote last is there once it is over.
        let is_over = match &args.name {
            Some(name) if is_sandbox => !super::sandbox::goes_on(&home, name)?,
            _ => false,
        };
        show(&reader.more().map_err(PathError::at("read", &path))?)?;
        if is_over {
            return Ok(0);
        }
    }
}

fn show(lines: &[String], without_time: bool) -> Result<()> {
    lines.iter().try_for_each(|line| match line.split_once("Z ") {
        Some((_, text)) if without_time => print(text),
        _ => print(line),
    })
}

/// Where the log of an agent or a sandbox is, and whether it is a sandbox's.
fn find(home: &Home, name: &str) -> Result<(PathBuf, bool)> {
    names::check_agent(name).map_err(|e| CliError::usage(format!("{name:?}: {e}")))?;
    let agents = home.root().join("agents");
    let path = log_of(&agents, name);
    if path.exists() {
        return Ok((path, false));
    }
    // Only a daemon knows the names of sandboxes.
    if home.root().join(STATE).exists()
        && let Ok(path) = super::sandbox::log_of(home, name)
    {
        return Ok((path, true));
    }
    let error = CliError::new(Kind::Host, format!("no agent or sandbox {name} has a log"));
    Err(match known(&agents)[..] {
        [] => error.hint("no agent has been started yet: fireclaw agent start TEMPLATE"),
        ref names => error.hint(format!("there are logs of: {}", names.join(", "))),
    })
}

fn log_of(agents: &Path, name: &str) -> PathBuf {
    agents.join(name).join("agent.log")
}

/// The agents that have a log.
fn known(agents: &Path) -> Vec<String> {
    let entries = fs::read_dir(agents).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<_> = names
        .filter(|name| names::check_agent(name).is_ok() && log_of(agents, name).exists())
        .collect();
    names.sort();
    names
}
