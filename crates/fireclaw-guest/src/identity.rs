//! Takes on the identity that the host gives: clock, randomness, names, card.

use std::fs;
use std::fs::OpenOptions;
use std::path::Path;

use fireclaw_protocol::hello::{Identity, Prepared, Settle};
use fireclaw_protocol::message::ExecRequest;
use rustix::mount::mount_bind;
use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

use crate::card;
use crate::exec::{self, Reaper};

/// What the kernel tells of its boot, the same in every clone of a snapshot
/// once anybody has read it.
const KERNEL_BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The file that is seen in its place.
const BOOT_ID: &str = "/run/fireclaw-boot-id";

/// Covers the kernel's boot id, which cannot be set, with a file that can.
pub fn cover_boot_id() {
    if let Ok(uuid) = fs::read("/proc/sys/kernel/random/uuid")
        && fs::write(BOOT_ID, uuid).is_ok()
    {
        let _ = mount_bind(BOOT_ID, KERNEL_BOOT_ID);
    }
}

/// This guest, whoever it is told to be.
pub struct Guest {
    /// Tells how a preparing command ended.
    pub reaper: Reaper,
    /// Its card.
    pub card: card::Setting,
}

impl Settle for Guest {
    fn take_on(&mut self, identity: &Identity) -> Result<(), String> {
        add_entropy(&identity.entropy)?;
        rustix::system::sethostname(identity.hostname.as_bytes())
            .map_err(|e| format!("cannot set the host name: {e}"))?;
        write_names(identity);
        self.card.take_on(identity.card.as_ref())?;
        // Last: all the above takes time.
        set_clock(identity.wall_clock_ns)
    }

    async fn prepare(&mut self, command: ExecRequest) -> Prepared {
        exec::prepare(command, &self.reaper).await
    }

    fn clock(&self) -> u64 {
        let now = clock_gettime(ClockId::Realtime);
        now.tv_sec.unsigned_abs() * SECOND + now.tv_nsec.unsigned_abs()
    }

    fn step_clock(&mut self, nanoseconds: u64) {
        if let Err(e) = set_clock(self.clock().saturating_add(nanoseconds)) {
            crate::say!("{e}");
        }
    }
}

/// Nanoseconds in a second.
const SECOND: u64 = 1_000_000_000;

fn set_clock(nanoseconds: u64) -> Result<(), String> {
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
    if Path::new(BOOT_ID).exists()
        && let Ok(uuid) = fs::read("/proc/sys/kernel/random/uuid")
    {
        let _ = fs::write(BOOT_ID, uuid);
    }
    let _ = fs::write("/etc/hostname", format!("{}\n", identity.hostname));
    let _ = fs::write(
        "/etc/hosts",
        format!(
            "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n127.0.1.1 {}\n",
            identity.hostname
        ),
    );
}
