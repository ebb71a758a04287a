//! Agents: how soon one is there, and what one costs that has nothing to do.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use comfy_table::Table;
use fireclaw_image::Home;
use fireclaw_sandbox::{Host, OwnDisk, SandboxSpec, Start};
use fireclaw_say::say;
use fireclaw_vm::Guest;
use serde::Serialize;

use super::spread::{Spread, ratio};
use super::{fireclaw, milliseconds, run_once};

/// The goals.
const JOIN_GOAL: f64 = 1.3;
const IDLE_GOAL_PERCENT: f64 = 1.0;

/// For how long idle ones are watched.
const IDLE: Duration = Duration::from_secs(60);

/// How long people wait for anything.
const TIMEOUT: Duration = Duration::from_secs(120);

/// The built-in agent, which asks no model until it is spoken to, in a VM like
/// that of `fireclaw run`.
const TEMPLATE: &str = "description = \"for bench\"\nmodel = \"none\"\nmemory = 256\n";
const WORKSPACE_MIB: u64 = 64;

#[derive(Debug, Serialize)]
pub struct Agents {
    /// From the connection to being in a channel.
    registration_ms: Spread,
    run_ms: Spread,
    join_ms: Spread,
    join_to_run_and_registration: f64,
    ready_ms: Spread,
    ready_to_run_and_registration: f64,
    idle: Idle,
}

/// Percents of a processor.
#[derive(Debug, Serialize)]
struct Idle {
    vmm: f64,
    overseer: f64,
    /// The same VM without an agent, in the same minute.
    machine: f64,
}

impl Agents {
    pub fn rows(&self, table: &mut Table) {
        let mut row = |what: &str, ms: String, ratio: String, goal: String| {
            table.add_row([what, &ms, &ratio, &goal]);
        };
        let registration = self.registration_ms.text();
        row("agent: registration on IRC (floor)", registration, String::new(), String::new());
        row("agent: run from the snapshot (floor)", self.run_ms.text(), "1".into(), String::new());
        row(
            "agent: `!invoke` until it is in its channel",
            self.join_ms.text(),
            format!("{:.2} of run and registration", self.join_to_run_and_registration),
            format!("≤ {JOIN_GOAL}"),
        );
        row(
            "agent: `!invoke` until its program is ready",
            self.ready_ms.text(),
            format!("{:.2} of run and registration", self.ready_to_run_and_registration),
            String::new(),
        );
        let Idle { vmm, overseer, machine } = self.idle;
        row(
            &format!("agent: idle for {} s", IDLE.as_secs()),
            format!("VMM {vmm:.2} %, overseer {overseer:.2} % of a processor"),
            format!("{:.2} % more than the VM alone ({machine:.2} %)", vmm + overseer - machine),
            format!("≤ {IDLE_GOAL_PERCENT} %"),
        );
    }
}

/// Measures agents in a home of their own that shares what was set up with `home`.
pub async fn measure(home: &Home, runs: usize) -> Result<Agents> {
    let overseer = Overseer::start(home)?;
    let mut person = Person::join(&overseer, "bench", &["#control", "#agents"])?;
    let (mut registrations, mut floors, mut joins, mut readies) = (vec![], vec![], vec![], vec![]);
    let (mut snapshots, mut idle) = (vec![], None);
    for n in 0..=runs {
        let start = Instant::now();
        drop(Person::join(&overseer, &format!("guest{n}"), &["#agents"])?);
        let registration = milliseconds(start);
        let run = run_once(&[])?;
        let name = format!("agent{n}");
        let start = Instant::now();
        person.say("#control", &format!("!invoke bench {name}"))?;
        person.until(&[&format!(":{name}!"), " JOIN "])?;
        let join = milliseconds(start);
        person.until(&["PRIVMSG #control :", &format!("{name} is ready")])?;
        let ready = milliseconds(start);
        if n == runs {
            idle = Some(self::idle(home, &overseer, &name).await?);
        }
        person.say("#control", &format!("!destroy {name}"))?;
        person.until(&["PRIVMSG #control :", &format!("{name} stopped")])?;
        // The first makes the snapshots.
        if n > 0 {
            ensure!(run.stderr.contains("fireclaw: restore"), "no snapshot: {}", run.stderr);
            say!("agent {n}/{runs}: run {:.0} ms, ready {ready:.0} ms", run.ms);
            registrations.push(registration);
            snapshots.push(run.ms);
            floors.push(run.ms + registration);
            joins.push(join);
            readies.push(ready);
        }
    }
    Ok(Agents {
        join_to_run_and_registration: ratio(&joins, &floors),
        ready_to_run_and_registration: ratio(&readies, &floors),
        registration_ms: Spread::of(registrations),
        run_ms: Spread::of(snapshots),
        join_ms: Spread::of(joins),
        ready_ms: Spread::of(readies),
        idle: idle.context("not a single run")?,
    })
}

/// Watches an idle agent and, at the same time, the same VM without one.
async fn idle(home: &Home, overseer: &Overseer, agent: &str) -> Result<Idle> {
    let machine = machine(home).await?;
    let pids =
        [overseer.vmm(agent)?, overseer.child.id(), machine.vmm_pid().context("the VM ended")?];
    let times = || pids.iter().map(|pid| processor_seconds(*pid)).collect::<Result<Vec<_>>>();
    // What just started has personalized.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (start, before) = (Instant::now(), times()?);
    tokio::time::sleep(IDLE).await;
    let (after, seconds) = (times()?, start.elapsed().as_secs_f64());
    machine.kill().await?;
    let percent = |n: usize| (after[n] - before[n]) / seconds * 100.0;
    Ok(Idle { vmm: percent(0), overseer: percent(1), machine: percent(2) })
}

