//! `fireclaw doctor --prove`: what clones of one snapshot have in common, which is nothing.
//!
//! All clones run at the same time. In each, a script tells what it finds at its
//! very first call, and then answers questions.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fireclaw_image::Home;
use fireclaw_protocol::message::ExecRequest;
use fireclaw_protocol::session::Channel;
use fireclaw_sandbox::{Plan, SandboxSpec, Start};
use fireclaw_vm::{Exec, Guest, Launcher};
use futures_util::future::{join_all, try_join_all};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use super::check::{Check, fail, ok, warn};
use crate::error::{CliError, Kind, Result};
use crate::machine::Host;
use crate::phases::Phases;
use crate::runtime::runtime;
use crate::signals::Signals;

/// How many clones are started.
const CLONES: usize = 8;

/// How far a clone's clock may be from the host's, in milliseconds.
const CLOCK_GOAL_MS: f64 = 50.0;

/// What an idle clone beyond the first may take, in MiB of proportional set
/// size (proc(5), `smaps_rollup`). Emulation translates the guest's code anew
/// in every clone, and that is most of it.
const PSS_GOAL_MIB: (f64, f64) = (8.0, 38.0);

/// What every clone must have of its own, by the key in the script's answer.
const RANDOM: [&str; 5] = ["getrandom", "urandom", "python", "uuid4", "kernel_uuid"];
const IDENTITY: [&str; 3] = ["hostname", "machine_id", "boot_id"];

const SCRIPT: &str = r#"
import os
first = os.getrandom(16).hex()
import json, random, sys, time, uuid
read = lambda path: open(path).read().strip()
print(json.dumps({
    "getrandom": first,
    "urandom": open("/dev/urandom", "rb").read(16).hex(),
    "python": str(random.random()),
    "uuid4": str(uuid.uuid4()),
    "kernel_uuid": read("/proc/sys/kernel/random/uuid"),
    "hostname": os.uname().nodename,
    "machine_id": read("/etc/machine-id"),
    "boot_id": read("/proc/sys/kernel/random/boot_id"),
    "kernel": os.uname().release,
}), flush=True)
places = ["/proof", "/etc/proof", "/root/proof", "/tmp/proof", "/dev/shm/proof"]
for line in sys.stdin:
    word, _, rest = line.strip().partition(" ")
    if word == "time":
        print(json.dumps([time.time_ns(), time.monotonic_ns()]), flush=True)
    elif word == "write":
        for place in places:
            open(place, "w").write(rest)
        os.sync()
        print("[]", flush=True)
    elif word == "read":
        print(json.dumps([read(p) for p in places if os.path.exists(p)]), flush=True)
"#;

/// Starts clones and says what was found.
pub fn prove(home: &Home, host: &Host) -> Result<Vec<Check>> {
    let spec = SandboxSpec::default();
    let files = host.prepared(home, &spec)?;
    let image = files.rootfs.clone();
    runtime()?.block_on(async {
        let mut signals = Signals::listen()?;
        let proof = async {
            let plan = host.plan(home, spec, files, None).await?;
            plan.needs_snapshots()?;
            let before = Held::now(home);
            let stamp = || fs::metadata(&image).map(|m| (m.len(), m.ctime(), m.ctime_nsec())).ok();
            let untouched = stamp();
            let mut checks = clones(&plan).await?;
            checks.push(match stamp() == untouched {
                true => ok("base image", "not touched"),
                false => fail("base image", "it was changed meanwhile", "run `fireclaw setup`"),
            });
            checks.push(before.compare(&Held::personalized(home, &before).await));
            Ok(checks)
        };
        tokio::select! {
            checks = proof => checks,
            signal = signals.next() => Err(CliError::interrupted(signal)),
        }
    })
}

