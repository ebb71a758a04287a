//! `cargo xtask bench`: cold runs against the floor, side by side.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use comfy_table::{Table, presets};
use fireclaw_image::{Home, Manifest, build_floor_initramfs};
use fireclaw_vm::probe::{Cache, Choice, Prober};
use fireclaw_vm::{Backend, Disk, Launch, MachineSpec, Memory, RunDir};
use serde::Serialize;

/// The goals, as ratios to the floor or in milliseconds.
const COLD_GOAL: f64 = 1.35;
const OWN_GOAL_MS: f64 = 30.0;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Runs of each kind
    #[arg(short = 'n', long, default_value_t = 11)]
    runs: usize,

    /// Where the figures go as JSON
    #[arg(long, default_value = "target/bench.json")]
    json: PathBuf,
}

#[derive(Debug, Serialize)]
struct Figures {
    kernel: String,
    monitor: String,
    runs: usize,
    floor_ms: Spread,
    cold_ms: Spread,
    /// The median of cold/floor, pair by pair.
    ratio: f64,
    own_ms: Spread,
    /// The same run from a snapshot.
    snapshot_ms: Spread,
    /// The median of snapshot/cold, pair by pair.
    snapshot_ratio: f64,
}

#[derive(Debug, Serialize)]
struct Spread {
    min: f64,
    median: f64,
    max: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |i: usize| values.get(i).copied().unwrap_or(f64::NAN);
        Self { min: at(0), median: at(values.len() / 2), max: at(values.len().saturating_sub(1)) }
    }

    fn text(&self) -> String {
        format!("{:.1} ({:.1} to {:.1})", self.median, self.min, self.max)
    }
}

/// Measures every kernel that the home has.
pub fn run(args: &Args) -> Result<()> {
    let home = Home::from_environment();
    let manifest = Manifest::read(&home)?;
    ensure!(manifest.kernel().is_some(), "nothing is set up; `make setup` first");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut all = Vec::new();
    for name in manifest.kernels.keys() {
        all.push(runtime.block_on(measure(&home, name, args.runs))?);
    }
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN).set_header([
        "kernel",
        "monitor",
        "floor, ms",
        "cold run, ms",
        "ratio (goal)",
        "own share, ms (goal)",
        "from snapshot, ms",
        "ratio to cold",
    ]);
    for figures in &all {
        table.add_row([
            figures.kernel.clone(),
            figures.monitor.clone(),
            figures.floor_ms.text(),
            figures.cold_ms.text(),
            format!("{:.2} (≤ {COLD_GOAL})", figures.ratio),
            format!("{} (≤ {OWN_GOAL_MS})", figures.own_ms.text()),
            figures.snapshot_ms.text(),
            format!("{:.2}", figures.snapshot_ratio),
        ]);
    }
    println!("{table}");
    println!("median (fastest to slowest) of {} runs, in turn", args.runs);
    std::fs::write(&args.json, serde_json::to_vec_pretty(&all)?)
        .with_context(|| args.json.display().to_string())
}

async fn measure(home: &Home, kernel: &str, runs: usize) -> Result<Figures> {
    let directory = tempfile::tempdir()?;
    let floor_init = directory.path().join("floor.cpio");
    std::fs::write(&floor_init, build_floor_initramfs()?)?;
    let boot = fireclaw_image::resolve(home, Manifest::BASE_IMAGE, Some(Path::new(kernel)))?;
    let spec = MachineSpec {
        kernel: boot.kernel,
        initramfs: boot.initramfs,
        cpus: 1,
        memory_mib: 256,
        disks: vec![Disk { path: boot.rootfs, read_only: true }],
        kernel_args: Vec::new(),
    };
    let run = home.run();
    let mut prober = Prober { spec: &spec, run: &run, cache: Cache::open(&home.host_cache()) };
    let backend = prober.choose(Choice::Auto).await?.backend;
    let floor_spec = MachineSpec { initramfs: floor_init, ..spec.clone() };
    let (mut floors, mut colds, mut owns, mut ratios) = (vec![], vec![], vec![], vec![]);
    let (mut snapshots, mut snapshot_ratios) = (vec![], vec![]);
    // One of each is not counted: it fills the page cache.
    for n in 0..=runs {
        let floor = milliseconds(floor_once(backend.as_ref(), &floor_spec, &run).await?);
        let (cold, own) = run_once(&["--no-snapshot", "--kernel", kernel])?;
        let (snapshot, _) = run_once(&["--kernel", kernel])?;
        if n > 0 {
            eprintln!(
                "{kernel} {n}/{runs}: floor {floor:.0} ms, cold {cold:.0} ms, \
                 from snapshot {snapshot:.0} ms"
            );
            snapshots.push(snapshot);
            snapshot_ratios.push(snapshot / cold);
            ratios.push(cold / floor);
            floors.push(floor);
            colds.push(cold);
            owns.push(own);
        }
    }
    Ok(Figures {
        kernel: kernel.to_owned(),
        monitor: format!("{}, {}", backend.kind(), backend.version()),
        runs,
        floor_ms: Spread::of(floors),
        cold_ms: Spread::of(colds),
        ratio: Spread::of(ratios).median,
        own_ms: Spread::of(owns),
        snapshot_ms: Spread::of(snapshots),
        snapshot_ratio: Spread::of(snapshot_ratios).median,
    })
}

/// From the start of the monitor to its end, with an init that writes one byte
/// and restarts.
async fn floor_once(backend: &dyn Backend, spec: &MachineSpec, run: &Path) -> Result<Duration> {
    let run_dir = RunDir::create(run)?;
    let start = Instant::now();
    let mut machine =
        backend.launch(Launch { spec, run_dir: &run_dir, memory: Memory::Fresh }).await?;
    machine.process.wait().await?;
    let time = start.elapsed();
    machine.console.drain().await;
    let console = machine.console.last_lines(5);
    ensure!(console.contains('!'), "the floor's init did not write: {console}");
    Ok(time)
}

/// `fireclaw run true` from outside, and what it says of its own share.
fn run_once(options: &[&str]) -> Result<(f64, f64)> {
    let start = Instant::now();
    let output = Command::new(crate::root().join("target/release/fireclaw"))
        .args(["run", "-qnv"])
        .args(options)
        .arg("true")
        .output()
        .context("target/release/fireclaw; `make build` first")?;
    let time = milliseconds(start.elapsed());
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "fireclaw run failed: {text}");
    let own = text
        .lines()
        .find_map(|line| line.strip_prefix("fireclaw: own share"))
        .and_then(|rest| rest.trim().strip_suffix(" ms")?.trim().parse().ok())
        .with_context(|| format!("no own share in: {text}"))?;
    Ok((time, own))
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
