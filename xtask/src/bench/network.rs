//! Network interfaces: what they carry under each policy, against the same VMM on a bare
//! tap without any rule, and what it takes to make and to remove them.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use comfy_table::{Table, presets};
use fireclaw_image::Home;
use fireclaw_net::{Gateway, Interface, NetworkMode, Request};
use fireclaw_netlab::{Lab, ip};
use fireclaw_policy::{HostConfig, Network};
use fireclaw_protocol::hello;
use fireclaw_sandbox::{Host, Plan, SandboxSpec};
use fireclaw_say::{out, say};
use fireclaw_vm::{Guest, Memory, TapAttachment, Waiting};
use serde::{Deserialize, Serialize};

use super::clones::command;
use super::milliseconds;
use super::spread::{Spread, ratio};

/// The goals.
const RATIO_GOAL: &str = "≥ 0.95";
const OPEN_GOAL: &str = "≤ 10";

/// The server of the host and of the internet, and the latter's name and address.
const PORT: u16 = 5001;
const NAME: &str = "allowed.example";
const INTERNET: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// The host's side of the bare tap.
const BARE: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);

/// How much is sent each way, in bytes, and how often a byte goes there and back.
const BYTES: usize = 128 << 20;
const TURNS: usize = 200;

/// Between two interfaces of which the making is measured.
const APART: Duration = Duration::from_millis(300);

/// What a client asks the server for, as a connection's first byte: neither HTTP nor TLS.
const SEND: u8 = 1;
const RECEIVE: u8 = 2;
const ECHO: u8 = 3;

const CLIENT: &str = include_str!("traffic.py");

#[derive(Debug, Serialize, Deserialize)]
pub struct Networks {
    interfaces: Vec<Carried>,
    opening: Vec<Opening>,
}

/// What an interface carries to one place, and beside it what a bare tap does.
#[derive(Debug, Serialize, Deserialize)]
struct Carried {
    mode: NetworkMode,
    policy: String,
    to: To,
    /// Bytes for each second, out and in.
    out: Pair,
    back: Pair,
    /// Seconds for a byte there and back, and to connect.
    turn: Pair,
    connect: Pair,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum To {
    Host,
    Internet,
}

#[derive(Debug, Serialize, Deserialize)]
struct Pair {
    bare: Spread,
    interface: Spread,
    /// Of the better to the worse if it is the interface that is worse, pair by pair: 1 is as
    /// good, less is less.
    ratio: f64,
}

/// What an interface takes to be made and to be removed.
#[derive(Debug, Serialize, Deserialize)]
struct Opening {
    mode: NetworkMode,
    policy: String,
    open_ms: Spread,
    close_ms: Spread,
}

impl Networks {
    /// What interfaces carry, and what they take to be made.
    pub fn tables(&self) -> [Table; 2] {
        let mut carried = table([
            "interface / bare tap (ratio)",
            "out, MiB/s",
            "back, MiB/s",
            "there and back, µs",
            "connect, µs",
        ]);
        for Carried { mode, policy, to, out, back, turn, connect } in &self.interfaces {
            let to = match to {
                To::Host => "to the host",
                To::Internet => "to the internet",
            };
            carried.add_row([
                format!("`{policy}` {to}, {}", word(*mode)),
                out.text(1.0 / f64::from(1 << 20)),
                back.text(1.0 / f64::from(1 << 20)),
                turn.text(1e6),
                connect.text(1e6),
            ]);
        }
        carried.add_row(["goal", RATIO_GOAL, RATIO_GOAL, RATIO_GOAL, ""]);
        let mut opened = table(["interface", "make, ms", "remove, ms"]);
        for Opening { mode, policy, open_ms, close_ms } in &self.opening {
            let what = format!("`{policy}`, {}", word(*mode));
            opened.add_row([what, open_ms.text(), close_ms.text()]);
        }
        opened.add_row(["goal", OPEN_GOAL, ""]);
        [carried, opened]
    }
}

impl Pair {
    fn text(&self, unit: f64) -> String {
        let (interface, bare) = (self.interface.median * unit, self.bare.median * unit);
        format!("{interface:.0} / {bare:.0} ({:.2})", self.ratio)
    }
}

fn table<const COLUMNS: usize>(header: [&str; COLUMNS]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN).set_header(header);
    table
}

fn word(mode: NetworkMode) -> &'static str {
    match mode {
        NetworkMode::Host => "with root",
        NetworkMode::Namespace => "without",
    }
}

#[derive(Debug, clap::Args)]
pub struct LabArgs {
    runs: usize,
}

