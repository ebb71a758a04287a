//! `fireclaw net check`: what network interfaces need, and VMs that try what they can reach.
//!
//! Nothing but this host is asked: two servers of our own, of which one is named to the
//! VM, and addresses at which nobody may answer.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use fireclaw_image::Home;
use fireclaw_net::NetworkMode;
use fireclaw_policy::{HOST_NAME, HostConfig, Network, Service};
use fireclaw_protocol::message::ExecRequest;
use fireclaw_sandbox::{Plan, SandboxSpec, Start};
use fireclaw_vm::Exec;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use super::super::doctor::check::{Check, Grade, fail, ok, table, warn};
use super::super::{print, print_json};
use crate::error::{CliError, Kind, Result};
use crate::machine::Host;
use crate::phases::Phases;
use crate::runtime::runtime;
use crate::signals::Signals;

/// Tries its arguments, `tcp:HOST:PORT` or `udp:HOST:PORT`, and says of each how it went.
const SCRIPT: &str = r#"
import socket, sys
for argument in sys.argv[1:]:
    kind, host, port = argument.split(",")
    try:
        s = socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
        s.settimeout(5)
        s.connect((host, int(port)))
        if kind == "udp":
            s.send(b"?")
        print("open" if s.recv(16) else "refused")
    except socket.timeout:
        print("silent")
    except OSError as e:
        print("refused" if e.errno else "unknown")
"#;

const BUG: &str = "this is a bug: please report it, and use --network none until it is mended";

/// What is tried: in words, how the script is told, and whether it is to be open.
type Attempt = (&'static str, String, bool);

/// Checks, and shows what was found.
pub fn execute(mode: NetworkMode, host: &Host, json: bool) -> Result<u8> {
    let home = Home::from_environment();
    let config = HostConfig::load(home.root()).map_err(fireclaw_net::Error::from)?;
    let mut checks = Vec::new();
    let mut policies = vec!["local", "allow", "full"];
    for fireclaw_net::Check { name, only, result } in fireclaw_net::check(mode, &config) {
        checks.push(match (result, only) {
            (Ok(found), _) => ok(name, found),
            (Err(error), None) => fail(name, error.to_string(), &error.hint().unwrap_or_default()),
            (Err(error), Some(policy)) => {
                policies.retain(|it| *it != policy);
                let hint = error.hint().unwrap_or_default();
                warn(name, format!("{error}: no policy {policy}, which is not tried"), &hint)
            }
        });
    }
    let is_good = |checks: &[Check]| checks.iter().all(|check| check.verdict != Grade::Fail);
    if is_good(&checks) {
        checks.extend(machines(&home, host, &config, &policies)?);
    }
    match json {
        true => print_json(&checks)?,
        false => print(&table(&checks))?,
    }
    Ok(u8::from(!is_good(&checks)))
}

/// One VM for each policy, which is named by its first word.
fn machines(
    home: &Home,
    host: &Host,
    config: &HostConfig,
    policies: &[&'static str],
) -> Result<Vec<Check>> {
    let spec = SandboxSpec::default();
    if let Err(fireclaw_image::Error::NotSetUp { .. }) =
        fireclaw_image::resolve(home, &spec.image, None)
    {
        let hint = "`fireclaw setup` once, then VMs try what they reach";
        return Ok(vec![warn("VMs", "not tried: setup has not run", hint)]);
    }
    let files = host.prepared(home, &spec)?;
    runtime()?.block_on(async {
        let mut signals = Signals::listen()?;
        let tried = async {
            let named = serve(Ipv4Addr::LOCALHOST).await?;
            let other = serve(Ipv4Addr::UNSPECIFIED).await?;
            let mut config = config.clone();
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, named));
            config.services.push(Service { name: "net check".into(), address });
            let allow = format!("allow:{HOST_NAME}:{named}");
            let mut checks = Vec::new();
            for &name in policies {
                let policy = if name == "allow" { &*allow } else { name };
                let policy = policy.parse().unwrap_or(Network::Local);
                let spec = SandboxSpec { network: policy, ..spec.clone() };
                let plan = host.plan(home, spec, files.clone(), None).await?;
                let attempts = attempts(&config, named, other);
                checks.push(attempt(home, &plan, name, &config, &attempts).await?);
            }
            Ok(checks)
        };
        tokio::select! {
            checks = tried => checks,
            signal = signals.next() => Err(CliError::interrupted(signal)),
        }
    })
}

