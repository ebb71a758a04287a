//! What ties a child to its parent, in the kernel.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal, setpgid};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Has the kernel send `signal` to the child when this process ends, even by `kill -9`, and
/// puts it into a process group of its own: Ctrl-C at the terminal is for its owner, who
/// then ends it.
///
/// Spawn it on a thread that lives as long as the child should: what counts is the end of
/// the *thread* that forked (`PR_SET_PDEATHSIG(2const)`). A child that changes its user
/// after it was started is no longer tied; one whose user [`CommandExt::uid`] changes is.
pub fn die_with_owner(command: &mut Command, signal: Signal) {
    let owner = getpid();
    before_exec(command, move || {
        set_parent_process_death_signal(Some(signal))?;
        // The owner may have died before the line above took effect.
        if getppid() != Some(owner) {
            return Err(Errno::SRCH.into());
        }
        setpgid(None, None)?;
        Ok(())
    });
}

/// Has a child of root mount things where nobody else sees them: they are gone with it and
/// its own children, however these end. Without the right to it, nothing changes: then it may
/// not mount anything either.
#[allow(unsafe_code)]
pub fn own_mounts(command: &mut Command) {
    before_exec(command, || {
        // SAFETY: it concerns mounts alone, and a process with one thread.
        if unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.is_ok() {
            // Where mounts spread, as with systemd, they would spread back.
            let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
            let _ = mount_change(c"/", private);
        }
        Ok(())
    });
}

/// Leaves a descriptor open in the child, under the same number, and in no other.
pub fn keep_open(command: &mut Command, descriptor: OwnedFd) {
    before_exec(command, move || Ok(fcntl_setfd(&descriptor, FdFlags::empty())?));
}

#[allow(unsafe_code)]
fn before_exec(
    command: &mut Command,
    hook: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
) {
    // SAFETY: the hook runs between fork and exec, where only async-signal-safe calls are
    // allowed: ours are bare system calls without allocation or locks.
    unsafe {
        command.pre_exec(hook);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;

    use super::*;

    /// What only root can do; others mount nothing outside a user namespace.
    #[test]
    fn what_a_child_of_root_mounts_goes_with_it() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let place = tempfile::tempdir().unwrap();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "mount -t tmpfs none \"$0\" && echo mounted && exec sleep 1000"]);
        command.arg(place.path()).stdout(Stdio::piped());
        own_mounts(&mut command);
        let mut child = command.spawn().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(said.next().unwrap().unwrap(), "mounted");
        let has = |who: &str| {
            let mounts = std::fs::read_to_string(format!("/proc/{who}/mountinfo")).unwrap();
            mounts.contains(&*place.path().to_string_lossy())
        };
        assert!(has(&child.id().to_string()) && !has("self"));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
