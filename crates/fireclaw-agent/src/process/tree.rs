//! Everything a command started, however it daemonized.
//!
//! An agent has no rights over cgroups. But it is the reaper of its descendants
//! (prctl(2), `PR_SET_CHILD_SUBREAPER`): whoever leaves its parents becomes its child,
//! and so all that a command started is found below this process.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, waitpid};
use tokio::process::{Child, Command};

use super::table::{Running, Table, variable};

/// Marks in its environment what a command started.
const MARK: &str = "FIRECLAW_CALL";

/// How long killed processes may take to be gone.
const TIMEOUT: Duration = Duration::from_secs(2);

/// How often the table is read by a kill that cannot wait: each time there were processes
/// that started since. A command that forks faster than that is ended with the next one.
const PASSES: u32 = 100;

/// The commands that run in this process, by their mark. One table, because orphans come
/// to the process, whichever part of it started them.
static COMMANDS: Mutex<Commands> = Mutex::new(Commands { last: 0, running: BTreeMap::new() });

struct Commands {
    last: u64,
    running: BTreeMap<u64, Running>,
}

fn commands() -> MutexGuard<'static, Commands> {
    COMMANDS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes this process the parent of its descendants' orphans.
pub fn adopt_orphans() -> io::Result<()> {
    Ok(rustix::process::set_child_subreaper(Some(getpid()))?)
}

/// The processes of one command. Dropping it kills them.
pub struct Tree {
    number: u64,
    killed: HashSet<(u32, u64)>,
}

impl Tree {
    /// Starts a command in a session of its own.
    pub fn spawn(command: &mut Command) -> io::Result<(Self, Child)> {
        // Held over the start: nobody takes a process that is not listed yet for an orphan.
        let mut commands = commands();
        commands.last += 1;
        let number = commands.last;
        let mark = format!("{}-{number}", std::process::id());
        command.env(MARK, &mark);
        lead_session(command);
        let child = command.spawn()?;
        let leader = child.id().unwrap_or(0);
        commands.running.insert(number, Running { leader, mark });
        Ok((Self { number, killed: HashSet::new() }, child))
    }

    /// Kills all of it and waits until it is gone, unless the kernel holds on to it.
    pub async fn kill(&mut self) {
        let start = Instant::now();
        while self.pass().1 && start.elapsed() < TIMEOUT {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Kills what is there. Says whether there was something new, and whether anything
    /// is left.
    fn pass(&mut self) -> (bool, bool) {
        let commands = commands();
        let running: Vec<Running> = commands.running.values().cloned().collect();
        let Some(own) = commands.running.get(&self.number) else { return (false, false) };
        let us = std::process::id();
        let table = Table::read();
        let (mut new, mut left) = (false, false);
        for (number, process) in table.members(us, own, &running, |pid| variable(pid, MARK)) {
            let Some(pid) = pid(number) else { continue };
            new |= self.killed.insert((number, process.started));
            // What has other rights stays, and is not waited for.
            left |= kill_process(pid, Signal::KILL).is_ok();
        }
        for zombie in table.orphaned_zombies(us, &running) {
            let _ = waitpid(pid(zombie), WaitOptions::NOHANG);
        }
        (new, left)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        for _ in 0..PASSES {
            if !self.pass().0 {
                break;
            }
        }
        commands().running.remove(&self.number);
    }
}

fn pid(number: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(number).ok()?)
}

/// Makes the child the leader of a session, by which its processes are known.
#[allow(unsafe_code)]
fn lead_session(command: &mut Command) {
    let hook = || Ok(rustix::process::setsid().map(drop)?);
    // SAFETY: between fork and exec only async-signal-safe calls are allowed. The hook is
    // one bare system call; it neither allocates nor locks.
    unsafe {
        command.pre_exec(hook);
    }
}
