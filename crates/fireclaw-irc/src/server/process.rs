//! ngircd as a child process that never outlives its owner.

use std::env;
use std::fs::File;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use fireclaw_host::{Child, PathError, Tail, find_program, is_program, keep_open};

use crate::{Error, Result};

/// How many lines of the log are shown.
const LINES: usize = 12;

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

/// Finds ngircd: what the environment names, else what the caller has beside, else on
/// `PATH` or where programs for administrators are.
pub(super) fn find(beside: Option<&Path>) -> Result<PathBuf> {
    let is_named = env::var_os(super::VARIABLE).is_some_and(|value| !value.is_empty());
    if !is_named && let Some(beside) = beside.filter(|beside| is_program(beside)) {
        return std::path::absolute(beside)
            .map_err(PathError::at("find", beside))
            .map_err(Error::from);
    }
    find_program(super::VARIABLE, "ngircd").map_err(|missing| Error::ServerMissing {
        program: missing.program,
        variable: super::VARIABLE,
        package: "ngircd",
    })
}

/// Moves the socket from the place of standard error, where a child can be given one, to
/// descriptor 3, and becomes ngircd: whom a socket is for is told by its process id, which
/// only the process itself knows in time.
const WRAPPER: &str = "exec 3<&2 2>/dev/null; LISTEN_FDS=1 LISTEN_PID=$$ \
                       exec \"$0\" --nodaemon --config /proc/self/fd/0";

/// The child and the end of its log.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    log: Tail,
}

impl Process {
    /// Starts ngircd in the foreground with an open configuration file and a socket that
    /// listens already, as systemd does it (sd_listen_fds(3)). It has nothing to save when
    /// it is killed, as it is when dropped.
    pub async fn spawn(
        program: &Path,
        config: File,
        listener: &TcpListener,
        user: Option<User>,
    ) -> Result<Self> {
        let socket = listener.try_clone().map_err(Error::system("cannot share a socket"))?;
        let mut command = Command::new("/bin/sh");
        command.args(["-c", WRAPPER]);
        if user.is_some() && !program.starts_with("/usr") {
            // That user may not be let into the directory, /root for one.
            let file = File::open(program).map_err(PathError::at("open", program))?;
            command.arg(format!("/proc/self/fd/{}", file.as_raw_fd()));
            keep_open(&mut command, file.into());
        } else {
            command.arg(program);
        }
        command.stdin(config).stdout(Stdio::piped()).stderr(OwnedFd::from(socket));
        command.env_clear().current_dir("/");
        // Changed here and not by ngircd, which would no longer be tied to us then.
        if let Some(User { uid, gid }) = user {
            command.uid(uid).gid(gid);
        }
        let mut child =
            Child::start(command).await.map_err(Error::system("cannot start ngircd"))?;
        let log = child.stdout().map(Tail::follow).unwrap_or_default();
        Ok(Self { child, log })
    }

    /// Waits until it says that it serves our socket; false if it ended before.
    pub async fn ready(&self) -> bool {
        let ready = |line: &str| line.contains(" ready.").then_some(());
        self.log.find(ready).await.is_some()
    }

    /// The process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.pid()
    }

    /// Waits for its end, and says how it ended.
    pub async fn wait(&mut self) -> Result<String> {
        let reason = self.child.ended().await.map_err(Error::system("waiting for ngircd"))?;
        // The name of what it was before it became ngircd.
        Ok(reason.strip_prefix("sh ").map_or(reason.clone(), |how| format!("ngircd {how}")))
    }

    /// The error for a server that should have gone on, with all of its log.
    pub async fn failed(&mut self, reason: String) -> Error {
        self.log.drain().await;
        Error::ServerFailed { reason, log: self.log() }
    }

    /// The last lines of the log, escaped.
    pub fn log(&self) -> String {
        self.log.last_lines(LINES)
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
