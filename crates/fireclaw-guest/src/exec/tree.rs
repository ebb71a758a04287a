//! Everything a command started, however it daemonized: one cgroup each.

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

/// The process tree of one command.
///
/// A cgroup cannot be left by `setsid` or a double fork, and `cgroup.kill`
/// (Linux 5.14) ends all in it at once. A kernel without cgroup v2 leaves the
/// process group, which a daemon escapes; the machine's end then takes it.
pub struct Tree {
    directory: Option<PathBuf>,
}

impl Tree {
    /// A fresh tree for command `id`.
    pub fn new(id: u32) -> Self {
        let directory = PathBuf::from(format!("/sys/fs/cgroup/exec-{id}"));
        Self { directory: fs::create_dir(&directory).is_ok().then_some(directory) }
    }

    /// The file into which a child writes `0` to join.
    pub fn entrance(&self) -> Option<File> {
        let directory = self.directory.as_ref()?;
        File::options().write(true).open(directory.join("cgroup.procs")).ok()
    }

    /// Kills all of it and waits until it is gone.
    pub async fn kill(&self, leader: u32) {
        signal_group(leader, libc::SIGKILL);
        let Some(directory) = &self.directory else { return };
        let _ = fs::write(directory.join("cgroup.kill"), "1");
        // The kernel has no blocking wait for an empty cgroup; processes in it
        // end within the same tick.
        while fs::read_to_string(directory.join("cgroup.events"))
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