/// Measures in a network of its own, with an internet beside it.
pub fn measure(runs: usize) -> Result<Networks> {
    let output = fireclaw_netlab::inside(&std::env::current_exe()?)
        .args(["bench-network", &runs.to_string()])
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("unshare(1), of util-linux")?;
    ensure!(output.status.success(), "the measurement failed");
    serde_json::from_slice(&output.stdout).context("reading its figures")
}

/// What [`measure`] starts: the figures go to standard output.
pub fn in_lab(args: &LabArgs) -> Result<()> {
    let lab = fireclaw_netlab::build();
    serve(TcpListener::bind(("0.0.0.0", PORT))?);
    serve(lab.internet.namespace.run(|| TcpListener::bind((INTERNET, PORT)))?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let figures = runtime.block_on(all(&lab, args.runs))?;
    runtime.shutdown_background();
    out!("{}", serde_json::to_string(&figures)?)?;
    Ok(())
}

async fn all(lab: &Lab, runs: usize) -> Result<Networks> {
    let home = Home::from_environment();
    // Each VM's gateway has a policy of its own; the shape is that of any of them.
    let spec = SandboxSpec { network: Network::Local, ..SandboxSpec::default() };
    let plan = Host::new(home.clone()).plan(spec).await?;
    let bench = Bench { home, plan };
    let mut figures = Networks { interfaces: vec![], opening: vec![] };
    for mode in [NetworkMode::Host, NetworkMode::Namespace] {
        for policy in ["local", "allow", "full"] {
            figures.opening.push(bench.opening(mode, policy, runs).await?);
        }
    }
    lab.internet.namespace.run(|| ip("route add 10.99.0.0/24 via 192.0.2.2"));
    for mode in [NetworkMode::Host, NetworkMode::Namespace] {
        for (policy, to) in [
            ("local", To::Host),
            ("allow", To::Host),
            ("full", To::Host),
            ("allow", To::Internet),
            ("full", To::Internet),
        ] {
            figures.interfaces.push(bench.carried(mode, policy, to, runs).await?);
        }
    }
    Ok(figures)
}

struct Bench {
    home: Home,
    plan: Plan,
}

/// A VM on a bare tap, which goes after it.
struct Bare {
    guest: Guest,
    _plug: TapAttachment,
}

impl Bench {
    /// A VM on a tap that leads to the host, which forwards to the internet, without
    /// bridge, rules or translation.
    async fn bare(&self) -> Result<Bare> {
        let attachment = TapAttachment::Tap(fireclaw_net::bare_tap("bare0")?);
        ip(&format!("addr add {BARE}/24 dev bare0"));
        ip("link set bare0 up");
        let interface = hello::Interface {
            mac: [2, 0, 0, 0, 0, 9].into(),
            address: Ipv4Addr::new(10, 99, 0, 2),
            prefix: 24,
            gateway: BARE,
            resolver: BARE,
        };
        let guest = self.machine(&attachment, interface).await?;
        Ok(Bare { guest, _plug: attachment })
    }

    async fn machine(
        &self,
        attachment: &TapAttachment,
        interface: hello::Interface,
    ) -> Result<Guest> {
        let snapshot = self.plan.snapshot(Some(attachment), || ()).await?;
        let memory = Memory::RestoredFrom(&snapshot.directory);
        let launcher = self.plan.launcher();
        let machine = launcher.launch(memory, Some(attachment)).await?;
        let waiting = Waiting::meet(machine, launcher.timeout).await?;
        Ok(waiting.personalize("bench", Some(interface)).await?)
    }

    fn request(&self, mode: NetworkMode, policy: &str, directory: &Path) -> Result<Request> {
        let config = format!("[[service]]\nname = \"bench\"\naddress = \"127.0.0.1:{PORT}\"");
        let policy = match policy {
            "allow" => format!("allow:{NAME}:{PORT},host.fireclaw.internal:{PORT}"),
            other => other.to_owned(),
        };
        Ok(Request {
            policy: policy.parse().map_err(anyhow::Error::msg)?,
            config: HostConfig::parse(&config).map_err(anyhow::Error::msg)?,
            owner: "bench".into(),
            directory: directory.into(),
            mode,
            state: mode.state_directory(self.home.root()),
            attachment: self.plan.launcher().backend.capabilities().attachment,
            user: None,
        })
    }

    async fn open(&self, mode: NetworkMode, policy: &str, directory: &Path) -> Result<Gateway> {
        let program = crate::root().join("target/release/fireclaw");
        let request = self.request(mode, policy, directory)?;
        Ok(fireclaw_net::open(&program, &["gateway"], request).await?)
    }

    async fn opening(&self, mode: NetworkMode, policy: &str, runs: usize) -> Result<Opening> {
        let (mut opens, mut closes) = (vec![], vec![]);
        // The first is not counted: programs come from the disk.
        for n in 0..=runs {
            let directory = tempfile::tempdir()?;
            // The kernel takes the namespace of the one before apart in the background, and
            // nobody makes another meanwhile.
            tokio::time::sleep(APART).await;
            let start = Instant::now();
            let gateway = self.open(mode, policy, directory.path()).await?;
            let open = milliseconds(start);
            let start = Instant::now();
            gateway.close().await?;
            let close = milliseconds(start);
            if n > 0 {
                say!(
                    "{policy} {mode:?} {n}/{runs}: made in {open:.0} ms, removed in {close:.0} ms"
                );
                opens.push(open);
                closes.push(close);
            }
        }
        let (open_ms, close_ms) = (Spread::of(opens), Spread::of(closes));
        Ok(Opening { mode, policy: policy.into(), open_ms, close_ms })
    }

    async fn carried(
        &self,
        mode: NetworkMode,
        policy: &str,
        to: To,
        runs: usize,
    ) -> Result<Carried> {
        let directory = tempfile::tempdir()?;
        let gateway = self.open(mode, policy, directory.path()).await?;
        let Interface { gateway: host, .. } = gateway.interface();
        // Both are as old: what a VM has translated makes it faster.
        let bare = self.bare().await?;
        let guest = self.machine(gateway.attachment(), gateway.interface().into()).await?;
        let (bare_host, name) = match to {
            To::Host => (BARE.to_string(), host.to_string()),
            To::Internet => (INTERNET.to_string(), NAME.to_owned()),
        };
        // What else needs it opens and closes it as it needs.
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
        let (mut bares, mut interfaces) = (vec![], vec![]);
        for n in 0..=runs {
            // Whoever is second finds the processors warm.
            let (bare, interface) = if n % 2 == 0 {
                let bare = traffic(&bare.guest, &bare_host).await?;
                (bare, traffic(&guest, &name).await?)
            } else {
                let interface = traffic(&guest, &name).await?;
                (traffic(&bare.guest, &bare_host).await?, interface)
            };
            if n > 0 {
                say!("{policy} {to:?} {mode:?} {n}/{runs}: {bare:.4?} {interface:.4?}");
                bares.push(bare);
                interfaces.push(interface);
            }
        }
        bare.guest.kill().await?;
        guest.kill().await?;
        gateway.close().await?;
        let pair = |at: usize| {
            let of = |all: &[[f64; 4]]| all.iter().map(|one| one[at]).collect::<Vec<_>>();
            (of(&bares), of(&interfaces))
        };
        let times = |at| {
            let (bare, interface) = pair(at);
            Pair {
                ratio: ratio(&bare, &interface),
                bare: Spread::of(bare),
                interface: Spread::of(interface),
            }
        };
        let rates = |at| {
            let (bare, interface) = pair(at);
            let rate = |all: &[f64]| Spread::of(all.iter().map(|s| BYTES as f64 / s).collect());
            Pair { ratio: ratio(&bare, &interface), bare: rate(&bare), interface: rate(&interface) }
        };
        Ok(Carried {
            mode,
            policy: policy.into(),
            to,
            out: rates(0),
            back: rates(1),
            turn: times(2),
            connect: times(3),
        })
    }
}

/// What the guest measured, in seconds: out, back, there and back, connect.
async fn traffic(guest: &Guest, host: &str) -> Result<[f64; 4]> {
    let (bytes, turns, port) = (BYTES.to_string(), TURNS.to_string(), PORT.to_string());
    let said = command(guest, &["python3", "-c", CLIENT, host, &port, &bytes, &turns]).await?;
    let figures: Vec<f64> =
        said.split_whitespace().map(str::parse).collect::<Result<_, _>>().context("its figures")?;
    figures.try_into().map_err(|_| anyhow::anyhow!("not four figures: {said}"))
}

/// Serves for as long as this process lives, each connection in a thread.
fn serve(listener: TcpListener) {
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(stream));
        }
    });
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut kind = [0];
    stream.read_exact(&mut kind)?;
    let mut buffer = vec![0; 256 << 10];
    match kind[0] {
        // Says that all is there.
        SEND => {
            while stream.read(&mut buffer)? > 0 {}
            stream.write_all(&kind)
        }
        RECEIVE => {
            for _ in 0..BYTES / buffer.len() {
                stream.write_all(&buffer)?;
            }
            stream.shutdown(Shutdown::Both)
        }
        ECHO => {
            while stream.read(&mut kind)? > 0 {
                stream.write_all(&kind)?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}
