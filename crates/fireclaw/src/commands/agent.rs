//! `fireclaw agent`: what the overseer's agents are told from a shell.

mod exec;

use std::time::Duration;

use clap::Subcommand;
use comfy_table::{Table, presets};
use fireclaw_daemon::Condition;
use fireclaw_daemon::api::{Client, NewAgent, Problem};
use fireclaw_image::Home;
use hyper::Method;
use serde_json::Value;

use super::{print, print_json};
use crate::error::{CliError, Kind, Result};
use crate::runtime::runtime;

/// Manage the overseer's agents
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fireclaw agent start worker
  fireclaw agent start coder --name bob --model qwen2.5-coder:14b
  fireclaw agent ls
  fireclaw agent logs bob -f
  fireclaw agent exec bob -- ls -la /workspace
  fireclaw agent stop bob                keeps its workspace for the next bob
  fireclaw agent rm bob                  removes that too")]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Start an agent from a template
    Start {
        /// The template, see `fireclaw template ls`
        template: String,
        /// Name and nick of the agent [default: the template's]
        #[arg(long)]
        name: Option<String>,
        /// Model [default: the template's]
        #[arg(long)]
        model: Option<String>,
    },
    /// Stop an agent and keep its workspace
    Stop {
        /// The agent
        name: String,
    },
    /// Remove a stopped agent's workspace, memories and log
    Rm {
        /// The agents
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        /// Stop running agents first
        #[arg(short, long)]
        force: bool,
    },
    /// Pause an agent's VM; messages wait until it resumes
    Pause {
        /// The agent
        name: String,
    },
    /// Resume a paused agent, or restart a failed one
    Resume {
        /// The agent
        name: String,
    },
    /// List agents
    #[command(alias = "list")]
    Ls {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show the last lines of an agent's log
    Logs {
        /// The agent
        name: String,
        /// Number of lines
        #[arg(short = 'n', long, default_value_t = 50)]
        lines: usize,
        /// Follow the log
        #[arg(short, long)]
        follow: bool,
    },
    Exec(exec::Args),
}

impl Args {
    /// Whether the exit status is that of a command in the guest.
    pub fn is_exec(&self) -> bool {
        matches!(self.action, Action::Exec(_))
    }
}

/// Does what was asked.
pub fn execute(args: Args) -> Result<u8> {
    let client = Client::new(Home::from_environment());
    let runtime = runtime()?;
    let done = runtime.block_on(async {
        match args.action {
            Action::Start { template, name, model } => {
                let body = json(&NewAgent { template, name, model })?;
                let made: Value = ask(&client, Method::POST, "/v1/agents", &body).await?;
                print(made["name"].as_str().unwrap_or_default()).map(|()| 0)
            }
            Action::Stop { name } => delete(&client, &name, "").await.map(|()| 0),
            Action::Rm { names, force } => {
                for name in &names {
                    remove(&client, name, force).await?;
                }
                Ok(0)
            }
            Action::Pause { name } => post(&client, &name, "pause").await,
            Action::Resume { name } => post(&client, &name, "resume").await,
            Action::Ls { json } => {
                let list: Value = ask(&client, Method::GET, "/v1/agents", &Value::Null).await?;
                if json { print_json(&list) } else { print(&table(&list).to_string()) }.map(|()| 0)
            }
            Action::Logs { name, lines, follow } => logs(&client, &name, lines, follow).await,
            Action::Exec(args) => exec::execute(&client, args).await,
        }
    });
    // Reading standard input cannot be interrupted: do not wait for it.
    runtime.shutdown_background();
    done
}

async fn delete(client: &Client, name: &str, what: &str) -> Result<()> {
    let path = format!("/v1/agents/{}{what}", segment(name)?);
    ask::<Value>(client, Method::DELETE, &path, &Value::Null).await.map(drop)
}

/// Removes what an agent left, after it was stopped if need be.
async fn remove(client: &Client, name: &str, force: bool) -> Result<()> {
    let path = format!("/v1/agents/{}/workspace", segment(name)?);
    let removed = client.ask::<Value>(Method::DELETE, &path, &Value::Null).await;
    match removed {
        Err(Problem::Refused(refused))
            if force && refused.kind == fireclaw_daemon::api::Kind::Running =>
        {
            delete(client, name, "").await?;
            delete(client, name, "/workspace").await
        }
        removed => removed.map(drop).map_err(|problem| refused(&problem)),
    }
}

