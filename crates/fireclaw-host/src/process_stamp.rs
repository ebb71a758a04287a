//! Which process a number stands for.

use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// A process, told from any later one with the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ProcessStamp {
    /// Its number.
    pub pid: i32,
    /// When it started, in clock ticks since the host's boot (proc(5), `stat`).
    pub start_time: u64,
}

impl ProcessStamp {
    /// The process that has this number now, if it has not ended.
    pub fn of(pid: i32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is a name in parentheses, which may hold any.
        let (_, rest) = stat.rsplit_once(')')?;
        let mut fields = rest.split_whitespace();
        let state = fields.next()?;
        let start_time = fields.nth(18)?.parse().ok()?;
        (state != "Z" && state != "X").then_some(Self { pid, start_time })
    }

    /// Whether it runs.
    pub fn lives(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// A descriptor that is readable once it has ended; none if it has.
    pub fn pidfd(self) -> Option<OwnedFd> {
        let pidfd = pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::empty()).ok()?;
        // Looked at now that the pidfd holds this very process.
        self.lives().then_some(pidfd)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_process_under_the_same_number_is_another() {
        let own = ProcessStamp::of(rustix::process::getpid().as_raw_nonzero().get()).unwrap();
        assert!(own.lives() && own.pidfd().is_some());
        let other = ProcessStamp { start_time: own.start_time + 1, ..own };
        assert!(!other.lives() && other.pidfd().is_none());
    }
}
