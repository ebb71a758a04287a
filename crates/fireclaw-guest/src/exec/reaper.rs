//! Collects every process that ends: PID 1 inherits all orphans.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use fireclaw_protocol::message::ExitStatus;
use rustix::process::{WaitOptions, WaitStatus, wait};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// Reaps zombies and tells who waits for them.
#[derive(Clone, Default)]
pub struct Reaper {
    expected: Rc<RefCell<HashMap<u32, oneshot::Sender<ExitStatus>>>>,
}

impl Reaper {
    /// Starts reaping in the background of the current local task set.
    pub fn start() -> Result<Self, String> {
        let mut children =
            signal(SignalKind::child()).map_err(|e| format!("cannot watch for SIGCHLD: {e}"))?;
        let reaper = Self::default();
        let background = reaper.clone();
        tokio::task::spawn_local(async move {
            while children.recv().await.is_some() {
                background.reap();
            }
        });
        Ok(reaper)
    }

    /// The status of `pid`, once it ends. Call it before anything else runs
    /// after the fork.
    pub fn expect(&self, pid: u32) -> oneshot::Receiver<ExitStatus> {
        let (tell, told) = oneshot::channel();
        self.expected.borrow_mut().insert(pid, tell);
        told
    }

    fn reap(&self) {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let pid = pid.as_raw_nonzero().get().unsigned_abs();
            if let Some(tell) = self.expected.borrow_mut().remove(&pid) {
                let _ = tell.send(translate(status));
            }
        }
    }
}

fn translate(status: WaitStatus) -> ExitStatus {
    let byte = |n: i32| u8::try_from(n).unwrap_or(u8::MAX);
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => ExitStatus::Code(byte(code)),
        (None, signal) => ExitStatus::Signal(byte(signal.unwrap_or(libc::SIGKILL))),
    }
}
