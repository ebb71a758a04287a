//! The VMM as a child process that never outlives its owner.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::process::{Child, ChildStdout, Command};

use crate::console::ConsoleTail;
use crate::{Error, Result};

/// A VMM that this process started and will kill, at the latest when dropped.
#[derive(Debug)]
pub struct VmmProcess {
    child: Child,
    stderr: ConsoleTail,
    program: String,
}

impl VmmProcess {
    /// Starts `command` so that it dies with this process, even on `kill -9`.
    ///
    /// Call it on a thread that lives as long as the process should: the
    /// kernel sends the parent-death signal when the *thread* that forked ends
    /// (`prctl(2)`, `PR_SET_PDEATHSIG`).
    pub fn spawn(mut command: std::process::Command, inherit: Vec<OwnedFd>) -> Result<Self> {
        let program = Path::new(command.get_program())
            .file_name()
            .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let parent = std::process::id();
        before_exec(&mut command, move || {
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
            // The parent may have died before the line above took effect.
            if rustix::process::getppid().map(|p| p.as_raw_nonzero().get())
                != i32::try_from(parent).ok()
            {
                return Err(rustix::io::Errno::SRCH.into());
            }
            // A group of its own: Ctrl-C at the terminal is for the command in
            // the guest, not for the VMM.
            rustix::process::setpgid(None, None)?;
            for fd in &inherit {
                rustix::io::fcntl_setfd(fd.as_fd(), rustix::io::FdFlags::empty())?;
            }
            Ok(())
        });
        let mut command = Command::from(command);
        command.kill_on_drop(true);
        let mut child =
            command.spawn().map_err(|source| Error::Spawn { program: program.clone(), source })?;
        let stderr = child.stderr.take().map(ConsoleTail::follow).unwrap_or_default();
        Ok(Self { child, stderr, program })
    }

    /// The VMM's standard output, which is Firecracker's serial console.
    pub fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// The process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// The last of what the VMM wrote to standard error.
    pub fn stderr(&self) -> &ConsoleTail {
        &self.stderr
    }

    /// Waits for the VMM to end by itself.
    pub async fn wait(&mut self) -> Result<ExitStatus> {
        self.child.wait().await.map_err(Error::system("waiting for the VMM"))
    }

    /// Kills the VMM and reaps it; fine if it has ended already.
    pub async fn kill(&mut self) -> Result<()> {
        self.child.kill().await.map_err(Error::system("killing the VMM"))
    }

    /// The error for a VMM that ended when nobody asked it to.
    pub async fn died(&self, status: ExitStatus, console: &ConsoleTail) -> Error {
        self.stderr.drain().await;
        console.drain().await;
        let status = match (status.code(), status.signal()) {
            (Some(code), _) => format!("{} exited with status {code}", self.program),
            (None, Some(signal)) => format!("{} was ended by signal {signal}", self.program),
            (None, None) => format!("{}: {status}", self.program),
        };
        Error::VmmDied {
            status,
            stderr: self.stderr.last_lines(10),
            console: console.last_lines(20),
        }
    }
}

impl Drop for VmmProcess {
    /// Kills the VMM and waits for its end, so that what it used can be
    /// removed. A killed process ends within milliseconds; the wait is bounded
    /// for one that is stuck in the kernel.
    fn drop(&mut self) {
        if self.child.start_kill().is_err() {
            return;
        }
        if let Some(pid) = self.pid().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?))
            && let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty())
        {
            let limit = Timespec { tv_sec: 2, tv_nsec: 0 };
            let _ = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit));
        }
        let _ = self.child.try_wait();
    }
}

#[allow(unsafe_code)]
fn before_exec(
    command: &mut std::process::Command,
    hook: impl FnMut() -> std::io::Result<()> + Send + Sync + 'static,
) {
    use std::os::unix::process::CommandExt;
    // SAFETY: the hook runs between fork and exec, where only async-signal-safe
    // calls are allowed: ours are bare system calls without allocation or locks.
    unsafe {
        command.pre_exec(hook);
    }
}