/// Has the overseer do something with an agent.
async fn post(client: &Client, name: &str, what: &str) -> Result<u8> {
    let path = format!("/v1/agents/{}/{what}", segment(name)?);
    let _: Value = ask(client, Method::POST, &path, &Value::Null).await?;
    Ok(0)
}

async fn logs(client: &Client, name: &str, lines: usize, follow: bool) -> Result<u8> {
    const LOOK: Duration = Duration::from_millis(500);
    let path = format!("/v1/agents/{}/logs?lines=", segment(name)?);
    let mut last: Vec<String> =
        ask(client, Method::GET, &format!("{path}{lines}"), &Value::Null).await?;
    for line in &last {
        print(line)?;
    }
    if !follow {
        return Ok(0);
    }
    loop {
        tokio::time::sleep(LOOK).await;
        let now: Vec<String> =
            ask(client, Method::GET, &format!("{path}1000"), &Value::Null).await?;
        // What comes after the last line that was shown.
        let from = last.last().and_then(|shown| now.iter().rposition(|line| line == shown));
        for line in now.iter().skip(from.map_or(0, |at| at + 1)) {
            print(line)?;
        }
        last = now;
    }
}

fn table(list: &Value) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header([
        "NAME",
        "NICK",
        "TEMPLATE",
        "MODEL",
        "CONDITION",
        "RESTARTS",
        "CHANNELS",
    ]);
    for agent in list.as_array().into_iter().flatten() {
        let text = |key: &str| fireclaw_host::escape(agent[key].as_str().unwrap_or_default());
        let channels = agent["channels"].as_array().into_iter().flatten();
        let channels: Vec<&str> = channels.filter_map(Value::as_str).collect();
        table.add_row([
            text("name"),
            text("nick"),
            text("template"),
            text("model"),
            text("condition"),
            agent["restarts"].to_string(),
            channels.join(" "),
        ]);
    }
    table
}

async fn ask<T: serde::de::DeserializeOwned>(
    client: &Client,
    method: Method,
    path: &str,
    body: &Value,
) -> Result<T> {
    client.ask(method, path, body).await.map_err(|problem| refused(&problem))
}

/// Why the overseer does not do something, with what can be done about it from a shell.
fn refused(problem: &Problem) -> CliError {
    use fireclaw_daemon::api::Kind as Of;
    let (kind, hint) = match problem {
        Problem::NoOverseer { .. } => (Kind::Host, Some("start one: fireclaw overseer")),
        Problem::Refused(refused) => match (refused.kind, refused.condition) {
            (Of::NotNow, Some(Condition::Paused)) => {
                (Kind::System, Some("let it go on: fireclaw agent resume NAME"))
            }
            (Of::NotNow, Some(Condition::Failed)) => (
                Kind::System,
                Some(
                    "`fireclaw logs NAME` tells more; `fireclaw agent resume NAME` tries again, \
                     `fireclaw agent stop NAME` ends it",
                ),
            ),
            (Of::NotNow, _) => {
                (Kind::System, Some("wait until it is ready: fireclaw agent ls shows it"))
            }
            (Of::Running, _) => (
                Kind::System,
                Some("stop it first: fireclaw agent stop NAME, or fireclaw agent rm --force NAME"),
            ),
            (Of::NameTaken, _) => (Kind::Usage, Some("give it another one with --name")),
            (Of::BadRequest | Of::Template, _) => (Kind::Usage, None),
            _ => (Kind::System, None),
        },
        Problem::Broken(_) => (Kind::System, None),
    };
    let error = CliError::new(kind, problem.to_string());
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// A name as a part of a path: agents' names need no escaping.
fn segment(name: &str) -> Result<&str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if !name.is_empty() && name.chars().all(plain) {
        return Ok(name);
    }
    Err(CliError::usage(format!("{name:?} is not a valid agent name")))
}

fn json(value: &impl serde::Serialize) -> Result<Value> {
    serde_json::to_value(value).map_err(|e| CliError::new(Kind::System, e.to_string()))
}
