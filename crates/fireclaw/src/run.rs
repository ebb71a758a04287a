//! The parts of `fireclaw run`.

pub mod parallel;
pub mod publish;
pub mod relay;
pub mod spool;

use std::time::Duration;

use fireclaw_protocol::message::{ExecFailure, ExitStatus};
use fireclaw_sandbox::{Plan, Sandbox, Start};
use fireclaw_say::say;

use crate::error::Result;
use crate::phases::Phases;

/// What all clones of one run have in common.
#[derive(Debug)]
pub struct Order<'a> {
    /// What starts them.
    pub plan: &'a Plan,
    /// Whether neither pool nor snapshot may be used.
    pub from_cold: bool,
    /// How long the command may take, if that is limited.
    pub timeout: Option<Duration>,
}

impl Order<'_> {
    /// Starts a sandbox.
    pub async fn start(&self, phases: &mut Phases) -> Result<Sandbox> {
        let start = Start { from_cold: self.from_cold, ..Start::default() };
        Ok(self.plan.start(start, phases).await?)
    }
}

/// How a run ended, apart from Fireclaw's own failures.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The command ran to its end.
    Exited(ExitStatus),
    /// The same, and meanwhile the VM's memory ran out.
    OutOfMemory(ExitStatus),
    /// The command could not be started.
    NotStarted(ExecFailure, String),
    /// Its time ran out and the guest did not see to it.
    TimedOut,
    /// A signal to us ended the run.
    Interrupted(i32),
}

impl Outcome {
    /// Tells the user what the exit status alone does not, after `label`, and returns it.
    pub fn report(self, label: &str, timeout: Option<Duration>) -> u8 {
        let out_of_time = || {
            let seconds = timeout.unwrap_or_default().as_secs_f64();
            say!("{label}fireclaw: timed out after {seconds} s; VM destroyed");
            124
        };
        match self {
            Self::Exited(ExitStatus::Code(code)) => code,
            Self::Exited(ExitStatus::Signal(signal)) => 128u8.saturating_add(signal),
            Self::Exited(ExitStatus::TimedOut) | Self::TimedOut => out_of_time(),
            Self::OutOfMemory(status) => {
                say!(
                    "{label}fireclaw: the guest ran out of memory, and its kernel killed a process; \
                     use --memory to give it more"
                );
                Self::Exited(status).report(label, timeout)
            }
            Self::Interrupted(signal) => u8::try_from(128 + signal).unwrap_or(u8::MAX),
            Self::NotStarted(failure, message) => {
                // Guest text: shown, not obeyed.
                say!("{label}fireclaw: {}", fireclaw_host::escape(&message));
                failure.status()
            }
        }
    }
}