/// A VM of an agent's shape in which nothing was started.
async fn machine(home: &Home) -> Result<Guest> {
    let blank = home.root().join(format!("cache/blank-{WORKSPACE_MIB}.img"));
    fs::File::create(&blank)?.set_len(WORKSPACE_MIB << 20)?;
    let disks = vec![OwnDisk { path: blank, mib: WORKSPACE_MIB }];
    let spec = SandboxSpec { disks, ..SandboxSpec::default() };
    let plan = Host::new(home.clone()).plan(spec).await?;
    Ok(plan.start(Start::default(), &mut ()).await?.guest)
}

/// What a process has used of all processors (proc(5), `stat`).
fn processor_seconds(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("no such process")?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
    let ticks: f64 = ticks.sum::<std::result::Result<_, _>>()?;
    Ok(ticks / rustix::param::clock_ticks_per_second() as f64)
}

/// An overseer in a home of its own, and all its VMs, for as long as this lives.
struct Overseer {
    home: tempfile::TempDir,
    port: u16,
    child: Child,
}

impl Overseer {
    fn start(shared: &Home) -> Result<Self> {
        let home = tempfile::Builder::new().prefix("fireclaw-bench").tempdir()?;
        for name in ["kernels", "images", "initramfs", "snapshots"] {
            symlink(shared.root().join(name), home.path().join(name))?;
        }
        for directory in ["cache", "templates"] {
            fs::create_dir(home.path().join(directory))?;
        }
        for file in ["manifest.json", "cache/host.json"] {
            fs::copy(shared.root().join(file), home.path().join(file))?;
        }
        fs::write(home.path().join("templates/bench.toml"), TEMPLATE)?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = fireclaw();
        command.env("FIRECLAW_HOME", home.path()).env("FIRECLAW_QUIET", "1");
        command.args(["overseer", "--port", &port.to_string()]);
        let child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let mut overseer = Self { home, port, child };
        let stderr = overseer.child.stderr.take().context("no standard error")?;
        let mut lines = BufReader::new(stderr).lines();
        let listens = lines.by_ref().map_while(|line| line.ok()).any(|l| l.contains("listens in"));
        ensure!(listens, "the overseer ended");
        std::thread::spawn(move || lines.for_each(drop));
        Ok(overseer)
    }

    /// The process id of an agent's VMM.
    fn vmm(&self, agent: &str) -> Result<u32> {
        let mut list = fireclaw();
        list.env("FIRECLAW_HOME", self.home.path()).args(["agent", "ls", "--json"]);
        let list: serde_json::Value = serde_json::from_slice(&list.output()?.stdout)?;
        let of = |entry: &&serde_json::Value| entry["name"] == agent;
        let found = list.as_array().and_then(|list| list.iter().find(of));
        let pid = found.and_then(|entry| entry["pid"].as_u64()).context("no VMM")?;
        Ok(u32::try_from(pid)?)
    }
}

impl Drop for Overseer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let machines = fs::read_dir(self.home.path().join("machines"));
        for machine in machines.into_iter().flatten().flatten() {
            if let Some(id) = machine.file_name().to_str() {
                fireclaw_vm::kill_marked(id);
            }
        }
    }
}

/// Somebody on IRC.
struct Person {
    socket: TcpStream,
    lines: BufReader<TcpStream>,
}

impl Person {
    /// Connects and joins.
    fn join(overseer: &Overseer, nick: &str, channels: &[&str]) -> Result<Self> {
        let password = fs::read_to_string(overseer.home.path().join("irc/password"))?;
        let socket = TcpStream::connect(("127.0.0.1", overseer.port))?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        let lines = BufReader::new(socket.try_clone()?);
        let mut person = Self { socket, lines };
        person.send(&format!("PASS {}", password.trim_end()))?;
        person.send(&format!("NICK {nick}\r\nUSER {nick} 0 * :{nick}"))?;
        person.until(&[" 376 "])?;
        for channel in channels {
            person.send(&format!("JOIN {channel}"))?;
            person.until(&[" 366 "])?;
        }
        Ok(person)
    }

    fn send(&mut self, line: &str) -> Result<()> {
        Ok(self.socket.write_all(format!("{line}\r\n").as_bytes())?)
    }

    fn say(&mut self, place: &str, text: &str) -> Result<()> {
        self.send(&format!("PRIVMSG {place} :{text}"))
    }

    /// Waits for a line with all of these words.
    fn until(&mut self, words: &[&str]) -> Result<()> {
        let deadline = Instant::now() + TIMEOUT;
        let mut line = Vec::new();
        while Instant::now() < deadline {
            line.clear();
            let n = self.lines.read_until(b'\n', &mut line).context("nothing comes on IRC")?;
            ensure!(n > 0, "the IRC server ended");
            let text = String::from_utf8_lossy(&line);
            if let Some(rest) = text.strip_prefix("PING") {
                let pong = format!("PONG{}", rest.trim_end());
                self.send(&pong)?;
            } else if words.iter().all(|word| text.contains(word)) {
                return Ok(());
            }
        }
        anyhow::bail!("waited in vain for {words:?}")
    }
}
