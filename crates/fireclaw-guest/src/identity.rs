//! Takes on the identity that the host gives: clock, randomness, names, interface.

use std::fs;
use std::fs::OpenOptions;
use std::path::Path;

use fireclaw_protocol::hello::{Identity, Personalize, Prepared};
use fireclaw_protocol::message::ExecRequest;
use rustix::mount::mount_bind;
use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

use crate::exec::{self, Reaper};
use crate::{interface, root};

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
pub struct LiveSystem {
    /// Tells how a preparing command ended.
    pub reaper: Reaper,
    /// Its interface.
    pub interface: interface::Setting,
}

impl Personalize for LiveSystem {
    fn take_on(&mut self, identity: &Identity) -> Result<(), String> {
        add_entropy(&identity.entropy)?;
        rustix::system::sethostname(identity.hostname.as_bytes())
            .map_err(|e| format!("cannot set the host name: {e}"))?;
        write_names(identity);
        self.interface.take_on(identity.interface.as_ref())?;
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

    fn step_clock(&mut self, nanoseconds: i64) {
        if nanoseconds != 0
            && let Err(e) = set_clock(self.clock().saturating_add_signed(nanoseconds))
        {
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

/// Writes the VM's id, and has D-Bus use it, too.
///
/// An image brings the ids of the VM that it was made on, in either file or in both,
/// and one may be a link to the other.
fn write_machine_id(root: &Path, hex: &str) {
    let [ours, of_dbus] = ["etc/machine-id", "var/lib/dbus/machine-id"].map(|it| root.join(it));
    // Written through a link it would not be a file of /etc.
    if ours.is_symlink() {
        let _ = fs::remove_file(&ours);
    }
    let _ = fs::write(&ours, format!("{hex}\n"));
    // As systemd makes it (machine-id(5)).
    if of_dbus.symlink_metadata().is_ok() && fs::remove_file(&of_dbus).is_ok() {
        let _ = std::os::unix::fs::symlink("/etc/machine-id", &of_dbus);
    }
}

/// Files that repeat what the kernel knows. An image may lack `/etc`.
fn write_names(identity: &Identity) {
    let hex: String = identity.machine_id.iter().map(|byte| format!("{byte:02x}")).collect();
    // One whose root is on a disk keeps the one that it has.
    if !Path::new(root::DISK).exists() {
        write_machine_id(Path::new("/"), &hex);
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    const OLD: &str = "0123456789abcdef0123456789abcdef\n";
    const NEW: &str = "fedcba9876543210fedcba9876543210";

    #[test]
    fn no_id_of_an_image_is_left() {
        let link = Some(PathBuf::from("/etc/machine-id"));
        type Make = fn(&Path, &Path);
        let images: [(Make, bool); 5] = [
            (|etc, dbus| [etc, dbus].into_iter().for_each(|it| fs::write(it, OLD).unwrap()), true),
            (|_, dbus| fs::write(dbus, OLD).unwrap(), true),
            (|_, dbus| symlink("/etc/machine-id", dbus).unwrap(), true),
            (
                |etc, dbus| {
                    fs::write(dbus, OLD).unwrap();
                    symlink(dbus, etc).unwrap();
                },
                true,
            ),
            (|etc, _| fs::write(etc, OLD).unwrap(), false),
        ];
        for (n, (make, has_dbus)) in images.into_iter().enumerate() {
            let root = tempfile::tempdir().unwrap();
            let [etc, dbus] = ["etc", "var/lib/dbus"].map(|it| root.path().join(it));
            fs::create_dir_all(&etc).unwrap();
            fs::create_dir_all(&dbus).unwrap();
            let [etc, dbus] = [etc, dbus].map(|it| it.join("machine-id"));
            make(&etc, &dbus);
            // A clone of a clone's snapshot gets another.
            for id in [NEW, &OLD[..32]] {
                write_machine_id(root.path(), id);
                assert!(etc.symlink_metadata().unwrap().is_file(), "image {n}");
                assert_eq!(fs::read_to_string(&etc).unwrap().trim(), id, "image {n}");
                assert_eq!(fs::read_link(&dbus).ok(), link.clone().filter(|_| has_dbus));
            }
        }
    }
}
