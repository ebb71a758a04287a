//! Runs from a snapshot and from a pool, warm commands, many clones, and their memory.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use comfy_table::Table;
use fireclaw_protocol::message::{ExecEvent, ExecRequest, ExitStatus};
use fireclaw_sandbox::Plan;
use fireclaw_say::say;
use fireclaw_vm::snapshot::Snapshot;
use fireclaw_vm::{Guest, Launcher, Memory, Waiting};
use serde::Serialize;
use tokio::io::AsyncReadExt;

use super::spread::{Spread, ratio};
use super::{fireclaw, milliseconds, run_once};

/// The goals.
const RUN_GOAL: f64 = 1.25;
const COLD_GOAL: f64 = 0.12;
const POOL_GOAL: f64 = 0.2;
const POOL_OWN_GOAL_MS: f64 = 15.0;
const THROUGHPUT_GOAL: f64 = 0.8;
const PSS_GOAL_MIB: (f64, f64) = (8.0, 38.0);

/// How many clones run at once.
const CLONES: usize = 16;

#[derive(Debug, Serialize)]
pub struct Clones {
    /// Restore until the guest's first answer.
    restore_ms: Spread,
    /// The same and one command.
    restore_and_command_ms: Spread,
    run_ms: Spread,
    run_to_restore: f64,
    run_to_restore_and_command: f64,
    run_to_cold: f64,
    pool_ms: Spread,
    pool_to_run: f64,
    pool_own_ms: Spread,
    /// A command on a VM that runs.
    exec_ms: Spread,
    /// What fork and exec of the same take in the guest itself.
    fork_exec_ms: f64,
    one_at_a_time_ms: f64,
    at_once_ms: f64,
    /// Throughput per processor, many at once to one at a time.
    throughput: f64,
    pss_mib_of_4: f64,
    pss_mib_of_16: f64,
    #[serde(skip)]
    hardware: bool,
}

impl Clones {
    pub fn rows(&self, table: &mut Table) {
        let mut row = |what: &str, ms: String, ratio: String, goal: String| {
            table.add_row([what, &ms, &ratio, &goal]);
        };
        let goal = |goal: f64| format!("≤ {goal}");
        row(
            "snapshot: restore, first answer (floor)",
            self.restore_ms.text(),
            "1".into(),
            String::new(),
        );
        row(
            "snapshot: the same and one command",
            self.restore_and_command_ms.text(),
            String::new(),
            String::new(),
        );
        row(
            "snapshot: `fireclaw run true`",
            self.run_ms.text(),
            format!("{:.2} of the floor", self.run_to_restore),
            goal(RUN_GOAL),
        );
        row(
            "",
            String::new(),
            format!("{:.2} of floor and command", self.run_to_restore_and_command),
            String::new(),
        );
        row("", String::new(), format!("{:.2} of the cold run", self.run_to_cold), goal(COLD_GOAL));
        row(
            "pool: `fireclaw run true`",
            self.pool_ms.text(),
            format!("{:.2} of the run from the snapshot", self.pool_to_run),
            goal(POOL_GOAL),
        );
        row(
            "pool: overhead of it",
            self.pool_own_ms.text(),
            String::new(),
            format!("≤ {POOL_OWN_GOAL_MS} ms"),
        );
        row(
            "command on a running VM",
            self.exec_ms.text(),
            format!(
                "{:.2} of fork and exec in the guest ({:.1} ms)",
                self.exec_ms.median / self.fork_exec_ms,
                self.fork_exec_ms
            ),
            String::new(),
        );
        row(
            &format!("{CLONES} clones at once"),
            format!("{:.1} (one takes {:.1})", self.at_once_ms, self.one_at_a_time_ms),
            format!("{:.2} of the throughput of one, per processor", self.throughput),
            format!("≥ {THROUGHPUT_GOAL}"),
        );
        let pss = if self.hardware { PSS_GOAL_MIB.0 } else { PSS_GOAL_MIB.1 };
        row(
            "memory of an idle clone beyond the first",
            format!(
                "{:.1} MiB (of 4), {:.1} MiB (of {CLONES})",
                self.pss_mib_of_4, self.pss_mib_of_16
            ),
            String::new(),
            format!("≤ {pss} MiB"),
        );
    }
}

pub async fn measure(plan: &Plan, kernel: &str, runs: usize) -> Result<Clones> {
    let launcher = plan.launcher();
    let snapshot = plan.snapshot(None, || ()).await?;
    let options = ["--kernel", kernel];
    let (mut restores, mut commands, mut snapshots, mut colds) = (vec![], vec![], vec![], vec![]);
    for n in 0..=runs {
        let start = Instant::now();
        let guest = restored(launcher, &snapshot).await?;
        let restore = milliseconds(start);
        shell_true(&guest).await?;
        let command = milliseconds(start);
        guest.kill().await?;
        let run = run_once(&options)?;
        ensure!(run.stderr.contains("fireclaw: restore"), "not from the snapshot: {}", run.stderr);
        let cold = run_once(&["--no-snapshot", "--kernel", kernel])?;
        if n > 0 {
            say!("{kernel} {n}/{runs}: restore {restore:.0} ms, run {:.0} ms", run.ms);
            restores.push(restore);
            commands.push(command);
            snapshots.push(run.ms);
            colds.push(cold.ms);
        }
    }
    let (pools, owns) = pooled(kernel, runs)?;
    let (exec_ms, fork_exec_ms) = warm(launcher, &snapshot).await?;
    let one_at_a_time_ms = Spread::of(snapshots.clone()).median;
    let at_once_ms = at_once(kernel)?;
    let processors = std::thread::available_parallelism()?.get() as f64;
    Ok(Clones {
        run_to_restore: ratio(&snapshots, &restores),
        run_to_restore_and_command: ratio(&snapshots, &commands),
        run_to_cold: ratio(&snapshots, &colds),
        pool_to_run: Spread::of(pools.clone()).median / one_at_a_time_ms,
        restore_ms: Spread::of(restores),
        restore_and_command_ms: Spread::of(commands),
        run_ms: Spread::of(snapshots),
        pool_ms: Spread::of(pools),
        pool_own_ms: Spread::of(owns),
        exec_ms,
        fork_exec_ms,
        throughput: one_at_a_time_ms * CLONES as f64 / at_once_ms / processors,
        one_at_a_time_ms,
        at_once_ms,
        pss_mib_of_4: pss_mib(launcher, &snapshot, 4).await?,
        pss_mib_of_16: pss_mib(launcher, &snapshot, CLONES).await?,
        hardware: launcher.backend.kind().hardware(),
    })
}

