//! Developer tasks: `cargo xtask <task>`.

mod bench;
mod kernel;
mod nested;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use fireclaw_image::Progress;
use fireclaw_say::say;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Fireclaw's developer tasks")]
enum Task {
    /// Build a minimal guest kernel and add it to FIRECLAW_HOME (about ten minutes)
    Kernel(kernel::Args),
    /// Run the end-to-end tests on a real Firecracker inside an emulated VM with KVM
    Nested(nested::Args),
    /// Measure everything against floors
    Bench(bench::Args),
    /// The part of the bench that is inside a network of its own
    #[command(hide = true)]
    BenchNetwork(bench::LabArgs),
}

fn main() -> ExitCode {
    let done = match Task::parse() {
        Task::Kernel(args) => kernel::run(&args).map(|()| ExitCode::SUCCESS),
        Task::Nested(args) => nested::run(&args),
        Task::Bench(args) => bench::run(&args).map(|()| ExitCode::SUCCESS),
        Task::BenchNetwork(args) => bench::in_lab(&args).map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|e| {
        say!("xtask: {e:#}");
        ExitCode::FAILURE
    })
}

/// The repository's root.
fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Progress as plain lines.
struct Plain;

impl Progress for Plain {
    fn step(&self, number: usize, of: usize, what: &str) {
        say!("[{number}/{of}] {what}");
    }

    fn detail(&self, _: &str) {}

    fn done(&self, result: &str) {
        say!("      {result}");
    }
}
