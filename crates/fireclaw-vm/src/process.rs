//! The VMM as a process that never outlives its owner.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use crate::console::ConsoleTail;
use crate::pool::Lease;
use crate::{Error, Result};

/// How many lines of the console an error shows.
const CONSOLE_LINES: usize = 20;

/// A VMM that this process owns and will kill, at the latest when dropped.
#[derive(Debug)]
pub struct VmmProcess(Kind);

#[derive(Debug)]
enum Kind {
    Started(Started),
    Leased(Lease),
}

/// A child of this process.
#[derive(Debug)]
struct Started {
    child: Child,
    stderr: ConsoleTail,
    console: ConsoleTail,
    program: String,
}

/// Where a VMM writes what the guest writes to its serial console.
#[derive(Debug)]
pub enum Console {
    /// The VMM's standard output.
    Stdout,
    /// A socket of which the VMM has the other end.
    Socket(UnixStream),
}

impl VmmProcess {
    /// Starts `command` so that it dies with this process, even on `kill -9`.
    ///
    /// Call it on a thread that lives as long as the process should: the
    /// kernel sends the parent-death signal when the *thread* that forked ends
    /// (`prctl(2)`, `PR_SET_PDEATHSIG`).
    pub fn spawn(
        mut command: std::process::Command,
        inherit: Vec<OwnedFd>,
        console: Console,
    ) -> Result<Self> {
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
        let console = match console {
            Console::Stdout => child.stdout.take().map(ConsoleTail::follow).unwrap_or_default(),
            Console::Socket(socket) => ConsoleTail::follow(socket),
        };
        Ok(Self(Kind::Started(Started { child, stderr, console, program })))
    }

    /// A VMM that runs in a pool and is ours while the lease lasts.
    pub(crate) fn leased(lease: Lease) -> Self {
        Self(Kind::Leased(lease))
    }

    /// The process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        match &self.0 {
            Kind::Started(started) => started.child.id(),
            Kind::Leased(lease) => Some(lease.pid()),
        }
    }

    /// Resolves when the VMM ends by itself, with how it ended and its last
    /// words ([`Error::VmmDied`]). Cancel-safe.
    pub async fn ended(&mut self) -> Error {
        match &mut self.0 {
            Kind::Started(started) => started.ended().await,
            Kind::Leased(lease) => lease.ended().await,
        }
    }

    /// The last lines of the guest's console so far, escaped. A pool keeps
    /// those of a leased VMM to itself until it ends.
    pub fn console(&self) -> String {
        match &self.0 {
            Kind::Started(started) => started.console.last_lines(CONSOLE_LINES),
            Kind::Leased(_) => String::new(),
        }
    }

    /// Kills the VMM and reaps it; fine if it has ended already. A leased one
    /// goes back to its pool, which does so.
    pub async fn kill(&mut self) -> Result<()> {
        match &mut self.0 {
            Kind::Started(started) => {
                started.child.kill().await.map_err(Error::system("killing the VMM"))
            }
            Kind::Leased(lease) => lease.end().await,
        }
    }
}

impl Started {
    async fn ended(&mut self) -> Error {
        let status = match self.child.wait().await {
            Ok(status) => status,
            Err(e) => return Error::system("waiting for the VMM")(e),
        };
        self.stderr.drain().await;
        self.console.drain().await;
        Error::VmmDied {
            status: self.words(status),
            stderr: self.stderr.last_lines(10),
            console: self.console.last_lines(CONSOLE_LINES),
        }
    }

    fn words(&self, status: ExitStatus) -> String {
        match (status.code(), status.signal()) {
            (Some(code), _) => format!("{} exited with status {code}", self.program),
            (None, Some(signal)) => format!("{} was ended by signal {signal}", self.program),
            (None, None) => format!("{}: {status}", self.program),
        }
    }
}

impl Drop for Started {
    /// Kills the VMM and waits for its end, so that what it used can be
    /// removed. A killed process ends within milliseconds; the wait is bounded
    /// for one that is stuck in the kernel.
    fn drop(&mut self) {
        if self.child.start_kill().is_err() {
            return;
        }
        let pid = self.child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        if let Some(pid) = pid
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
