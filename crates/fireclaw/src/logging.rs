//! The log of this program.

use fireclaw_log::Options;

use crate::error::{CliError, Result};

/// Starts it.
pub fn start(options: Options<'_>) -> Result<()> {
    fireclaw_log::start(options).map_err(|e| {
        CliError::usage(e.to_string())
            .hint("use a level, or levels per module: FIRECLAW_LOG=info,fireclaw_vm=debug")
    })
}

/// Starts it for a command of a person: on standard error, if they ask for it.
pub fn start_if_asked() -> Result<()> {
    if std::env::var_os(fireclaw_log::FILTER).is_none() {
        return Ok(());
    }
    start(Options { format: Some(fireclaw_log::Format::Human), file: None, filter: "warn" })
}
