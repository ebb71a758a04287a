//! An orderly end: nothing that was written is lost when the host then ends the VM.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, mount_remount};
use rustix::process::{Pid, Signal, getpid, kill_process};

/// How long programs may take to end after SIGTERM: what a database needs to write its
/// memory out, and no more than a person waits.
const TIMEOUT: Duration = Duration::from_secs(2);

/// How often it is looked whether they have ended: the kernel tells that to parents only.
const POLL: Duration = Duration::from_millis(5);

/// Ends all programs but this one and PID 1, and writes all file systems to their disks,
/// which take no more from then on. Returns what went wrong, in words.
pub fn leave() -> Vec<String> {
    end_programs();
    let mounts = fs::read("/proc/self/mounts").unwrap_or_default();
    let closed = disks(&mounts).into_values().filter_map(|place| close(&place).err()).collect();
    // Whatever is written on what is no disk of its own, such as an overlay.
    rustix::fs::sync();
    closed
}

/// Tells every program to end, waits for a while, and ends those that are left: what they
/// would still write after the sync would be lost.
fn end_programs() {
    for signal in [Signal::TERM, Signal::KILL] {
        let start = Instant::now();
        let mut told = false;
        loop {
            let others = others();
            if others.is_empty() {
                return;
            }
            // One that forks is told again and again to be gone, but only once to end.
            if !told || signal == Signal::KILL {
                for pid in others {
                    let _ = kill_process(pid, signal);
                }
                told = true;
            }
            if start.elapsed() > TIMEOUT {
                break;
            }
            std::thread::sleep(POLL);
        }
    }
}

/// All programs but PID 1 and this one. Threads of the kernel have no program, and those
/// that have ended have none any more.
fn others() -> Vec<Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let programs = entries.filter(|entry| fs::read_link(entry.path().join("exe")).is_ok());
    let numbers = programs.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let init = Pid::INIT;
    numbers.filter_map(Pid::from_raw).filter(|pid| *pid != init && *pid != getpid()).collect()
}

/// A place of each disk that can be written, from the text of `/proc/self/mounts` (proc(5)).
fn disks(mounts: &[u8]) -> BTreeMap<&[u8], PathBuf> {
    let mut disks = BTreeMap::new();
    for line in mounts.split(|byte| *byte == b'\n') {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        let [device, place, _, options, ..] = fields[..] else { continue };
        if device.starts_with(b"/dev/") && options.split(|byte| *byte == b',').any(|it| it == b"rw")
        {
            // Of several places of one disk the first is where it was mounted as a whole.
            disks.entry(device).or_insert_with(|| unescaped(place));
        }
    }
    disks
}

/// A path without the escapes of that file: `\040` is a space.
fn unescaped(text: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..3).and_then(|it| std::str::from_utf8(it).ok());
        match digits.and_then(|it| u8::from_str_radix(it, 8).ok()) {
            Some(byte) if *first == b'\\' => {
                path.push(byte);
                rest = &after[3..];
            }
            _ => {
                path.push(*first);
                rest = after;
            }
        }
    }
    OsString::from_vec(path).into()
}

/// Writes all of a file system to its disk, and takes no more.
fn close(place: &Path) -> Result<(), String> {
    let written = File::open(place).and_then(|root| Ok(rustix::fs::syncfs(&root)?));
    written.map_err(|e| format!("{} is not written to its disk: {e}", place.display()))?;
    // One that is in use stays as it is, but nobody is left to write.
    let _ = mount_remount(place, MountFlags::RDONLY, "");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_disk_that_can_be_written_is_found_once() {
        let mounts = b"/dev/vda /base ext4 ro,relatime 0 0\n\
            overlay / overlay rw,lowerdir=/base 0 0\n\
            tmpfs /dev/shm tmpfs rw 0 0\n\
            /dev/vdb /workspace ext4 rw,nosuid,nodev 0 0\n\
            /dev/vdc /run/fireclaw/scratch ext4 rw,nosuid 0 0\n\
            /dev/vdc /tmp ext4 rw,nosuid 0 0\n\
            /dev/vdd /with\\040space\\134and ext4 nosuid,rw 0 0\n\
            /dev/broken\n";
        let found: Vec<PathBuf> = disks(mounts).into_values().collect();
        let expected = ["/workspace", "/run/fireclaw/scratch", "/with space\\and"];
        assert_eq!(found, expected.map(PathBuf::from));
    }

    proptest! {
        #[test]
        fn any_mounts_are_read_without_panic(mounts in prop::collection::vec(any::<u8>(), 0..200)) {
            disks(&mounts);
            unescaped(&mounts);
        }

        #[test]
        fn a_path_without_escapes_is_itself(path in "[a-z/0-9é]{0,50}") {
            prop_assert_eq!(unescaped(path.as_bytes()), PathBuf::from(path));
        }
    }
}