fn attempts(config: &HostConfig, named: u16, other: u16) -> Vec<Attempt> {
    let at = |host: &str, port: u16| format!("tcp,{host},{port}");
    let gateway = config.gateway().to_string();
    let mut attempts = vec![
        ("a named service of this host", at(HOST_NAME, named), true),
        ("another service of this host", at(&gateway, other), false),
        ("metadata of a cloud", at("169.254.169.254", 80), false),
        ("a private address", at("10.255.255.1", 80), false),
        ("another resolver", "udp,192.168.255.53,53".into(), false),
    ];
    if let Some(address) = own_address() {
        attempts.push((
            "another service, by this host's address",
            at(&address.to_string(), other),
            false,
        ));
    }
    attempts
}

/// The address by which this host speaks with others. Nothing is sent.
fn own_address() -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // For documentation (RFC 5737): nobody is there.
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    match socket.local_addr().ok()? {
        SocketAddr::V4(address) => Some(*address.ip()),
        SocketAddr::V6(_) => None,
    }
}

/// A server that greets whoever comes; its port.
async fn serve(address: Ipv4Addr) -> Result<u16> {
    use tokio::io::AsyncWriteExt;
    let failed = |e: std::io::Error| CliError::new(Kind::System, format!("cannot listen: {e}"));
    let listener = TcpListener::bind((address, 0)).await.map_err(failed)?;
    let port = listener.local_addr().map_err(failed)?.port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"hello\n").await;
        }
    });
    Ok(port)
}

/// Starts a VM with a policy and has it try everything.
async fn attempt(
    home: &Home,
    plan: &Plan,
    name: &'static str,
    config: &HostConfig,
    attempts: &[Attempt],
) -> Result<Check> {
    let start = Start { network_config: Some(config), ..Start::default() };
    let sandbox = match plan.start(start, &mut Phases::start(false)).await {
        Ok(sandbox) => sandbox,
        Err(e @ fireclaw_sandbox::Error::Network(_)) => {
            return Ok(fail(name, CliError::from(e).text(), "the other policies do not need this"));
        }
        Err(e) => return Err(e.into()),
    };
    let owner = sandbox.network().map(|network| network.owner().to_owned());
    let words = ["python3", "-c", SCRIPT].into_iter();
    let words = words.chain(attempts.iter().map(|(_, told, _)| told.as_str()));
    let request = ExecRequest {
        argv: words.map(|word| word.as_bytes().to_vec().into()).collect(),
        timeout_ms: Some(120_000),
        ..ExecRequest::default()
    };
    let said = said(sandbox.guest.commands().exec(request).await.map_err(silent)?).await?;
    sandbox.end().await?;
    let outcomes: Vec<&str> = said.lines().collect();
    for (at, (what, _, is_open)) in attempts.iter().enumerate() {
        let outcome = outcomes.get(at).copied().unwrap_or("not tried");
        if outcome != if *is_open { "open" } else { "refused" } {
            return Ok(fail(name, format!("{what}: {}", fireclaw_host::escape(outcome)), BUG));
        }
    }
    let mode = NetworkMode::here();
    let left = fireclaw_net::list(&mode.state_directory(home.root()))?;
    if left.iter().any(|machine| Some(&machine.owner) == owner.as_ref()) {
        return Ok(fail(name, "something of it is left", "`fireclaw net prune` removes it"));
    }
    let found = format!("a VM reached what it may, and {} things not", attempts.len() - 1);
    Ok(ok(name, found))
}

/// What a command writes, up to a bound.
async fn said(exec: Exec) -> Result<String> {
    const MOST: u64 = 64 * 1024;
    let Exec { stdin, stdout, stderr, control: _control, events: _events } = exec;
    drop((stdin, stderr));
    let mut said = String::new();
    stdout.take(MOST).read_to_string(&mut said).await.map_err(silent)?;
    Ok(said)
}

fn silent(error: impl std::fmt::Display) -> CliError {
    CliError::new(Kind::Guest, format!("the VM did not answer: {error}"))
}
