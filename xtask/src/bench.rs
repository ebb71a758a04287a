//! `cargo xtask bench`: runs against floors measured in the same minutes.

mod agents;
mod boot;
mod clones;
mod network;
mod spread;

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use comfy_table::{Table, presets};
use fireclaw_image::{Home, Manifest};
use fireclaw_sandbox::{Host, Plan, SandboxSpec};
use fireclaw_say::out;
use serde::Serialize;

use agents::Agents;
use boot::Boots;
use clones::Clones;
use network::Networks;
pub use network::{LabArgs, in_lab};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Runs of each kind
    #[arg(short = 'n', long, default_value_t = 11)]
    runs: usize,

    /// Measure only this
    #[arg(long)]
    only: Vec<Part>,

    /// Where the figures go as JSON
    #[arg(long, default_value = "target/bench.json")]
    json: PathBuf,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Boots, snapshots and pools, on each kernel
    Runs,
    /// Agents, on the usual kernel
    Agents,
    /// Network interfaces, on the usual kernel
    Network,
}

#[derive(Debug, Serialize)]
struct All {
    kernels: Vec<Figures>,
    agents: Option<Agents>,
    network: Option<Networks>,
}

#[derive(Debug, Serialize)]
struct Figures {
    kernel: String,
    vmm: String,
    runs: usize,
    boots: Boots,
    clones: Clones,
}

/// Measures every kernel that the home has, and agents and networks on the usual one.
pub fn run(args: &Args) -> Result<()> {
    let home = Home::from_environment();
    let manifest = Manifest::read(&home)?;
    ensure!(manifest.kernel().is_some(), "nothing is set up; `make setup` first");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut kernels = Vec::new();
    let wanted = |part| args.only.is_empty() || args.only.contains(&part);
    for kernel in manifest.kernels.keys().filter(|_| wanted(Part::Runs)) {
        let plan = runtime.block_on(plan(&home, Some(kernel)))?;
        let launcher = plan.launcher();
        let boots = runtime.block_on(boot::measure(launcher, kernel, args.runs))?;
        let clones = runtime.block_on(clones::measure(&plan, kernel, args.runs))?;
        kernels.push(Figures {
            kernel: kernel.clone(),
            vmm: format!("{}, {}", launcher.backend.kind(), launcher.backend.version()),
            runs: args.runs,
            boots,
            clones,
        });
    }
    let usual = runtime.block_on(plan(&home, None))?;
    let agents = match wanted(Part::Agents) {
        true => Some(runtime.block_on(agents::measure(&home, args.runs))?),
        false => None,
    };
    let network = wanted(Part::Network).then(|| network::measure(args.runs)).transpose()?;
    for figures in &kernels {
        let mut table = table();
        figures.boots.rows(&mut table);
        figures.clones.rows(&mut table);
        out!("\nkernel {}, {}\n{table}", figures.kernel, figures.vmm)?;
    }
    let backend = &usual.launcher().backend;
    let vmm = format!("{}, {}", backend.kind(), backend.version());
    if let Some(agents) = &agents {
        let mut table = table();
        agents.rows(&mut table);
        out!("\nagents, {vmm}\n{table}")?;
    }
    if let Some(network) = &network {
        out!("\nnetwork, {vmm}")?;
        for table in network.tables() {
            out!("{table}\n")?;
        }
    }
    out!("\nmedian (fastest to slowest) of {} runs, in turn", args.runs)?;
    std::fs::write(&args.json, serde_json::to_vec_pretty(&All { kernels, agents, network })?)
        .with_context(|| args.json.display().to_string())
}

fn table() -> Table {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN).set_header(["what", "ms", "ratio", "goal"]);
    table
}

/// What starts the same sandboxes as `fireclaw run --kernel KERNEL`, or without it.
async fn plan(home: &Home, kernel: Option<&str>) -> Result<Plan> {
    let kernel = kernel.map(PathBuf::from);
    let spec = SandboxSpec { kernel, ..SandboxSpec::default() };
    Ok(Host::new(home.clone()).plan(spec).await?)
}

/// The command under measurement.
fn fireclaw() -> Command {
    Command::new(crate::root().join("target/release/fireclaw"))
}

/// One `fireclaw run` from outside.
#[derive(Debug)]
struct Run {
    ms: f64,
    /// What it says of its overhead.
    own_ms: f64,
    stderr: String,
}

fn run_once(options: &[&str]) -> Result<Run> {
    let start = Instant::now();
    let output = fireclaw()
        .args(["run", "-qnv"])
        .args(options)
        .arg("true")
        .output()
        .context("target/release/fireclaw; `make build` first")?;
    let ms = milliseconds(start);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "fireclaw run failed: {stderr}");
    let own_ms = stderr
        .lines()
        .find_map(|line| line.strip_prefix("fireclaw: overhead"))
        .and_then(|rest| rest.trim().strip_suffix(" ms")?.trim().parse().ok())
        .with_context(|| format!("no overhead in: {stderr}"))?;
    Ok(Run { ms, own_ms, stderr })
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}
