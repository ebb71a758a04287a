//! What the daemon is asked about named sandboxes.

use std::ffi::OsString;
use std::time::Duration;

use fireclaw_daemon::api::{Client, Kind as Of, NewSandbox, Problem, Stop};
use fireclaw_daemon::{ListedSandbox, Restart, SandboxConfig, SandboxStatus};
use fireclaw_image::Home;
use fireclaw_say::say;
use hyper::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::attended::{self, Attended};
use super::background;
use super::exec::Options;
use crate::error::{CliError, Kind, Result};
use crate::run::relay::Reads;
use crate::signals::Signals;

/// Asks the daemon, which is started if none runs.
pub struct Sandboxes(Client);

impl Sandboxes {
    /// Those of a home.
    pub async fn of(home: &Home) -> Result<Self> {
        background::ensure(home).await?;
        Ok(Self(Client::new(home.clone())))
    }

    /// Makes one; its name.
    pub async fn create(&self, name: Option<String>, config: SandboxConfig) -> Result<String> {
        let body = json(&NewSandbox { name, config })?;
        let made: Value = self.ask(Method::POST, "/v1/sandboxes", &body).await?;
        Ok(made["name"].as_str().unwrap_or_default().to_owned())
    }

    /// All of them.
    pub async fn list(&self) -> Result<Vec<ListedSandbox>> {
        self.ask(Method::GET, "/v1/sandboxes", &Value::Null).await
    }

    /// Runs a command in one; its exit status.
    pub async fn exec(&self, name: &str, how: Options, command: Vec<OsString>) -> Result<u8> {
        how.run(&self.0, &path(name, "/exec")?, command, refused).await
    }

    /// Starts one.
    pub async fn start(&self, name: &str) -> Result<()> {
        self.post(name, "start", &Value::Null).await
    }

    /// Stops one, or restarts it.
    pub async fn stop(&self, name: &str, what: &str, time: Duration) -> Result<()> {
        self.post(name, what, &Stop { seconds: Some(time.as_secs_f64()) }).await
    }

    /// Removes one.
    pub async fn remove(&self, name: &str, force: bool) -> Result<()> {
        let path = path(name, if force { "?force=true" } else { "" })?;
        self.ask::<Value>(Method::DELETE, &path, &Value::Null).await.map(drop)
    }

    /// Whether anything of one runs, or may by itself, as far as is known: no daemon is started
    /// to say so.
    pub async fn goes_on(home: &Home, name: &str) -> Result<bool> {
        let (client, path) = (Client::new(home.clone()), path(name, "")?);
        match client.ask::<ListedSandbox>(Method::GET, &path, &Value::Null).await {
            Ok(sandbox) => Ok(!sandbox.status.condition.is_over()),
            Err(Problem::Refused(refused)) => Ok(refused.kind != Of::UnknownSandbox),
            Err(_) => Ok(true),
        }
    }

    /// All that is known of one.
    pub async fn inspect(&self, name: &str) -> Result<ListedSandbox> {
        self.ask(Method::GET, &path(name, "")?, &Value::Null).await
    }

    /// Opens bash, or sh where there is none.
    pub async fn shell(
        &self,
        name: &str,
        user: Option<String>,
        workdir: Option<String>,
    ) -> Result<u8> {
        const SHELL: [&str; 3] =
            ["/bin/sh", "-c", "command -v bash >/dev/null && exec bash -l; exec sh -l"];
        let command = SHELL.map(OsString::from).to_vec();
        let options = Options::of_shell(user, workdir);
        self.exec(name, options, command).await
    }

    /// Attaches our streams to the command of one, which is started before if that is asked.
    pub async fn attach(&self, name: &str, start: bool, no_stdin: bool) -> Result<u8> {
        let config = self.inspect(name).await?.config;
        let mut signals = Signals::listen()?;
        let mut reads =
            Reads::of(config.terminal.is_some() && !no_stdin, no_stdin || !config.input)?;
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
    pub async fn wait(&self, name: &str, may_be_gone: bool) -> Result<Option<SandboxStatus>> {
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

    /// Has the daemon do something with one.
    pub async fn post(&self, name: &str, what: &str, body: &impl Serialize) -> Result<()> {
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
    let mut error = CliError::new(kind, problem.to_string());
    if let Problem::Refused(refused) = problem {
        error.exit_code = refused.status;
    }
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
