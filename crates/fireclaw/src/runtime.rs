//! The runtime that commands run on.

use std::time::Duration;

use fireclaw_host::finish_starts;
use tokio::runtime::{self, Builder};
use tokio::task::LocalSet;

use crate::error::{CliError, Kind, Result};

/// The runtime of a command that owns VMs: one thread.
#[derive(Debug)]
pub struct Runtime(runtime::Runtime);

impl Runtime {
    /// Runs a future to its end, and what it had started to where that is there or gone.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        let output = self.0.block_on(future);
        finish_starts();
        output
    }

    /// The same with tasks that stay on this thread.
    pub fn block_on_local<F: Future>(&self, local: LocalSet, future: F) -> F::Output {
        let output = local.block_on(&self.0, future);
        let inside = self.0.enter();
        drop(local);
        drop(inside);
        finish_starts();
        output
    }

    /// Ends it, and waits so long for what blocks.
    pub fn shutdown_timeout(self, limit: Duration) {
        self.0.shutdown_timeout(limit);
    }

    /// Ends it without waiting for what blocks.
    pub fn shutdown_background(self) {
        self.0.shutdown_background();
    }
}

/// A runtime.
pub fn runtime() -> Result<Runtime> {
    runtime_with(|_| ())
}

/// The same, built with more.
pub fn runtime_with(more: impl FnOnce(&mut Builder)) -> Result<Runtime> {
    let mut builder = Builder::new_current_thread();
    more(builder.enable_all());
    builder
        .build()
        .map(Runtime)
        .map_err(|e| CliError::new(Kind::System, format!("cannot start: {e}")))
}
