//! What a snapshot was made from.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use fireclaw_host::PathError;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{Backend, MachineSpec, Result, VmmKind};

/// What snapshots that `run` makes for itself are called, before their key.
pub(super) const AUTOMATIC: &str = "auto-";

/// In place of the path of a disk that each VM has for itself. Snapshots in
/// whose keys it is empty remember the paths of the VM that was saved.
const OWN: &str = "own";

/// Everything that a snapshot depends on. Two keys are equal only if a VM
/// restored from one would be what a cold boot for the other gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// Our own version: the VM line and the kernel's parameters are ours.
    fireclaw: String,
    pub(super) vmm: VmmKind,
    pub(super) vmm_version: String,
    /// The processor's name and abilities: a guest has adapted to them.
    processor: String,
    /// Restoring on another host kernel can change what KVM offers.
    host_kernel: String,
    kernel: Stamp,
    initramfs: Stamp,
    disks: Vec<Stamp>,
    #[serde(default, alias = "card")]
    interface: bool,
    kernel_args: Vec<String>,
    pub(super) cpus: u32,
    pub(super) memory_mib: u64,
    generation: u32,
    /// What the VM ran before it was saved.
    warm: Option<String>,
}

/// What a file looked like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    path: PathBuf,
    bytes: u64,
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn size_only(self) -> Self {
        let (path, inode, modified, changed) = (PathBuf::from(OWN), 0, (0, 0), (0, 0));
        Self { path, inode, modified, changed, bytes: self.bytes }
    }

    /// Whether both are of one untouched file, wherever it lies now.
    pub(super) fn is_of_same_file(&self, other: &Self) -> bool {
        let placeless = |stamp: &Self| Self { path: PathBuf::new(), ..stamp.clone() };
        placeless(self) == placeless(other)
    }

    pub(super) fn of(path: &Path) -> Result<Self> {
        let path = fs::canonicalize(path).map_err(PathError::at("find", path))?;
        let meta = fs::metadata(&path).map_err(PathError::at("read", &path))?;
        Ok(Self {
            bytes: meta.len(),
            inode: meta.ino(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
            path,
        })
    }
}

impl Key {
    /// The key for booting `spec` on `backend`, as everything is now, and
    /// preparing it with a shell line.
    pub fn new(backend: &dyn Backend, spec: &MachineSpec, warm: Option<&str>) -> Result<Self> {
        let disks = spec
            .disks
            .iter()
            .map(|disk| match disk.read_only {
                true => Stamp::of(&disk.path),
                // Each clone has one of its own, which no guest has looked into
                // before its snapshot was taken: only its size counts.
                false => Stamp::of(&disk.path).map(Stamp::size_only),
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            fireclaw: env!("CARGO_PKG_VERSION").to_owned(),
            vmm: backend.kind(),
            vmm_version: backend.version().to_owned(),
            processor: processor(),
            host_kernel: first_line("/proc/sys/kernel/osrelease"),
            kernel: Stamp::of(&spec.kernel)?,
            initramfs: Stamp::of(&spec.initramfs)?,
            disks,
            interface: spec.interface,
            kernel_args: spec.kernel_args.clone(),
            cpus: spec.cpus,
            memory_mib: spec.memory_mib,
            generation: fireclaw_protocol::GENERATION,
            warm: warm.map(str::to_owned),
        })
    }

    /// The id of the snapshot under this key.
    pub fn id(&self) -> String {
        let json = serde_json::to_vec(self).unwrap_or_default();
        let digest: String =
            Sha256::digest(json).iter().take(8).map(|b| format!("{b:02x}")).collect();
        format!("{AUTOMATIC}{digest}")
    }

    /// Whether a snapshot under `other` was made for the same purpose, before
    /// something that went into it changed.
    pub(super) fn replaces(&self, other: &Self) -> bool {
        let purpose = |key: &Self| {
            // Of a disk that each VM has for itself, the size is the purpose.
            let disk = |disk: &Stamp| match disk.path == Path::new(OWN) {
                true => (PathBuf::new(), disk.bytes),
                false => (disk.path.clone(), 0),
            };
            let disks: Vec<_> = key.disks.iter().map(disk).collect();
            let shape = (key.vmm, key.cpus, key.memory_mib, key.interface);
            (shape, key.kernel_args.clone(), key.warm.clone(), disks)
        };
        self != other && purpose(self) == purpose(other)
    }
}

/// The first processor's description without what changes from moment to moment.
fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let first = text.split("\n\n").next().unwrap_or_default();
    let stable = ["vendor_id", "cpu family", "model", "stepping", "microcode", "flags"];
    let lines = first.lines().filter(|line| stable.iter().any(|name| line.starts_with(name)));
    let digest = Sha256::digest(lines.collect::<Vec<_>>().join("\n"));
    digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

fn first_line(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A key whose files lie in a directory.
    pub fn key(directory: &Path) -> Key {
        let file = directory.join("kernel");
        fs::write(&file, "kernel").unwrap();
        let stamp = Stamp::of(&file).unwrap();
        Key {
            fireclaw: "0.1.0".into(),
            vmm: VmmKind::QemuTcg,
            vmm_version: "7.2".into(),
            processor: processor(),
            host_kernel: String::new(),
            kernel: stamp.clone(),
            initramfs: stamp.clone(),
            disks: vec![stamp],
            interface: false,
            kernel_args: Vec::new(),
            cpus: 1,
            memory_mib: 256,
            generation: 1,
            warm: None,
        }
    }

    /// The same with another VMM.
    pub fn upgraded(key: &Key) -> Key {
        Key { vmm_version: "8.0".into(), ..key.clone() }
    }

    /// The same with another amount of memory.
    pub fn sized(key: &Key, memory_mib: u64) -> Key {
        Key { memory_mib, ..key.clone() }
    }

    #[test]
    fn a_changed_file_is_replaced_and_another_size_is_another_purpose() {
        let home = tempfile::tempdir().unwrap();
        let key = key(home.path());
        let changed = Stamp { changed: (1, 1), ..key.kernel.clone() };
        assert!(Key { disks: vec![changed], ..key.clone() }.replaces(&key));
        let own = |bytes| Key {
            disks: vec![Stamp { bytes, ..key.kernel.clone().size_only() }],
            ..key.clone()
        };
        assert!(!own(1).replaces(&own(2)));
    }

    #[test]
    fn whatever_went_in_changes_the_name() {
        let home = tempfile::tempdir().unwrap();
        let key = key(home.path());
        let warm = Key { warm: Some("true".into()), ..key.clone() };
        let carded = Key { interface: true, ..key.clone() };
        assert!(!carded.replaces(&key), "each is of use");
        for other in [upgraded(&key), sized(&key, 512), warm, carded] {
            assert_ne!(other.id(), key.id());
        }
        assert_eq!(key.clone().id(), key.id());
    }
}
