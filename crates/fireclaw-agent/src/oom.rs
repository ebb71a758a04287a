//! Whether the VM's memory ran out.

use std::fs;

/// How many processes the kernel has killed since the VM's start because its memory
/// ran out; 0 on a kernel that does not count them (before Linux 4.13, or without
/// `CONFIG_VM_EVENT_COUNTERS`).
pub fn kills() -> u64 {
    count(&fs::read_to_string("/proc/vmstat").unwrap_or_default()).unwrap_or(0)
}

/// The same from the text of `/proc/vmstat` (proc(5)).
fn count(vmstat: &str) -> Option<u64> {
    let line = vmstat.lines().find_map(|line| line.strip_prefix("oom_kill "))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_count_is_read() {
        assert_eq!(count("oom_kills_x 7\noom_kill 3\nunevictable_pgs_culled 0\n"), Some(3));
        for none in ["", "oom_kill\n", "oom_kill x\n", "oom_kill -1"] {
            assert_eq!(count(none), None, "{none:?}");
        }
    }
}
