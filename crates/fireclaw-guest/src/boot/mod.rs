//! From the kernel's hand-over to a usable root file system.

mod modules;
mod mounts;

use std::time::Duration;

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
    modules::load(transport)?;
    mounts::root()?;
    mounts::system();
    crate::identity::cover_boot_id();
    loopback_up();
    Ok(Booted { transport, kernel, init: uptime().saturating_sub(kernel) })
}

/// Time since the kernel started its clocks.
pub fn uptime() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// Sets `lo` up, so that programs in the guest can speak with each other.
///
/// A kernel without networking has no `lo`; that is fine.
#[allow(unsafe_code)]
fn loopback_up() {
    use std::os::fd::AsRawFd;
    let Ok(socket) = std::net::UdpSocket::bind("0.0.0.0:0") else { return };
    // SAFETY: ifreq is plain data for which all-zero is valid; the name stays
    // NUL-terminated and both ioctls get a live socket and a valid pointer.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        if libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS as _, &mut request) == 0 {
            request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short;
            libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &request);
        }
    }
}
