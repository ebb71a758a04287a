//! The processes of the VM, and which of them belong to a command.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;

/// The most that is read of a process's environment, in bytes.
const MAX_ENVIRONMENT: u64 = 256 * 1024;

/// The longest chain of parents that is followed: the table is read while it changes, and
/// a number that is used again could close a circle.
const MAX_DEPTH: usize = 1000;

/// A process as `/proc` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    pub parent: u32,
    pub session: u32,
    /// Ended, but not collected.
    pub zombie: bool,
    /// When it started. With the number this is unique.
    pub started: u64,
}

/// All processes that can be seen, by number.
pub struct Table(BTreeMap<u32, Process>);

/// A command that runs: the number of its first process, which is also its session, and
/// the mark in its environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    pub leader: u32,
    pub mark: String,
}

impl Table {
    /// As it is now.
    pub fn read() -> Self {
        let Ok(entries) = fs::read_dir("/proc") else { return Self(BTreeMap::new()) };
        let numbers = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
        let processes = numbers.filter_map(|pid: u32| {
            let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
            Some((pid, parse(&String::from_utf8_lossy(&stat))?))
        });
        Self(processes.collect())
    }

    /// Children of `us` that ended and that are not the first process of a command.
    pub fn orphaned_zombies(&self, us: u32, running: &[Running]) -> Vec<u32> {
        let is_ours = |(pid, process): &(&u32, &Process)| {
            process.parent == us && process.zombie && !running.iter().any(|r| r.leader == **pid)
        };
        self.0.iter().filter(is_ours).map(|(pid, _)| *pid).collect()
    }

    /// The living processes of the command `of`, one of those `running`, among the
    /// descendants of `us`. `mark` reads a process's mark.
    ///
    /// Whoever left its parents is a child of `us`; the session or the mark says whose it
    /// is. One that changed both belongs to the only command that runs: with others it is
    /// left to the last of them.
    pub fn members(
        &self,
        us: u32,
        of: &Running,
        running: &[Running],
        mark: impl Fn(u32) -> Option<String>,
    ) -> Vec<(u32, Process)> {
        // Below each child of ours is one tree.
        let mut trees = BTreeMap::new();
        let mut members = Vec::new();
        for (pid, process) in &self.0 {
            let Some(top) = self.top(us, *pid) else { continue };
            let owner = trees.entry(top).or_insert_with(|| {
                let session = self.0.get(&top).map(|p| p.session);
                let by_place =
                    running.iter().find(|r| r.leader == top || Some(r.leader) == session);
                let by_mark = || {
                    let mark = mark(top)?;
                    running.iter().find(|r| r.mark == mark)
                };
                by_place.or_else(by_mark).or(match running {
                    [only] => Some(only),
                    _ => None,
                })
            });
            let by_session = running.iter().find(|r| r.leader == process.session);
            if !process.zombie && (*owner).or(by_session) == Some(of) {
                members.push((*pid, *process));
            }
        }
        members
    }

    /// The child of `us` that `pid` descends from or is.
    fn top(&self, us: u32, pid: u32) -> Option<u32> {
        let mut at = pid;
        for _ in 0..MAX_DEPTH {
            match self.0.get(&at)?.parent {
                0 => return None,
                parent if parent == us => return Some(at),
                parent => at = parent,
            }
        }
        None
    }
}

/// Reads the value of a variable from the environment that a process started with.
pub fn variable(pid: u32, name: &str) -> Option<String> {
    let file = fs::File::open(format!("/proc/{pid}/environ")).ok()?;
    let mut bytes = Vec::new();
    file.take(MAX_ENVIRONMENT).read_to_end(&mut bytes).ok()?;
    bytes.split(|b| *b == 0).find_map(|variable| {
        let value = variable.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        Some(String::from_utf8_lossy(value).into_owned())
    })
}

/// Reads `/proc/PID/stat` (proc_pid_stat(5)). The name, in brackets, may hold anything.
fn parse(stat: &str) -> Option<Process> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // From field 3 on: state, parent, group, session; the start is field 22.
    Some(Process {
        zombie: matches!(*fields.first()?, "Z" | "X"),
        parent: fields.get(1)?.parse().ok()?,
        session: fields.get(3)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const US: u32 = 10;

    fn process(parent: u32, session: u32) -> Process {
        Process { parent, session, zombie: false, started: 0 }
    }

    fn running(leader: u32) -> Running {
        Running { leader, mark: format!("m{leader}") }
    }

    fn members(table: &[(u32, Process)], of: u32, all: &[u32], marks: &[(u32, &str)]) -> Vec<u32> {
        let table = Table(table.iter().copied().collect());
        let all: Vec<Running> = all.iter().map(|leader| running(*leader)).collect();
        let mark = |pid| marks.iter().find(|(p, _)| *p == pid).map(|(_, mark)| (*mark).to_owned());
        table.members(US, &running(of), &all, mark).into_iter().map(|(pid, _)| pid).collect()
    }

    #[test]
    fn whose_processes_are_whose() {
        let table = [
            (1, process(0, 1)),
            (US, process(1, US)),
            (20, process(US, 20)),
            (21, process(20, 20)),
            (22, process(21, 22)),
            (30, process(US, 30)),
            (31, process(30, 31)),
            // Left its parents, but not the session.
            (40, process(US, 20)),
            // Left both; the mark tells.
            (50, process(US, 50)),
            (51, process(50, 51)),
            // Left everything.
            (60, process(US, 60)),
            (70, process(1, 70)),
        ];
        let marks = [(50, "m20"), (60, "other")];
        assert_eq!(members(&table, 20, &[20, 30], &marks), [20, 21, 22, 40, 50, 51]);
        assert_eq!(members(&table, 30, &[20, 30], &marks), [30, 31]);
        assert_eq!(members(&table, 30, &[30], &[]), [20, 21, 22, 30, 31, 40, 50, 51, 60]);
    }

    #[test]
    fn the_dead_are_collected_not_killed() {
        let dead = Process { zombie: true, ..process(US, 20) };
        let table = [(US, process(1, US)), (20, dead), (21, dead)];
        assert!(members(&table, 20, &[20], &[]).is_empty());
        let table = Table(table.into_iter().collect());
        assert_eq!(table.orphaned_zombies(US, &[running(20)]), [21]);
    }

    #[test]
    fn this_process_is_in_the_table() {
        let table = Table::read();
        let this = table.0[&std::process::id()];
        assert!(!this.zombie && this.started > 0);
        assert!(variable(std::process::id(), "PATH").is_some());
    }

    proptest! {
        #[test]
        fn any_line_is_read_without_panic(line in "\\PC{0,80}") {
            let _ = parse(&line);
        }

        #[test]
        fn a_name_may_hold_anything(name in "[ -~]{0,15}") {
            let numbers: Vec<String> = (5..=22).map(|n| n.to_string()).collect();
            let line = format!("7 ({name}) S 4 {} 23", numbers.join(" "));
            let expected = Process { parent: 4, session: 6, zombie: false, started: 22 };
            prop_assert_eq!(parse(&line), Some(expected));
        }
    }
}
