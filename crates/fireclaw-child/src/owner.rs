//! What ties a child to its parent, in the kernel.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal, setpgid};

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
