//! Follows the main command of a sandbox as its log, until it has ended.

use std::time::Duration;

use fireclaw_protocol::message::{AttachFrom, ExitStatus, MAX_OUTPUT, MainEvent};
use fireclaw_vm::{Attached, Commands, MainControls, MainEvents};
use tokio::sync::{mpsc, oneshot, watch};

use super::output::Output;
use crate::Result;

/// How much output is taken in a second, in bytes: the thread is everybody's, and the guest
/// decides how much there is.
const PACE: u32 = 8 * 1024 * 1024;

/// How the main command ended: its exit status as a shell gives it, or why that is not known.
pub type Ended = std::result::Result<u8, String>;

/// The main command as it runs.
#[derive(Debug)]
pub struct Main {
    /// How it ends.
    pub ended: oneshot::Receiver<Ended>,
    signals: mpsc::Sender<i32>,
}

impl Main {
    /// Follows the main command of a guest that has one.
    ///
    /// # Errors
    /// Those of the session.
    pub async fn follow(commands: &Commands, mut output: Output) -> Result<Self> {
        let Attached { control, mut events } = commands.attach(AttachFrom::Log).await?;
        let (end, ended) = oneshot::channel();
        let (signals, to_send) = mpsc::channel(8);
        tokio::task::spawn_local(async move {
            let (take, taken) = watch::channel(0);
            let ended = tokio::select! {
                ended = log(&mut events, &mut output, &take) => ended,
                never = steer(control, to_send, taken) => never,
            };
            let _ = end.send(ended);
        });
        Ok(Self { ended, signals })
    }

    /// Sends the signal with Linux's number to it. A guest that takes none of many is not
    /// waited for.
    pub fn signal(&self, signal: i32) {
        let _ = self.signals.try_send(signal);
    }
}

/// Logs what comes until the command has ended.
async fn log(events: &mut MainEvents, output: &mut Output, taken: &watch::Sender<u64>) -> Ended {
    let ended = loop {
        let mut cost = 0;
        let bytes = match events.next().await {
            Ok(MainEvent::Output { bytes, .. }) if bytes.len() > MAX_OUTPUT => {
                break Err(format!("the guest sent {} bytes of output at once", bytes.len()));
            }
            Ok(MainEvent::Output { stream, bytes }) => {
                cost = output.add(stream, &bytes).await.max(bytes.len());
                bytes.len() as u64
            }
            Ok(MainEvent::Lost(bytes)) => {
                output.note(&format!("[{bytes} bytes of output are lost]")).await;
                bytes
            }
            Ok(MainEvent::Exited(status, kills)) => {
                let code = shell_status(status);
                if kills.is_some_and(|kills| kills > 0) && code != 0 {
                    output
                        .note("[the guest ran out of memory, and its kernel killed a process]")
                        .await;
                }
                break Ok(code);
            }
            Ok(MainEvent::None) => break Err("its command is not there any more".into()),
            Err(e) => break Err(e.to_string()),
        };
        taken.send_modify(|taken| *taken = taken.saturating_add(bytes));
        let cost = u32::try_from(cost).unwrap_or(PACE).min(PACE);
        tokio::time::sleep(Duration::from_secs(1) * cost / PACE).await;
    };
    output.finish().await;
    ended
}

/// Tells the guest what is written down, and the command what it is to hear.
async fn steer(
    mut control: MainControls,
    mut signals: mpsc::Receiver<i32>,
    mut taken: watch::Receiver<u64>,
) -> Ended {
    loop {
        // A guest that does not listen is heard of by its events.
        let _ = tokio::select! {
            Some(signal) = signals.recv() => control.signal(signal).await,
            Ok(()) = taken.changed() => {
                let bytes = *taken.borrow_and_update();
                control.taken(bytes).await
            }
            else => std::future::pending().await,
        };
    }
}

/// An exit status as a shell gives it.
pub fn shell_status(status: ExitStatus) -> u8 {
    match status {
        ExitStatus::Code(code) => code,
        ExitStatus::Signal(signal) => 128u8.saturating_add(signal),
        // It has no time limit.
        ExitStatus::TimedOut => 124,
    }
}