async fn clones(plan: &Plan) -> Result<Vec<Check>> {
    let number = CLONES.min(plan.limit().sandboxes);
    let start =
        async || plan.start(Start::default(), &mut Phases::start(false)).await.map(|it| it.guest);
    let first = start().await?;
    let alone = pss_kib(&first);
    let others = try_join_all((1..number).map(|_| start())).await?;
    let mut guests = vec![first];
    guests.extend(others);
    let total: Option<u64> = guests.iter().map(pss_kib).sum();
    let mut checks = vec![pss(plan.launcher(), alone, total, number)];

    let mut told = try_join_all(guests.iter().map(Told::by)).await?;
    checks.extend(clock(&mut told).await?);
    checks.push(all_differ("randomness", &told, &RANDOM));
    checks.push(all_differ("identity", &told, &IDENTITY));
    let host_kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let kernel = told[0].text("kernel");
    checks
        .push(ok("kernel", format!("{kernel} in the guests, {} on the host", host_kernel.trim())));

    for (n, clone) in told.iter_mut().enumerate() {
        clone.ask(&format!("write clone {n}")).await?;
    }
    let mut mixed = 0;
    for (n, clone) in told.iter_mut().enumerate() {
        let read = clone.ask("read").await?;
        let own = serde_json::json!(vec![format!("clone {n}"); 5]);
        mixed += usize::from(read != own);
    }
    let later = start().await?;
    let seen = Told::by(&later).await?.ask("read").await?;
    guests.push(later);
    checks.push(match (mixed, seen.as_array().is_some_and(Vec::is_empty)) {
        (0, true) => {
            ok("disks", format!("{number} clones wrote; none sees another's, nor a later one"))
        }
        (0, false) => fail("disks", "a later clone sees what an earlier one wrote", BUG),
        (n, _) => fail("disks", format!("{n} clones see what others wrote"), BUG),
    });
    drop(told);
    for killed in join_all(guests.into_iter().map(Guest::kill)).await {
        killed?;
    }
    Ok(checks)
}

const BUG: &str = "this is a bug: please report it, and use --no-snapshot until it is mended";

/// What a clone's script said, and the way to ask it more.
struct Told {
    first: serde_json::Value,
    stdin: Channel,
    stdout: BufReader<Channel>,
    // Closing them would end the script.
    _rest: (Channel, fireclaw_vm::ExecControls, fireclaw_vm::ExecEvents),
}

impl Told {
    async fn by(guest: &Guest) -> Result<Self> {
        let argv = ["python3", "-c", SCRIPT].map(|word| word.as_bytes().to_vec().into());
        let request = ExecRequest { argv: argv.into(), ..ExecRequest::default() };
        let exec = guest.commands().exec(request).await;
        let Exec { stdin, stdout, stderr, control, events } = exec.map_err(silent)?;
        let (first, stdout) = (serde_json::Value::Null, BufReader::new(stdout));
        let mut told = Self { first, stdin, stdout, _rest: (stderr, control, events) };
        told.first = told.answer().await?;
        Ok(told)
    }

    async fn ask(&mut self, question: &str) -> Result<serde_json::Value> {
        let sent = async {
            self.stdin.write_all(format!("{question}\n").as_bytes()).await?;
            self.stdin.flush().await
        };
        sent.await.map_err(silent)?;
        self.answer().await
    }

    async fn answer(&mut self) -> Result<serde_json::Value> {
        const MAX: u64 = 64 * 1024;
        let mut line = String::new();
        (&mut self.stdout).take(MAX).read_line(&mut line).await.map_err(silent)?;
        serde_json::from_str(&line).map_err(silent)
    }

    fn text(&self, key: &str) -> String {
        fireclaw_host::escape(self.first[key].as_str().unwrap_or_default())
    }
}

fn silent(error: impl std::fmt::Display) -> CliError {
    CliError::new(Kind::Guest, format!("a clone did not answer: {error}"))
        .hint("the base image needs python3 for this; `fireclaw setup --force` rebuilds it")
}

fn all_differ(name: &'static str, told: &[Told], keys: &[&str]) -> Check {
    for key in keys {
        let seen: HashSet<_> = told.iter().map(|clone| clone.text(key)).collect();
        if seen.len() != told.len() || seen.contains("") {
            return fail(name, format!("{key} is the same in two clones, or empty"), BUG);
        }
    }
    ok(name, format!("{} differ in {} clones", keys.join(", "), told.len()))
}

