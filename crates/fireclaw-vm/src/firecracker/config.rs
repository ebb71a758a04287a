//! From what to boot to the requests that boot it.

use std::fs;
use std::path::{Path, PathBuf};

use super::types::{
    Action, BackendType, BootSource, Drive, EntropyDevice, InstanceActionInfo, LogLevel, Logger,
    MachineConfiguration, MemoryBackend, NetworkInterface, NetworkOverride, PartialDrive, Request,
    SnapshotCreateParams, SnapshotLoadParams, SnapshotType, Vm, VmState, Vsock, VsockOverride,
};
use crate::backend::{CARD_ARG, MEMORY_FILE, STATE_FILE};
use crate::{BLANK_MAC, Error, MachineSpec, Result};

/// The guest's vsock address; each VMM has its own, so all can be the same.
pub const GUEST_CID: u32 = 3;

/// The name of the vsock device's socket in the VMM's directory.
pub const VSOCK: &str = "v.sock";

/// The card's name in Firecracker's API.
const CARD: &str = "eth0";

/// What Firecracker needs on the kernel's command line, and what saves time.
///
/// - `console=ttyS0 quiet`: the serial port is for what went wrong.
/// - `reboot=k panic=-1`: a reboot through the keyboard controller is how a
///   guest ends Firecracker; a panic reboots at once.
/// - `i8042.…`: that controller is there for nothing else, so not probed.
/// - `swiotlb=noforce`: no bounce buffers for devices that need none.
/// - `random.trust_cpu=on`: random numbers from the first moment.
/// - `fireclaw.stream=vsock`: for the Fireclaw guest.
///
/// Firecracker adds `pci=off`, without which a kernel looks for PCI devices in
/// vain, and `virtio_mmio.device=…` for kernels that do not find the devices
/// through ACPI (its `docs/kernel-policy.md`).
const KERNEL_ARGS: &str = "console=ttyS0 quiet reboot=k panic=-1 \
     i8042.noaux i8042.nomux i8042.dumbkbd swiotlb=noforce \
     random.trust_cpu=on fireclaw.stream=vsock";

/// The requests that configure a fresh VMM and start its guest, in order.
///
/// The paths in `spec` are as the VMM sees them. Its log goes to `log`, or
/// without one to standard output, which is also the guest's console. `tap` is
/// the name of what the card is plugged into. Only a machine that
/// `will_be_saved` takes [`save_requests`].
pub fn boot_requests(
    spec: &MachineSpec,
    log: Option<&Path>,
    tap: Option<&str>,
    will_be_saved: bool,
) -> Vec<Request> {
    let mut boot_args = KERNEL_ARGS.to_owned();
    if tap.is_some() {
        boot_args.push(' ');
        boot_args.push_str(CARD_ARG);
    }
    for arg in &spec.kernel_args {
        boot_args.push(' ');
        boot_args.push_str(arg);
    }
    // The log first, so that it tells what is wrong with the rest.
    let mut requests = vec![
        Request::Logger(Logger { log_path: log.map(Path::to_owned), level: LogLevel::Warning }),
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
/// with a vsock socket, writable disks and a `tap` of its own.
pub fn restore_requests(
    spec: &MachineSpec,
    directory: &Path,
    log: Option<&Path>,
    tap: Option<&str>,
) -> Vec<Request> {
    let own = spec.disks.iter().enumerate().filter(|(_, disk)| !disk.read_only);
    let own: Vec<Request> = own
        .map(|(n, disk)| {
            let (drive_id, path_on_host) = (format!("disk{n}"), disk.path.clone());
            Request::PartialDrive(PartialDrive { drive_id, path_on_host })
        })
        .collect();
    let mut requests = vec![
        Request::Logger(Logger { log_path: log.map(Path::to_owned), level: LogLevel::Warning }),
        Request::SnapshotLoad(SnapshotLoadParams {
            snapshot_path: directory.join(STATE_FILE),
            mem_backend: MemoryBackend {
                backend_type: BackendType::File,
                backend_path: directory.join(MEMORY_FILE),
            },
            // Not before it has its own disks.
            resume_vm: own.is_empty(),
            network_overrides: tap
                .map(|tap| NetworkOverride { iface_id: CARD.into(), host_dev_name: tap.into() })
                .into_iter()
                .collect(),
            vsock_override: Some(VsockOverride { uds_path: PathBuf::from(VSOCK) }),
        }),
    ];
    if !own.is_empty() {
        requests.extend(own);
        requests.push(Request::Vm(Vm { state: VmState::Resumed }));
    }
    requests
}

/// The same with absolute paths: the VMM runs in another directory than ours.
///
/// Symbolic links are resolved: a snapshot remembers the disks' paths, and a
/// restored machine must find the same files there even if a link on the way
/// leads elsewhere by then.
pub(super) fn absolute(spec: &MachineSpec) -> Result<MachineSpec> {
    let mut spec = spec.clone();
    let disks = spec.disks.iter_mut().map(|disk| &mut disk.path);
    for path in disks.chain([&mut spec.kernel, &mut spec.initramfs]) {
        *path = fs::canonicalize(&*path)
            // What is missing is told by Firecracker.
            .or_else(|_| std::path::absolute(&*path))
            .map_err(Error::file("find", &*path))?;
    }
    Ok(spec)
}
