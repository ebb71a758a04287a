//! `fireclaw logs`: what the overseer and the agents logged.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fireclaw_host::PathError;
use fireclaw_image::Home;
use fireclaw_log::file::Reader;
use fireclaw_template::names;

use super::overseer::LOG_FILE;
use super::print;
use crate::error::{CliError, Kind, Result};

/// How often a log that is followed is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// Show the overseer's log, or an agent's
///
/// Works without a running overseer, and for agents that are gone. Under systemd, the journal
/// also has the overseer's log, with structured fields.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fireclaw logs                      the last lines of the overseer's log
  fireclaw logs -f                   follow it
  fireclaw logs worker -n 200        the last 200 lines of the agent worker
  journalctl -u fireclaw-overseer FIRECLAW_AGENT=worker")]
pub struct Args {
    /// Agent; without it, the overseer
    name: Option<String>,
    /// Number of lines
    #[arg(short = 'n', long, value_name = "LINES", default_value_t = 50)]
    lines: usize,
    /// Follow the log, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
}

/// Shows it.
pub fn execute(args: &Args) -> Result<u8> {
    let home = Home::from_environment();
    let path = match &args.name {
        None => home.root().join(LOG_FILE),
        Some(name) => of_agent(&home, name)?,
    };
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
        show(&reader.more().map_err(PathError::at("read", &path))?)?;
    }
}

fn show(lines: &[String]) -> Result<()> {
    lines.iter().try_for_each(|line| print(line))
}

/// Where an agent's log is.
fn of_agent(home: &Home, name: &str) -> Result<PathBuf> {
    names::check_agent(name).map_err(|e| CliError::usage(format!("{name:?}: {e}")))?;
    let agents = home.root().join("agents");
    let path = log_of(&agents, name);
    if path.exists() {
        return Ok(path);
    }
    let error = CliError::new(Kind::Host, format!("no agent {name} has a log"));
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
