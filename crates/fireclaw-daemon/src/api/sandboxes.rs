//! Requests about named sandboxes.

use std::time::Duration;

use fireclaw_protocol::message::ExecRequest;
use hyper::body::Incoming;
use hyper::{Method, Request};
use serde_json::{Value, json};

use super::request::{body, bounded, does_not_take, no_such, value};
use super::{Executed, Kind, NewSandbox, Refused, Rename, Signal, Stop};
use crate::{Actor, Handle, SandboxConfig, sandboxes};

/// How long a program has to end if nobody says more: as long as Docker gives it.
const GRACE: Duration = Duration::from_secs(10);

/// Answers a request below `/v1/sandboxes`.
pub async fn route(
    daemon: &Handle,
    who: &Actor,
    rest: &[&str],
    request: Request<Incoming>,
) -> Result<Value, Refused> {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    daemon.sandboxes_known().await?;
    match (&method, rest) {
        (&Method::GET, []) => value(&daemon.sandboxes().await?),
        (&Method::POST, []) => {
            let NewSandbox { name, config } = body(request).await?;
            check(&config)?;
            let name = daemon.create_sandbox(who, name, config).await?;
            Ok(json!({ "name": name }))
        }
        (&Method::GET, [name]) => value(&daemon.sandbox(name).await?),
        (&Method::DELETE, [name]) => {
            let force = uri.query() == Some("force=true");
            daemon.remove_sandbox(who, name, force).await?;
            Ok(Value::Null)
        }
        (&Method::POST, [name, "start"]) => {
            daemon.start_sandbox(who, name).await?;
            Ok(Value::Null)
        }
        (&Method::POST, [name, what @ ("stop" | "restart")]) => {
            let grace = grace(body(request).await?)?;
            daemon.stop_sandbox(who, name, grace).await?;
            if *what == "restart" {
                daemon.start_sandbox(who, name).await?;
            }
            Ok(Value::Null)
        }
        (&Method::POST, [name, "signal"]) => {
            let Signal { signal } = body(request).await?;
            daemon.signal_sandbox(who, name, signal.into()).await?;
            Ok(Value::Null)
        }
        (&Method::POST, [name, "rename"]) => {
            let Rename { name: to } = body(request).await?;
            daemon.rename_sandbox(who, name, &to).await?;
            Ok(Value::Null)
        }
        (&Method::GET, [name, "wait"]) => value(&daemon.wait_for_sandbox(name).await?),
        (&Method::POST, [name, "exec"]) => {
            let (request, limit) = bounded(body(request).await?)?;
            let (commands, request) = daemon.sandbox_commands(who, name, request).await?;
            let (status, output) = sandboxes::run(&commands, request, limit).await?;
            value(&Executed { status, output })
        }
        (_, [_, "attach"]) => {
            let problem = "it needs a POST whose connection is upgraded";
            Err(Refused::new(Kind::BadRequest, problem))
        }
        (_, [] | [_])
        | (_, [_, "start" | "stop" | "restart" | "signal" | "rename" | "wait" | "exec"]) => {
            Err(does_not_take(&method, uri.path()))
        }
        _ => Err(no_such(uri.path())),
    }
}

fn grace(stop: Stop) -> Result<Duration, Refused> {
    let wrong = |_| Refused::new(Kind::BadRequest, "seconds is no time");
    stop.seconds.map_or(Ok(GRACE), |seconds| Duration::try_from_secs_f64(seconds).map_err(wrong))
}

/// Refuses what no sandbox can be made from, before anything is made.
fn check(config: &SandboxConfig) -> Result<(), Refused> {
    use fireclaw_vm::MachineSpec;
    let bad = |problem: String| Err(Refused::new(Kind::BadRequest, problem));
    if !(1..=MachineSpec::MAX_CPUS).contains(&config.cpus) {
        return bad(format!("cpus must be 1 to {}", MachineSpec::MAX_CPUS));
    }
    if config.memory_mib < MachineSpec::MIN_MEMORY_MIB {
        return bad(format!("memory_mib must be {} at least", MachineSpec::MIN_MEMORY_MIB));
    }
    if !(SandboxConfig::MIN_DISK_MIB..=SandboxConfig::MAX_DISK_MIB).contains(&config.disk_mib) {
        return bad(format!(
            "disk_mib must be {} to {}",
            SandboxConfig::MIN_DISK_MIB,
            SandboxConfig::MAX_DISK_MIB
        ));
    }
    if let Some(user) = &config.user {
        fireclaw_protocol::id::check_user(user).or_else(|e| bad(format!("user {user}: {e}")))?;
    }
    // What the guest would refuse only when it is started.
    let request: Option<ExecRequest> = config.main().map(|main| main.command);
    let has_nul = request.is_some_and(|request| {
        request.argv.iter().any(|word| word.contains(&0))
            || request.env.iter().any(|it| it.name.contains(&0) || it.value.contains(&0))
    });
    let is_name = |name: &String| !name.is_empty() && !name.contains('=');
    if has_nul || !config.env.keys().all(is_name) {
        return bad("a word or a variable is not valid".into());
    }
    Ok(())
}
