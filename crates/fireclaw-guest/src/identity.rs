//! Takes on the identity that the host gives: clock, randomness, names.

use std::fs;
use std::fs::OpenOptions;

use fireclaw_protocol::hello::Identity;
use rustix::time::{ClockId, Timespec, clock_settime};

/// Applies all of it or says what failed. No command runs before this.
pub fn apply(identity: &Identity) -> Result<(), String> {
    set_clock(identity.wall_clock_ns)?;
    add_entropy(&identity.entropy)?;
    rustix::system::sethostname(identity.hostname.as_bytes())
        .map_err(|e| format!("cannot set the host name: {e}"))?;
    write_names(identity);
    Ok(())
}

fn set_clock(nanoseconds: u64) -> Result<(), String> {
    const SECOND: u64 = 1_000_000_000;
    let time = Timespec {
        tv_sec: i64::try_from(nanoseconds / SECOND).map_err(|e| e.to_string())?,
        tv_nsec: i64::try_from(nanoseconds % SECOND).map_err(|e| e.to_string())?,
    };
    clock_settime(ClockId::Realtime, time).map_err(|e| format!("cannot set the clock: {e}"))
}

/// Mixes the host's random bytes in, credits them, and reseeds (`random(4)`).
#[allow(unsafe_code)]
fn add_entropy(bytes: &[u8]) -> Result<(), String> {
    use std::os::fd::AsRawFd;
    const MAX: usize = 256;
    // From <linux/random.h>: _IOW('R', 0x03, int[2]) and _IO('R', 0x07).
    const RNDADDENTROPY: libc::Ioctl = 0x4008_5203;
    const RNDRESEEDCRNG: libc::Ioctl = 0x5207;
    #[repr(C)]
    struct PoolInfo {
        entropy_count: libc::c_int,
        size: libc::c_int,
        buffer: [u8; MAX],
    }
    if bytes.len() < 32 || bytes.len() > MAX {
        return Err(format!("{} bytes of entropy, 32 to {MAX} expected", bytes.len()));
    }
    let mut info = PoolInfo { entropy_count: 0, size: 0, buffer: [0; MAX] };
    info.size = libc::c_int::try_from(bytes.len()).map_err(|e| e.to_string())?;
    info.entropy_count = info.size * 8;
    info.buffer[..bytes.len()].copy_from_slice(bytes);
    let random = OpenOptions::new()
        .write(true)
        .open("/dev/urandom")
        .map_err(|e| format!("cannot open /dev/urandom: {e}"))?;
    // SAFETY: RNDADDENTROPY reads a `struct rand_pool_info` whose `size` says
    // how many bytes of the buffer follow; RNDRESEEDCRNG takes no argument.
    let added = unsafe {
        libc::ioctl(random.as_raw_fd(), RNDADDENTROPY, &info) == 0
            && libc::ioctl(random.as_raw_fd(), RNDRESEEDCRNG) == 0
    };
    if added {
        Ok(())
    } else {
        Err(format!("cannot seed the random generator: {}", std::io::Error::last_os_error()))
    }
}

/// Files that repeat what the kernel knows. An image may lack `/etc`.
fn write_names(identity: &Identity) {
    let hex: String = identity.machine_id.iter().map(|byte| format!("{byte:02x}")).collect();
    let _ = fs::write("/etc/machine-id", format!("{hex}\n"));
    let _ = fs::write("/etc/hostname", format!("{}\n", identity.hostname));
    let _ = fs::write(
        "/etc/hosts",
        format!(
            "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n127.0.1.1 {}\n",
            identity.hostname
        ),
    );
}
