//! From what to boot to the requests that boot it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use fireclaw_host::PathError;
use fireclaw_protocol::boot::{self, INTERFACE, STREAM};

use super::types::{
    Action, BackendType, BootSource, CacheType, Drive, EntropyDevice, InstanceActionInfo, LogLevel,
    Logger, MachineConfiguration, MemoryBackend, NetworkInterface, NetworkOverride, Request,
    SnapshotCreateParams, SnapshotLoadParams, SnapshotType, Vm, VmState, Vsock, VsockOverride,
};
use crate::backend::{MEMORY_FILE, STATE_FILE};
use crate::{BLANK_MAC, MachineSpec, Result};

/// The guest's vsock address; each VMM has its own, so all can be the same.
pub const GUEST_CID: u32 = 3;

/// The name of the vsock device's socket in the VMM's directory.
pub const VSOCK: &str = "v.sock";

/// The interface's name in Firecracker's API.
const CARD: &str = "eth0";

/// What Firecracker needs on the kernel's command line, and what saves time.
///
/// - `console=ttyS0 quiet`: the serial port is for what went wrong.
/// - `reboot=k panic=-1`: a reboot through the keyboard controller is how a
///   guest ends Firecracker; a panic reboots at once.
/// - `i8042.…`: that controller is there for nothing else, so not probed.
/// - `swiotlb=noforce`: no bounce buffers for devices that need none.
/// - `random.trust_cpu=on`: random numbers from the first moment.
///
/// Firecracker adds `pci=off`, without which a kernel looks for PCI devices in
/// vain, and `virtio_mmio.device=…` for kernels that do not find the devices
/// through ACPI (its `docs/kernel-policy.md`).
const KERNEL_ARGS: &str = "console=ttyS0 quiet reboot=k panic=-1 \
     i8042.noaux i8042.nomux i8042.dumbkbd swiotlb=noforce \
     random.trust_cpu=on";

/// The requests that configure a fresh VMM and start its guest, in order.
///
/// The paths in `spec` are as the VMM sees them. Its log goes to `log`. `tap`
/// is the name of what the interface is plugged into. Only a VM that
/// `will_be_saved` takes [`save_requests`].
pub fn boot_requests(
    spec: &MachineSpec,
    log: &Path,
    tap: Option<&str>,
    will_be_saved: bool,
) -> Vec<Request> {
    let mut boot_args = format!("{KERNEL_ARGS} {STREAM}{}", boot::VSOCK);
    if tap.is_some() {
        boot_args.push(' ');
        boot_args.push_str(INTERFACE);
    }
    for arg in &spec.kernel_args {
        boot_args.push(' ');
        boot_args.push_str(arg);
    }
    // The log first, so that it tells what is wrong with the rest.
    let mut requests = vec![
        Request::Logger(Logger { log_path: log.to_owned(), level: LogLevel::Warning }),
        Request::MachineConfiguration(MachineConfiguration {
            vcpu_count: spec.cpus,
            mem_size_mib: spec.memory_mib,
            track_dirty_pages: will_be_saved,
        }),
        Request::BootSource(BootSource {
            kernel_image_path: spec.kernel.clone(),
            initrd_path: Some(spec.initramfs.clone()),
            boot_args,
        }),
    ];
    requests.extend(spec.disks.iter().enumerate().map(|(n, disk)| {
        Request::Drive(Drive {
            drive_id: format!("disk{n}"),
            path_on_host: disk.path.clone(),
            is_root_device: false,
            is_read_only: disk.read_only,
            cache_type: if disk.read_only { CacheType::Unsafe } else { CacheType::Writeback },
        })
    }));
    requests.extend(tap.map(|tap| {
        Request::NetworkInterface(NetworkInterface {
            iface_id: CARD.into(),
            host_dev_name: tap.into(),
            guest_mac: BLANK_MAC.into(),
        })
    }));
    requests.push(Request::Entropy(EntropyDevice {}));
    requests.push(Request::Vsock(Vsock { guest_cid: GUEST_CID, uds_path: PathBuf::from(VSOCK) }));
    requests.push(Request::Action(InstanceActionInfo { action_type: Action::InstanceStart }));
    requests
}

/// The requests that stop a guest and write its snapshot into `directory`.
pub fn save_requests(directory: &Path) -> Vec<Request> {
    vec![
        Request::Vm(Vm { state: VmState::Paused }),
        Request::SnapshotCreate(SnapshotCreateParams {
            // A guest that has just booted has used a small part of its memory:
            // only that is written, whatever size it has.
            snapshot_type: SnapshotType::Diff,
            snapshot_path: directory.join(STATE_FILE),
            mem_file_path: directory.join(MEMORY_FILE),
        }),
    ]
}

