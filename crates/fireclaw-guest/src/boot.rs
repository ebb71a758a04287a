//! From the kernel's hand-over to a usable root file system.

mod modules;
mod mounts;

use std::time::Duration;

use fireclaw_protocol::boot::INTERFACE;
use rustix::time::{ClockId, clock_gettime};

use crate::transport::Kind;

/// What the boot found out.
#[derive(Debug)]
pub struct Booted {
    /// How the host is reached.
    pub transport: Kind,
    /// From the kernel's start to the start of this program.
    pub kernel: Duration,
    /// From there to a usable root.
    pub init: Duration,
}

/// Loads modules, mounts everything and changes into the guest's root.
pub fn boot() -> Result<Booted, String> {
    let kernel = uptime();
    mounts::early()?;
    let cmdline = std::fs::read_to_string("/proc/cmdline")
        .map_err(|e| format!("cannot read the kernel's command line: {e}"))?;
    let transport = Kind::from_cmdline(&cmdline)?;
    modules::load(&groups(&cmdline, transport))?;
    mounts::root()?;
    mounts::system();
    crate::identity::cover_boot_id();
    crate::interface::loopback_up();
    Ok(Booted { transport, kernel, init: uptime().saturating_sub(kernel) })
}

/// The groups of modules that this VM needs.
fn groups(cmdline: &str, transport: Kind) -> Vec<&'static str> {
    let mut groups = vec!["all", transport.name()];
    if cmdline.split_whitespace().any(|word| word == INTERFACE) {
        // As the archives of modules in data directories have it.
        groups.push("card");
    }
    groups
}

/// Time since the kernel started its clocks.
pub fn uptime() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_modules_of_an_interface_are_for_machines_that_have_one() {
        assert_eq!(groups("quiet fireclaw.interfaces x", Kind::Serial), ["all", "serial"]);
        assert_eq!(groups("quiet fireclaw.interface\n", Kind::Vsock), ["all", "vsock", "card"]);
    }
}
