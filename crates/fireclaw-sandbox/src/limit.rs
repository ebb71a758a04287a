//! How many sandboxes this host can run.

use fireclaw_vm::Launcher;

/// How many sandboxes of one spec this host can run at once, with the reason.
#[derive(Debug, Clone)]
pub struct Limit {
    /// The number, at least 1.
    pub sandboxes: usize,
    /// Why not more, in words.
    pub reason: String,
}

impl Limit {
    /// What the host's free memory and processors allow.
    pub(crate) fn of(launcher: &Launcher) -> Self {
        let hardware = launcher.backend.kind().hardware();
        // Besides its memory: the VMM, and what emulation translates into.
        let each = launcher.spec.memory_mib + if hardware { 16 } else { 160 };
        let free = memory_mib("MemAvailable:").unwrap_or(u64::MAX);
        let by_memory = usize::try_from(free / each).unwrap_or(usize::MAX).max(1);
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let for_each = if hardware { 64 } else { 16 };
        let by_processors = processors * for_each;
        if by_memory < by_processors {
            let reason = format!("each may take {each} MiB of the {free} MiB that are free");
            Self { sandboxes: by_memory, reason }
        } else {
            let reason = format!("{for_each} for each of {processors} processors");
            Self { sandboxes: by_processors, reason }
        }
    }
}

/// A line of `/proc/meminfo` (proc(5)) in MiB.
pub fn memory_mib(name: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? / 1024)
}
