//! The runtime that commands run on.

use crate::error::{CliError, Kind, Result};

/// The runtime of a command that owns machines.
///
/// One thread: the VMM's parent-death signal is tied to the thread that starts
/// it, which must therefore be the one that lives longest.
pub fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| CliError::new(Kind::System, format!("cannot start: {e}")))
}
