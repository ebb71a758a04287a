//! Set-up as the user sees it.

use fireclaw_image::{Home, Options};

use crate::error::{CliError, Kind, Result};
use crate::progress::Screen;
use crate::runtime::runtime;
use crate::signals::Signals;

/// Set-up with progress, ended cleanly by a signal.
pub fn prepare(home: &Home, options: &Options) -> Result<()> {
    let runtime = runtime()?;
    let mut signals = runtime.block_on(async { Signals::listen() })?;
    let (done, finished) = tokio::sync::oneshot::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // The receiver waits for as long as this thread runs.
            let _ = done.send(fireclaw_image::setup(home, options, &Screen::new()));
        });
        runtime.block_on(async {
            tokio::pin!(finished);
            loop {
                tokio::select! {
                    result = &mut finished => break result,
                    _ = signals.next() => fireclaw_image::cancel(),
                }
            }
        })
    })
    .map_err(|_| CliError::new(Kind::System, "setup ended unexpectedly"))??;
    Ok(())
}
