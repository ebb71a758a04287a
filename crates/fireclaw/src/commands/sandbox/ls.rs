//! `fireclaw ls`: the list of sandboxes.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use comfy_table::{Table, presets};
use fireclaw_daemon::{ListedSandbox, SandboxCondition};

use crate::commands::{print, print_json};
use crate::error::Result;

/// How much of a command is shown, in characters.
const COMMAND: usize = 30;

/// What is listed, and how.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// All, not only those that run
    #[arg(short, long)]
    all: bool,

    /// Print names only
    #[arg(short, long, conflicts_with = "json")]
    quiet: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Shows those of all that were asked for.
    pub fn show(&self, mut all: Vec<ListedSandbox>) -> Result<()> {
        all.retain(|sandbox| self.all || !sandbox.status.condition.is_over());
        if self.json {
            return print_json(&all);
        }
        if self.quiet {
            return all.iter().try_for_each(|sandbox| print(&sandbox.name));
        }
        print(&table(&all).to_string())
    }
}

fn table(all: &[ListedSandbox]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(["NAME", "IMAGE", "COMMAND", "STATUS", "PORTS"]);
    for sandbox in all {
        let ports = &sandbox.status.ports;
        table.add_row([
            sandbox.name.clone(),
            fireclaw_host::escape(&sandbox.config.image),
            command(&sandbox.config.command.join(" ")),
            status(sandbox),
            ports.join(" "),
        ]);
    }
    table
}

fn command(line: &str) -> String {
    let line = fireclaw_host::escape(line);
    match line.chars().count() > COMMAND {
        true => line.chars().take(COMMAND - 1).chain(['…']).collect(),
        false => line,
    }
}

/// How it is, and since when.
fn status(sandbox: &ListedSandbox) -> String {
    let condition = sandbox.status.condition;
    let word = condition.as_str();
    match (condition, sandbox.status.status) {
        (SandboxCondition::Running, _) => format!("{word}{}", since(sandbox.started, "")),
        (SandboxCondition::Exited | SandboxCondition::Restarting, Some(code)) => {
            format!("{word} ({code}){}", since(sandbox.ended, " ago"))
        }
        (SandboxCondition::Exited, None) if sandbox.status.problem.is_some() => {
            format!("{word} (VM lost){}", since(sandbox.ended, " ago"))
        }
        (SandboxCondition::Exited | SandboxCondition::Failed, _) => {
            format!("{word}{}", since(sandbox.ended, " ago"))
        }
        _ => word.to_owned(),
    }
}

fn since(time: Option<i64>, after: &str) -> String {
    let Some(time) = time.and_then(|time| u64::try_from(time).ok()) else { return String::new() };
    let passed = SystemTime::now().duration_since(UNIX_EPOCH + Duration::from_secs(time));
    let passed = passed.unwrap_or_default().as_secs();
    // One unit is enough to read.
    let rounded = [86_400, 3600, 60].into_iter().find(|unit| passed >= *unit);
    let shown = rounded.map_or(passed, |unit| passed / unit * unit);
    format!(" {}{after}", humantime::format_duration(Duration::from_secs(shown)))
}