/// The requests that let a fresh VMM go on from the snapshot in `directory`,
/// with a vsock socket and a `tap` of its own.
pub fn restore_requests(directory: &Path, log: &Path, tap: Option<&str>) -> Vec<Request> {
    vec![
        Request::Logger(Logger { log_path: log.to_owned(), level: LogLevel::Warning }),
        Request::SnapshotLoad(SnapshotLoadParams {
            snapshot_path: directory.join(STATE_FILE),
            mem_backend: MemoryBackend {
                backend_type: BackendType::File,
                backend_path: directory.join(MEMORY_FILE),
            },
            resume_vm: true,
            network_overrides: tap
                .map(|tap| NetworkOverride { iface_id: CARD.into(), host_dev_name: tap.into() })
                .into_iter()
                .collect(),
            vsock_override: Some(VsockOverride { uds_path: PathBuf::from(VSOCK) }),
        }),
    ]
}

/// Gives a VM's own disks the names that they have in every run directory,
/// in which the VMM runs. A snapshot remembers names: whoever is restored from
/// it finds its own disks under them, and needs none of the VM's that was
/// saved.
pub(super) fn own_disks(spec: &mut MachineSpec, run_dir: &Path) -> Result<()> {
    for (n, disk) in spec.disks.iter_mut().enumerate().filter(|(_, disk)| !disk.read_only) {
        let name = PathBuf::from(format!("disk{n}"));
        let link = run_dir.join(&name);
        // Of one that was here before.
        let _ = fs::remove_file(&link);
        symlink(&disk.path, &link).map_err(PathError::at("make", &link))?;
        disk.path = name;
    }
    Ok(())
}

/// The same with absolute paths: the VMM runs in another directory than ours.
///
/// Symbolic links are resolved: a snapshot remembers the disks' paths, and a
/// restored VM must find the same files there even if a link on the way
/// leads elsewhere by then.
pub(super) fn absolute(spec: &MachineSpec) -> Result<MachineSpec> {
    let mut spec = spec.clone();
    let disks = spec.disks.iter_mut().map(|disk| &mut disk.path);
    for path in disks.chain([&mut spec.kernel, &mut spec.initramfs]) {
        *path = fs::canonicalize(&*path)
            // What is missing is told by Firecracker.
            .or_else(|_| std::path::absolute(&*path))
            .map_err(PathError::at("find", &*path))?;
    }
    Ok(spec)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Disk;

    #[test]
    fn a_disk_that_can_be_written_is_flushed() {
        let spec = MachineSpec {
            kernel: "k".into(),
            initramfs: "i".into(),
            cpus: 1,
            memory_mib: 128,
            disks: vec![Disk { path: "own".into(), read_only: false }],
            interface: false,
            kernel_args: Vec::new(),
        };
        let requests = boot_requests(&spec, Path::new("log"), None, false);
        let cache_type = requests.iter().find_map(|request| match request {
            Request::Drive(drive) => Some(drive.cache_type),
            _ => None,
        });
        assert_eq!(cache_type, Some(CacheType::Writeback));
    }

    #[test]
    fn a_restored_machine_finds_its_own_disks_under_the_names_of_the_saved_one() {
        let directory = tempfile::tempdir().unwrap();
        let own = ["first", "second"].map(|machine| {
            let run_dir = directory.path().join(machine);
            fs::create_dir(&run_dir).unwrap();
            let disk = directory.path().join(format!("{machine}.img"));
            fs::write(&disk, machine).unwrap();
            let shared = Disk { path: "/base.img".into(), read_only: true };
            let mut spec = MachineSpec {
                kernel: "k".into(),
                initramfs: "i".into(),
                cpus: 1,
                memory_mib: 128,
                disks: vec![shared.clone(), Disk { path: disk, read_only: false }],
                interface: false,
                kernel_args: Vec::new(),
            };
            own_disks(&mut spec, &run_dir).unwrap();
            assert_eq!(spec.disks[0].path, shared.path);
            let name = spec.disks[1].path.clone();
            assert_eq!(fs::read_to_string(run_dir.join(&name)).unwrap(), machine);
            name
        });
        assert!(own[0] == own[1] && own[0].is_relative());
    }
}