async fn restored(launcher: &Launcher, snapshot: &Snapshot) -> Result<Guest> {
    let machine = launcher.launch(Memory::RestoredFrom(&snapshot.directory), None).await?;
    Ok(Waiting::meet(machine, launcher.timeout).await?.personalize("bench", None).await?)
}

/// Runs a command to its end and gives what it wrote.
pub async fn command(guest: &Guest, argv: &[&str]) -> Result<String> {
    let argv = argv.iter().map(|word| word.as_bytes().to_vec().into()).collect();
    let mut exec = guest.commands().exec(ExecRequest { argv, ..ExecRequest::default() }).await?;
    let mut output = String::new();
    exec.stdout.read_to_string(&mut output).await?;
    loop {
        match exec.events.next().await? {
            ExecEvent::Started => {}
            ExecEvent::Exited(ExitStatus::Code(0), _) => return Ok(output),
            other => bail!("{other:?}"),
        }
    }
}

async fn shell_true(guest: &Guest) -> Result<()> {
    command(guest, &["/bin/sh", "-c", "true"]).await.map(drop)
}

/// Commands on one running VM, and what the guest itself takes for them.
async fn warm(launcher: &Launcher, snapshot: &Snapshot) -> Result<(Spread, f64)> {
    const RUNS: usize = 30;
    let script = format!(
        "import os, statistics, time\n\
         def once():\n\
         \x20 start = time.monotonic()\n\
         \x20 pid = os.fork()\n\
         \x20 if pid == 0: os.execv('/bin/sh', ['sh', '-c', 'true'])\n\
         \x20 os.waitpid(pid, 0)\n\
         \x20 return (time.monotonic() - start) * 1000\n\
         print(statistics.median([once() for _ in range({RUNS})][5:]))"
    );
    let guest = restored(launcher, snapshot).await?;
    let mut times = Vec::new();
    for n in 0..RUNS {
        let start = Instant::now();
        shell_true(&guest).await?;
        if n >= 5 {
            times.push(milliseconds(start));
        }
    }
    let inside = command(&guest, &["python3", "-c", &script]).await?;
    guest.kill().await?;
    Ok((Spread::of(times), inside.trim().parse().context("the guest's own figure")?))
}

/// A pool for as long as this lives.
struct Pool(Child);

impl Drop for Pool {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs from a pool that has had the time to fill up again.
fn pooled(kernel: &str, runs: usize) -> Result<(Vec<f64>, Vec<f64>)> {
    let mut child = fireclaw()
        .args(["pool", "--quiet", "--size", "2", "--kernel", kernel])
        .stderr(Stdio::piped())
        .spawn()?;
    let stderr = child.stderr.take().context("no standard error")?;
    let _pool = Pool(child);
    let line = BufReader::new(stderr).lines().next().context("the pool ended")??;
    ensure!(line.contains("VMs ready"), "the pool says {line}");
    let (mut times, mut owns) = (vec![], vec![]);
    let deadline = Instant::now() + Duration::from_secs(300);
    while times.len() < runs {
        ensure!(Instant::now() < deadline, "the pool has nothing ready");
        // What takes the place of a VM takes the processors, too.
        std::thread::sleep(Duration::from_secs(3));
        let run = run_once(&["--kernel", kernel])?;
        if run.stderr.contains("fireclaw: from pool") {
            say!("{kernel} {}/{runs}: from the pool {:.0} ms", times.len() + 1, run.ms);
            times.push(run.ms);
            owns.push(run.own_ms);
        }
    }
    Ok((times, owns))
}

fn at_once(kernel: &str) -> Result<f64> {
    let start = Instant::now();
    let output = fireclaw()
        .args(["run", "-q", "--kernel", kernel, "--parallel", &CLONES.to_string(), "true"])
        .output()?;
    let time = milliseconds(start);
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(time)
}

/// What each clone beyond the first takes.
async fn pss_mib(launcher: &Launcher, snapshot: &Snapshot, number: usize) -> Result<f64> {
    let mut guests = vec![restored(launcher, snapshot).await?];
    let alone = pss_kib(&guests)?;
    for _ in 1..number {
        guests.push(restored(launcher, snapshot).await?);
    }
    let all = pss_kib(&guests)?;
    for guest in guests {
        guest.kill().await?;
    }
    Ok((all - alone) / 1024.0 / (number - 1) as f64)
}

/// The proportional set size of all (proc(5), `smaps_rollup`).
fn pss_kib(guests: &[Guest]) -> Result<f64> {
    let mut total = 0.0;
    for guest in guests {
        let pid = guest.vmm_pid().context("a VMM ended")?;
        let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).context("no Pss")?;
        total += line.split_whitespace().next().context("no Pss")?.parse::<f64>()?;
    }
    Ok(total)
}
