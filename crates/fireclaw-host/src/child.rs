//! A child that is killed and reaped at the latest when its handle is dropped.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use tokio::process::{ChildStderr, ChildStdout};

use crate::{die_with_owner, on_starter};

/// How long a dropped child may take to end, in seconds: a killed process does within
/// milliseconds, unless it is stuck in the kernel.
const ENDING: i64 = 2;

/// A process that ends with this value and with this process, whichever goes first.
#[derive(Debug)]
pub struct Child {
    child: tokio::process::Child,
    program: String,
}

impl Child {
    /// Starts `command`, tied to us as [`die_with_owner`] says. Must be called in a tokio
    /// runtime that lives as long as the child should.
    ///
    /// # Errors
    /// What the system says of a program that cannot be run.
    pub fn spawn(mut command: Command) -> io::Result<Self> {
        let name = Path::new(command.get_program()).file_name().unwrap_or_default();
        let program = name.to_string_lossy().into_owned();
        die_with_owner(&mut command, Signal::KILL);
        let child = tokio::process::Command::from(command).kill_on_drop(true).spawn()?;
        Ok(Self { child, program })
    }

    /// The same without holding up the thread that asks, and tied to this process instead of
    /// the thread.
    ///
    /// # Errors
    /// Those of [`Child::spawn`].
    pub async fn start(command: Command) -> io::Result<Self> {
        on_starter(move || Self::spawn(command)).await
    }

    /// Its standard output, the first time, if the command had it piped.
    pub fn stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Its standard error, the first time, if the command had it piped.
    pub fn stderr(&mut self) -> Option<ChildStderr> {
        self.child.stderr.take()
    }

    /// Its process id, until it was reaped.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Resolves when it ends, with how it did, in words. Cancel-safe.
    ///
    /// # Errors
    /// What the system says of a child that cannot be waited for.
    pub async fn ended(&mut self) -> io::Result<String> {
        let status = self.child.wait().await?;
        Ok(self.words(status))
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// Like [`Child::ended`].
    pub fn has_ended(&mut self) -> io::Result<Option<String>> {
        let status = self.child.try_wait()?;
        Ok(status.map(|status| self.words(status)))
    }

    /// Kills it and reaps it; fine if it has ended already.
    ///
    /// # Errors
    /// Like [`Child::ended`].
    pub async fn kill(&mut self) -> io::Result<()> {
        self.child.kill().await
    }

    fn words(&self, status: ExitStatus) -> String {
        match (status.code(), status.signal()) {
            (Some(code), _) => format!("{} exited with status {code}", self.program),
            (None, Some(signal)) => format!("{} was ended by signal {signal}", self.program),
            (None, None) => format!("{}: {status}", self.program),
        }
    }
}

impl Drop for Child {
    /// Kills it and waits for its end, so that what it used can be removed or used again.
    fn drop(&mut self) {
        if self.child.start_kill().is_err() {
            return;
        }
        if let Some(pid) = self.pid().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?))
            && let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty())
        {
            let limit = Timespec { tv_sec: ENDING, tv_nsec: 0 };
            let _ = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit));
        }
        let _ = self.child.try_wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(line: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", line]);
        command
    }

    fn runs(pid: u32) -> bool {
        // A dead one whose new parent has not reaped it yet is a zombie (proc(5)).
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
        stat.is_ok_and(|stat| !stat.contains(") Z "))
    }

    /// A child that was started in a thread that has ended, after `then` had its handle.
    fn after(then: fn(Child)) -> u32 {
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let child = Child::spawn(shell("exec sleep 1000")).unwrap();
                let pid = child.pid().unwrap();
                assert!(runs(pid));
                then(child);
                pid
            })
        });
        thread.join().unwrap()
    }

    #[test]
    fn dropped_it_is_gone() {
        let pid = after(drop);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn it_dies_with_its_owner() {
        let pid = after(std::mem::forget);
        let begun = std::time::Instant::now();
        while runs(pid) {
            assert!(begun.elapsed().as_secs() < 60, "it lives on");
            std::thread::yield_now();
        }
    }

    #[tokio::test]
    async fn its_end_is_told() {
        let mut child = Child::spawn(shell("exit 3")).unwrap();
        assert_eq!(child.ended().await.unwrap(), "sh exited with status 3");
        assert_eq!(child.has_ended().unwrap().unwrap(), "sh exited with status 3");
        let mut child = Child::spawn(shell("kill -9 $$")).unwrap();
        assert_eq!(child.ended().await.unwrap(), "sh was ended by signal 9");
        child.kill().await.unwrap();
    }

    #[tokio::test]
    async fn it_has_a_group_of_its_own() {
        let mut child = Child::spawn(shell("exec sleep 1000")).unwrap();
        let pid = Pid::from_raw(i32::try_from(child.pid().unwrap()).unwrap());
        assert_eq!(rustix::process::getpgid(pid).ok(), pid);
        child.kill().await.unwrap();
        assert!(Child::spawn(Command::new("/no/such")).is_err());
    }
}
