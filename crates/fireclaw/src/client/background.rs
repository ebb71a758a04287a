//! The daemon in the background: found, started, ended.

use std::fs::File;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fireclaw_daemon::Claim;
use fireclaw_daemon::api::{About, Client, Problem};
use fireclaw_host::PathError;
use fireclaw_image::Home;
use fireclaw_say::say;
use hyper::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::error::{CliError, Kind, Result};

/// How long a daemon may take to start, and to end.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How often it is looked whether it has.
const LOOK: Duration = Duration::from_millis(20);

/// What a daemon in the background says before it has a log.
const SAID: &str = "daemon.stderr";

/// The daemon that runs, if one does.
pub async fn about(home: &Home) -> Result<Option<About>> {
    let client = Client::new(home.clone());
    match client.ask(Method::GET, "/v1/daemon", &Value::Null).await {
        Ok(about) => Ok(Some(about)),
        Err(Problem::NoOverseer { .. }) => Ok(None),
        Err(problem) => Err(CliError::new(Kind::System, problem.to_string())),
    }
}

/// Sees to it that a daemon runs.
pub async fn ensure(home: &Home) -> Result<About> {
    if let Some(about) = about(home).await? {
        return Ok(about);
    }
    home.make_private()?;
    let said = home.root().join(SAID);
    let file = File::create(&said).map_err(PathError::at("create", &said))?;
    let program = std::env::current_exe().map_err(PathError::at("find", "this program"))?;
    let mut command = Command::new(program);
    command
        .args(["daemon", "run", "--supervised"])
        .env("FIRECLAW_HOME", home.root())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(file);
    let mut child = command.spawn().map_err(PathError::at("start", "the daemon"))?;
    let start = Instant::now();
    loop {
        if let Some(about) = about(home).await? {
            return Ok(about);
        }
        let has_ended = child.try_wait().ok().flatten().is_some();
        if has_ended || start.elapsed() > TIMEOUT {
            // Somebody else may have started one at the same time.
            if let Some(about) = about(home).await? {
                return Ok(about);
            }
            let text = std::fs::read_to_string(&said).unwrap_or_default();
            return Err(CliError::new(Kind::System, "the daemon does not start")
                .detail("its last words", text)
                .hint("`fireclaw daemon run` shows more"));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Ends a daemon, and waits until its home is free.
pub fn end(home: &Home, pid: u32) -> Result<()> {
    let failed = |e| CliError::new(Kind::System, format!("cannot stop process {pid}: {e}"));
    let process = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let process = process.ok_or_else(|| failed(rustix::io::Errno::SRCH))?;
    kill_process(process, Signal::TERM).map_err(failed)?;
    let start = Instant::now();
    while let Err(fireclaw_daemon::Error::AlreadyRuns { .. }) = Claim::of(home) {
        if start.elapsed() > TIMEOUT {
            let problem = format!("process {pid} does not end");
            return Err(CliError::new(Kind::System, problem));
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// Ends a daemon in the background, since an overseer does its work from now on.
pub async fn make_way(home: &Home) -> Result<()> {
    match about(home).await {
        Ok(Some(About { pid, overseer: false, .. })) => {
            say!("fireclaw: takes over from the daemon, process {pid}");
            end(home, pid)
        }
        _ => Ok(()),
    }
}
