//! ngircd as a child process that never outlives its owner.

use std::collections::VecDeque;
use std::env;
use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use crate::{Error, Result};

/// How much of the end of the log is kept, in bytes, and shown, in lines.
const KEEP: usize = 16 * 1024;
const SHOW: usize = 12;

/// Whom ngircd runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct User {
    pub uid: u32,
    pub gid: u32,
}

/// The user for a server that root starts: Debian's `irc`, else `nobody`. None if
/// we are not root, and cannot change.
pub(super) fn user() -> Option<User> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let overflow = User { uid: 65534, gid: 65534 };
    Some(["irc", "nobody"].iter().find_map(|name| lookup(&users, name)).unwrap_or(overflow))
}

fn lookup(users: &str, name: &str) -> Option<User> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next() != Some(name) {
            return None;
        }
        let uid = fields.nth(1)?.parse().ok().filter(|uid| *uid != 0)?;
        Some(User { uid, gid: fields.next()?.parse().ok()? })
    })
}

/// Finds ngircd: what the environment names, else on `PATH`, else where
/// distributions put what is not for everybody's `PATH`.
pub(super) fn find() -> Result<PathBuf> {
    let named = env::var_os(super::VARIABLE).filter(|value| !value.is_empty());
    let path = env::var_os("PATH").unwrap_or_default();
    let places = env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    let mut candidates: Vec<PathBuf> = match &named {
        Some(named) => vec![PathBuf::from(named)],
        None => places.map(|place| place.join("ngircd")).collect(),
    };
    candidates.retain(|path| {
        path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
    });
    candidates.into_iter().find_map(|path| std::path::absolute(path).ok()).ok_or_else(|| {
        Error::ServerMissing {
            program: named.map_or("ngircd".into(), |named| named.to_string_lossy().into_owned()),
            variable: super::VARIABLE,
            package: "ngircd",
        }
    })
}

/// The child and the end of its log.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    log: Arc<Mutex<VecDeque<u8>>>,
    reading: Option<JoinHandle<()>>,
}

impl Process {
    /// Starts ngircd in the foreground with an open configuration file.
    pub fn spawn(program: &Path, config: File, user: Option<User>) -> Result<Self> {
        let mut command = std::process::Command::new(program);
        command.args(["--nodaemon", "--config", "/proc/self/fd/0"]);
        command.stdin(config).stdout(Stdio::piped()).stderr(Stdio::null());
        command.env_clear().current_dir("/");
        // Dropped here and not by ngircd: the kernel forgets the signal below
        // when a process changes its user.
        if let Some(User { uid, gid }) = user {
            command.uid(uid).gid(gid);
        }
        let parent = std::process::id();
        before_exec(&mut command, move || {
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
            // The parent may have died before the line above took effect.
            if rustix::process::getppid().map(|p| p.as_raw_nonzero().get())
                != i32::try_from(parent).ok()
            {
                return Err(rustix::io::Errno::SRCH.into());
            }
            // Ctrl-C at the terminal is for the owner, who then says goodbye.
            rustix::process::setpgid(None, None)?;
            Ok(())
        });
        let mut command = Command::from(command);
        command.kill_on_drop(true);
        let mut child = command.spawn().map_err(Error::system("cannot start ngircd"))?;
        let log = Arc::default();
        let reading = child.stdout.take().map(|out| tokio::spawn(follow(out, Arc::clone(&log))));
        Ok(Self { child, log, reading })
    }

    /// The process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// How it ended, in words, if it has.
    pub fn ended(&mut self) -> Result<Option<String>> {
        let status = self.child.try_wait().map_err(Error::system("waiting for ngircd"))?;
        Ok(status.map(in_words))
    }

    /// Waits for its end, and says how it ended.
    pub async fn wait(&mut self) -> Result<String> {
        self.child.wait().await.map(in_words).map_err(Error::system("waiting for ngircd"))
    }

    /// The error for a server that should have gone on, with all of its log.
    pub async fn failed(&mut self, reason: String) -> Error {
        // Bounded: it may still run, or something else may hold the pipe.
        const LIMIT: Duration = Duration::from_millis(200);
        if let Some(reading) = &mut self.reading
            && tokio::time::timeout(LIMIT, &mut *reading).await.is_ok()
        {
            self.reading = None;
        }
        Error::ServerFailed { reason, log: self.log() }
    }

    /// The last lines of the log, escaped.
    pub fn log(&self) -> String {
        let mut bytes = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(bytes.make_contiguous()).into_owned();
        let lines: Vec<String> = text
            .lines()
            .map(|line| crate::text::scrub(line, crate::text::Formatting::Remove))
            .collect();
        lines[lines.len().saturating_sub(SHOW)..].join("\n")
    }
}

impl Drop for Process {
    /// Kills ngircd and waits for its end, so that its port is free again. It has
    /// nothing to save. The wait is bounded for one that is stuck in the kernel.
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

fn in_words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ngircd exited with status {code}"),
        (None, Some(signal)) => format!("ngircd was ended by signal {signal}"),
        (None, None) => format!("ngircd: {status}"),
    }
}

/// Reads the log to its end, so that ngircd never waits for it, and keeps the
/// last of it.
async fn follow(mut from: impl AsyncRead + Unpin, log: Arc<Mutex<VecDeque<u8>>>) {
    let mut buffer = vec![0; 4096];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        log.extend(&buffer[..n]);
        let surplus = log.len().saturating_sub(KEEP);
        log.drain(..surplus);
    }
}

#[allow(unsafe_code)]
fn before_exec(
    command: &mut std::process::Command,
    hook: impl FnMut() -> std::io::Result<()> + Send + Sync + 'static,
) {
    // SAFETY: the hook runs between fork and exec, where only async-signal-safe
    // calls are allowed: ours are bare system calls without allocation or locks.
    unsafe {
        command.pre_exec(hook);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users() {
        let users = "root:x:0:0:root:/root:/bin/sh\nirc:x:39:40:ircd:/run/ircd:/bin/false\nbad:x\n";
        assert_eq!(lookup(users, "irc"), Some(User { uid: 39, gid: 40 }));
        assert_eq!(lookup(users, "root"), None);
        assert_eq!(lookup(users, "bad"), None);
        assert_eq!(lookup(users, "ir"), None);
    }
}