/// Compares clocks: of several questions, the one answered fastest says most.
async fn clock(told: &mut [Told]) -> Result<Vec<Check>> {
    const QUESTIONS: usize = 5;
    let (mut furthest, mut certainty): (f64, f64) = (0.0, 0.0);
    let mut backwards = 0;
    for clone in told {
        let mut best = (f64::MAX, 0.0);
        let mut last = 0;
        for _ in 0..QUESTIONS {
            let before = now_ms();
            let answer = clone.ask("time").await?;
            let after = now_ms();
            let wall = answer[0].as_f64().unwrap_or(f64::NAN) / 1e6;
            let monotonic = answer[1].as_u64().unwrap_or(0);
            backwards += usize::from(monotonic < last);
            last = monotonic;
            if after - before < best.0 {
                best = (after - before, wall - f64::midpoint(before, after));
            }
        }
        if best.1.abs() > furthest.abs() || best.1.is_nan() {
            furthest = best.1;
        }
        certainty = certainty.max(best.0 / 2.0);
    }
    let found = format!("at most {:.1} ms from the host's (± {certainty:.1} ms)", furthest.abs());
    let wall = match furthest.abs() <= CLOCK_GOAL_MS {
        true => ok("wall clock", found),
        false => fail("wall clock", found, "is this host overloaded? try again"),
    };
    let monotonic = match backwards {
        0 => ok("monotonic clock", "never went back"),
        n => fail("monotonic clock", format!("went back {n} times"), BUG),
    };
    Ok(vec![wall, monotonic])
}

fn now_ms() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64() * 1e3
}

fn pss_kib(guest: &Guest) -> Option<u64> {
    let path = format!("/proc/{}/smaps_rollup", guest.vmm_pid()?);
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn pss(launcher: &Launcher, alone: Option<u64>, total: Option<u64>, number: usize) -> Check {
    let (Some(alone), Some(total), 2..) = (alone, total, number) else {
        return warn("memory", "the kernel does not tell (smaps_rollup)", "try it as root");
    };
    let each = total.saturating_sub(alone) as f64 / 1024.0 / (number - 1) as f64;
    let hardware = launcher.backend.kind().hardware();
    let goal = if hardware { PSS_GOAL_MIB.0 } else { PSS_GOAL_MIB.1 };
    let found = format!(
        "{each:.1} MiB for each idle clone beyond the first (goal {goal} MiB), {:.1} MiB for it",
        alone as f64 / 1024.0
    );
    match each <= goal {
        true => ok("memory", found),
        false => warn("memory", found, "more than the goal, though nothing is wrong with it"),
    }
}

/// What this process and this home hold.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    descriptors: usize,
    children: usize,
    mounts: usize,
    run_directories: usize,
}

impl Held {
    fn now(home: &Home) -> Self {
        let entries = |path: &str| fs::read_dir(path).map_or(0, Iterator::count);
        let own = std::process::id().to_string();
        let parent_is_us = |stat: String| {
            let (_, rest) = stat.rsplit_once(')')?;
            (rest.split_whitespace().nth(1)? == own).then_some(())
        };
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let children = processes
            .filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok())
            .filter_map(parent_is_us)
            .count();
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        Self {
            descriptors: entries("/proc/self/fd"),
            children,
            mounts: mounts.lines().count(),
            run_directories: fs::read_dir(home.run()).map_or(0, Iterator::count),
        }
    }

    /// What is held once all that ends has ended: descriptors are closed by
    /// tasks that are still to run.
    async fn personalized(home: &Home, expected: &Self) -> Self {
        const LIMIT: Duration = Duration::from_secs(2);
        const POLL: Duration = Duration::from_millis(10);
        let start = Instant::now();
        loop {
            let now = Self::now(home);
            if now == *expected || start.elapsed() > LIMIT {
                return now;
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn compare(&self, after: &Self) -> Check {
        if self == after {
            let found = "no process, mount, descriptor or run directory is left";
            return ok("leaks", found);
        }
        fail("leaks", format!("before {self:?}, after {after:?}"), BUG)
    }
}
