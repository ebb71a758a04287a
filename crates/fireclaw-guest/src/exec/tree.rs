//! Everything a command started, however it daemonized: one cgroup each.

use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// How long killed processes may take to be gone.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The process tree of one command.
///
/// A cgroup is not left by `setsid` or a double fork, and `cgroup.kill`
/// (Linux 5.14) ends all in it at once. What escapes even that, a root process
/// that moves itself, or a daemon on a kernel without cgroup v2, ends with the
/// VM.
pub struct Tree {
    directory: Option<PathBuf>,
}

impl Tree {
    /// A fresh tree. Its name is never used again, whatever the session's ids:
    /// a command may leave cgroups of its own behind.
    pub fn new() -> Self {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed) + 1;
        let directory = PathBuf::from(format!("/sys/fs/cgroup/exec-{number}"));
        Self { directory: fs::create_dir(&directory).is_ok().then_some(directory) }
    }

    /// The file into which a child writes `0` to join.
    pub fn entrance(&self) -> Option<File> {
        let directory = self.directory.as_ref()?;
        File::options().write(true).open(directory.join("cgroup.procs")).ok()
    }

    /// Kills all of it and waits until it is gone.
    pub async fn kill(&self, leader: u32) {
        let Some(directory) = &self.directory else {
            signal_group(leader, libc::SIGKILL);
            return;
        };
        let _ = fs::write(directory.join("cgroup.kill"), "1");
        // The kernel has no wait for an empty cgroup. Killed processes leave it
        // within a tick, unless one is stuck in the kernel: hence the bound.
        let start = Instant::now();
        while start.elapsed() < TIMEOUT
            && fs::read_to_string(directory.join("cgroup.events"))
                .is_ok_and(|events| events.contains("populated 1"))
        {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        if let Some(directory) = &self.directory {
            let _ = fs::remove_dir(directory);
        }
    }
}

/// Sends a signal by number to the command's process group.
pub fn signal_group(leader: u32, signal: i32) {
    let pid = i32::try_from(leader).ok().and_then(Pid::from_raw);
    if let (Some(pid), Some(signal)) = (pid, Signal::from_named_raw(signal)) {
        let _ = kill_process_group(pid, signal);
    }
}
