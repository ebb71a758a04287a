//! Signals that end a run.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::{CliError, Kind, Result};

/// SIGINT, SIGTERM, SIGHUP and SIGQUIT as they arrive.
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    quit: Signal,
}

impl Signals {
    /// From now on these signals no longer end this process by themselves.
    pub fn listen() -> Result<Self> {
        let on = |kind| {
            signal(kind)
                .map_err(|e| CliError::new(Kind::System, format!("cannot listen for signals: {e}")))
        };
        Ok(Self {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
            hangup: on(SignalKind::hangup())?,
            quit: on(SignalKind::quit())?,
        })
    }

    /// The next signal's number. Cancel-safe.
    pub async fn next(&mut self) -> i32 {
        let kind = tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.hangup.recv() => SignalKind::hangup(),
            _ = self.quit.recv() => SignalKind::quit(),
        };
        kind.as_raw_value()
    }
}
