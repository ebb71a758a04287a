//! The runtime that commands run on.

use tokio::runtime::{Builder, Runtime};

use crate::error::{CliError, Kind, Result};

/// The runtime of a command that owns machines.
///
/// One thread: the VMM's parent-death signal is tied to the thread that starts
/// it, which must therefore be the one that lives longest.
pub fn runtime() -> Result<Runtime> {
    runtime_with(|_| ())
}

/// The same, built with more.
pub fn runtime_with(more: impl FnOnce(&mut Builder)) -> Result<Runtime> {
    let mut builder = Builder::new_current_thread();
    more(builder.enable_all());
    builder.build().map_err(|e| CliError::new(Kind::System, format!("cannot start: {e}")))
}
