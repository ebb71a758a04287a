//! Kernels: taken out of a Debian package, or given by the user.

mod decompress;
mod modules;
mod vmlinux;

use std::io::Read;
use std::path::Path;

pub use vmlinux::{Format, Problem};

pub(crate) use modules::Module;

/// The modules that a guest needs on a kernel that has them as modules, with
/// the group that tells the guest's init when to load them.
///
/// Debian's cloud kernel has no driver for a VM's generation ID (`CONFIG_VMGENID` is not set
/// in 6.1), by which Firecracker tells a guest that it is a clone. The host gives each clone
/// new randomness before its first command instead.
const NEEDED: &[(&str, &str)] = &[
    ("virtio_mmio", "all"),
    ("virtio_blk", "all"),
    ("virtio_rng", "all"),
    ("ext4", "all"),
    ("overlay", "all"),
    ("virtio_console", "serial"),
    ("vmw_vsock_virtio_transport", "vsock"),
    // What the group was called when the first data directories were set up.
    ("virtio_net", "card"),
];

/// The names in [`NEEDED`].
pub(crate) fn drivers() -> Vec<String> {
    NEEDED.iter().map(|(name, _)| (*name).to_owned()).collect()
}

/// What is taken out of a Debian kernel package.
#[derive(Debug)]
pub(crate) struct DebianKernel {
    /// Such as `6.1.0-56-cloud-amd64`.
    pub release: String,
    /// The kernel as a VMM boots it.
    pub image: Vec<u8>,
    /// The needed modules in the order in which they load.
    pub modules: Vec<Module>,
}

impl DebianKernel {
    /// Reads the unpacked package as a tar stream. `extra` are further modules.
    pub fn read(tar: impl Read, extra: &[&str]) -> Result<Self, String> {
        let mut image = None;
        let mut found = modules::Modules::default();
        let mut archive = tar::Archive::new(tar);
        for entry in archive.entries().map_err(|e| e.to_string())? {
            let mut entry = entry.map_err(|e| e.to_string())?;
            let path = entry.path().map_err(|e| e.to_string())?.into_owned();
            let path = path.strip_prefix(".").unwrap_or(&path).to_owned();
            let mut bytes = Vec::new();
            if let Some(release) = vmlinuz_release(&path) {
                entry.read_to_end(&mut bytes).map_err(|e| e.to_string())?;
                image = Some((release, bytes));
            } else if found.wants(&path) {
                entry.read_to_end(&mut bytes).map_err(|e| e.to_string())?;
                found.add(&path, bytes);
            }
        }
        let (release, packed) = image.ok_or("there is no boot/vmlinuz-* in it")?;
        let image = bootable(packed).map_err(|e| e.to_string())?;
        let needed: Vec<_> =
            NEEDED.iter().copied().chain(extra.iter().map(|name| (*name, "all"))).collect();
        let modules = found.choose(&needed)?;
        Ok(Self { release, image, modules })
    }
}

fn vmlinuz_release(path: &Path) -> Option<String> {
    let name = path.strip_prefix("boot").ok()?.to_str()?;
    Some(name.strip_prefix("vmlinuz-")?.to_owned())
}

/// Makes of a kernel file what boots fastest: an uncompressed `vmlinux` where
/// that can be entered directly, else the file as it is.
pub(crate) fn bootable(file: Vec<u8>) -> Result<Vec<u8>, Problem> {
    match vmlinux::inspect(&file)? {
        Format::Vmlinux => Ok(file),
        Format::BzImage => match vmlinux::extract(&file) {
            Ok(vmlinux) if vmlinux::has_pvh_entry(&vmlinux) => Ok(vmlinux),
            _ => Ok(file),
        },
    }
}
