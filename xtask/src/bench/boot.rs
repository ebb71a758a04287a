//! Cold runs against the least that a boot takes.

use std::time::Instant;

use anyhow::{Result, ensure};
use comfy_table::Table;
use fireclaw_image::build_floor_initramfs;
use fireclaw_say::say;
use fireclaw_vm::{Launch, Launcher, MachineSpec, Memory, RunDir};
use serde::Serialize;

use super::spread::{Spread, ratio};
use super::{milliseconds, run_once};

/// The goals, as ratios to the floor or in milliseconds.
const COLD_GOAL: f64 = 1.35;
const OWN_GOAL_MS: f64 = 30.0;

#[derive(Debug, Serialize)]
pub struct Boots {
    floor_ms: Spread,
    cold_ms: Spread,
    /// The median of cold/floor, pair by pair.
    ratio: f64,
    own_ms: Spread,
}

impl Boots {
    pub fn rows(&self, table: &mut Table) {
        table.add_row(["boot: floor", &self.floor_ms.text(), "1", ""]);
        table.add_row([
            "boot: `fireclaw run --no-snapshot true`",
            &self.cold_ms.text(),
            &format!("{:.2} of the floor", self.ratio),
            &format!("≤ {COLD_GOAL}"),
        ]);
        table.add_row([
            "boot: overhead of it",
            &self.own_ms.text(),
            "",
            &format!("≤ {OWN_GOAL_MS} ms"),
        ]);
    }
}

pub async fn measure(launcher: &Launcher, kernel: &str, runs: usize) -> Result<Boots> {
    let directory = tempfile::tempdir()?;
    let initramfs = directory.path().join("floor.cpio");
    std::fs::write(&initramfs, build_floor_initramfs()?)?;
    let spec = MachineSpec { initramfs, ..launcher.spec.clone() };
    let (mut floors, mut colds, mut owns) = (vec![], vec![], vec![]);
    // One of each is not counted: it fills the page cache.
    for n in 0..=runs {
        let floor = floor(launcher, &spec).await?;
        let cold = run_once(&["--no-snapshot", "--kernel", kernel])?;
        if n > 0 {
            say!("{kernel} {n}/{runs}: floor {floor:.0} ms, cold {:.0} ms", cold.ms);
            floors.push(floor);
            colds.push(cold.ms);
            owns.push(cold.own_ms);
        }
    }
    Ok(Boots {
        ratio: ratio(&colds, &floors),
        floor_ms: Spread::of(floors),
        cold_ms: Spread::of(colds),
        own_ms: Spread::of(owns),
    })
}

/// From the start of the VMM to its end, with an init that writes one byte
/// and restarts.
async fn floor(launcher: &Launcher, spec: &MachineSpec) -> Result<f64> {
    let run_dir = RunDir::create(&launcher.run)?;
    let start = Instant::now();
    let launch = Launch { spec, run_dir: &run_dir, memory: Memory::Fresh, attachment: None };
    let mut machine = launcher.backend.launch(launch).await?;
    machine.process.ended().await;
    let time = milliseconds(start);
    let console = machine.process.console();
    ensure!(console.contains('!'), "the floor's init did not write: {console}");
    Ok(time)
}
