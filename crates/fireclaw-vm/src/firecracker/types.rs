//! The requests of Firecracker's API that Fireclaw makes.
//!
//! Named after the definitions in Firecracker's published description
//! (`src/firecracker/swagger/firecracker.yaml`, read at 1.17.0-dev), and only
//! with the fields that are set here. *Before boot* means until
//! `InstanceStart` or a snapshot's load has succeeded. Paths are opened by
//! Firecracker: relative to its working directory, in a jail to the jail.

use std::path::PathBuf;
use std::time::Duration;

use hyper::Method;
use serde::Serialize;

/// A request, sent with [`Api::send`](super::api::Api::send).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Request {
    /// `PUT /logger`, before boot.
    Logger(Logger),
    /// `PUT /machine-config`, before boot.
    MachineConfiguration(MachineConfiguration),
    /// `PUT /boot-source`, before boot.
    BootSource(BootSource),
    /// `PUT /drives/{drive_id}`, before boot; the guest sees them in order.
    Drive(Drive),
    /// `PUT /entropy`, before boot.
    Entropy(EntropyDevice),
    /// `PUT /vsock`, before boot.
    Vsock(Vsock),
    /// `PUT /network-interfaces/{iface_id}`, before boot.
    NetworkInterface(NetworkInterface),
    /// `PUT /actions`; each action says when.
    Action(InstanceActionInfo),
    /// `PATCH /vm`, after boot.
    Vm(Vm),
    /// `PUT /snapshot/create`, while paused.
    SnapshotCreate(SnapshotCreateParams),
    /// `PUT /snapshot/load`, before boot and before anything but the logger is
    /// configured; on failure Firecracker ends (its `snapshot-support.md`).
    SnapshotLoad(SnapshotLoadParams),
}

impl Request {
    /// The HTTP method.
    pub fn method(&self) -> Method {
        match self {
            Self::Vm(_) => Method::PATCH,
            _ => Method::PUT,
        }
    }

    /// The HTTP path.
    pub fn path(&self) -> String {
        match self {
            Self::Logger(_) => "/logger".into(),
            Self::MachineConfiguration(_) => "/machine-config".into(),
            Self::BootSource(_) => "/boot-source".into(),
            Self::Drive(drive) => format!("/drives/{}", drive.drive_id),
            Self::Entropy(_) => "/entropy".into(),
            Self::Vsock(_) => "/vsock".into(),
            Self::NetworkInterface(interface) => {
                format!("/network-interfaces/{}", interface.iface_id)
            }
            Self::Action(_) => "/actions".into(),
            Self::Vm(_) => "/vm".into(),
            Self::SnapshotCreate(_) => "/snapshot/create".into(),
            Self::SnapshotLoad(_) => "/snapshot/load".into(),
        }
    }

    /// How long the answer may take.
    pub fn timeout(&self) -> Duration {
        match self {
            // Answered when all of the guest's memory is in the file.
            Self::SnapshotCreate(_) => Duration::from_secs(120),
            _ => Duration::from_secs(10),
        }
    }
}

/// Where Firecracker logs, at most once per VMM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Logger {
    /// An existing file or pipe, opened without blocking: what a full pipe
    /// cannot take is dropped.
    pub log_path: PathBuf,
    /// What is logged.
    pub level: LogLevel,
}

/// The least serious that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum LogLevel {
    /// Failures.
    Error,
    /// And what may become one.
    Warning,
    /// And each API request.
    Info,
}

/// Processors and memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MachineConfiguration {
    /// Virtual processors, 1 to 32.
    pub vcpu_count: u32,
    /// Guest memory in MiB (2^20 bytes).
    pub mem_size_mib: u64,
    /// Whether KVM notes which pages are written to: for [`SnapshotType::Diff`].
    pub track_dirty_pages: bool,
}

/// What the guest boots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BootSource {
    /// An uncompressed ELF kernel, or since 1.17 a `bzImage`.
    pub kernel_image_path: PathBuf,
    /// The initial RAM file system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initrd_path: Option<PathBuf>,
    /// The kernel's command line; Firecracker adds its devices to it.
    pub boot_args: String,
}

/// A virtio block device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Drive {
    /// Letters, digits and underscores; part of the path too.
    pub drive_id: String,
    /// The raw image.
    pub path_on_host: PathBuf,
    /// Whether Firecracker adds `root=` for it: not with an initial RAM file
    /// system (its `docs/initrd.md`).
    pub is_root_device: bool,
    /// Whether the image is opened read-only.
    pub is_read_only: bool,
    /// What a guest's flush does.
    pub cache_type: CacheType,
}

/// What Firecracker does when a guest flushes a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum CacheType {
    /// Nothing: the guest is not offered to flush. Firecracker's default.
    Unsafe,
    /// It writes to the host's disk before it answers.
    Writeback,
}

/// A virtio random number generator, not limited in its rate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EntropyDevice {}

/// A virtio vsock device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Vsock {
    /// The guest's address, 3 or more.
    pub guest_cid: u32,
    /// The socket that Firecracker makes. A guest that connects to port `N` of
    /// the host reaches whoever listens on this name with `_N` added.
    pub uds_path: PathBuf,
}

/// A virtio network interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NetworkInterface {
    /// Letters, digits and underscores; part of the path too.
    pub iface_id: String,
    /// The TAP device on this host, opened at once.
    pub host_dev_name: String,
    /// The interface's hardware address, six bytes in hexadecimal.
    pub guest_mac: String,
}

/// Something to do at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InstanceActionInfo {
    /// What to do.
    pub action_type: Action,
}

/// See [`InstanceActionInfo`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Action {
    /// Boots the guest; before boot, once.
    InstanceStart,
}

/// Pauses or resumes the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Vm {
    /// The wanted state; asking again for the present one is fine.
    pub state: VmState,
}

/// See [`Vm`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum VmState {
    /// No virtual processor runs.
    Paused,
    /// All of them run.
    Resumed,
}

/// Saves a paused guest; existing files are overwritten.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SnapshotCreateParams {
    /// How much of the memory.
    pub snapshot_type: SnapshotType,
    /// The file for the state of processors and devices.
    pub snapshot_path: PathBuf,
    /// The file for the guest's memory, as large as that.
    pub mem_file_path: PathBuf,
}

/// See [`SnapshotCreateParams`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum SnapshotType {
    /// All of the guest's memory.
    Full,
    /// What was written to since the guest booted; the rest is a hole in the
    /// file and thus zero, as it is in the guest. Without the tracking of dirty
    /// pages, Firecracker would miss what the host has swapped out.
    Diff,
}

/// Restores a guest into a fresh VMM.
///
/// Its disks must be at the paths at which they were when it was saved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SnapshotLoadParams {
    /// The file with the state of processors and devices.
    pub snapshot_path: PathBuf,
    /// The guest's memory.
    pub mem_backend: MemoryBackend,
    /// Whether the guest runs at once; it is paused otherwise.
    pub resume_vm: bool,
    /// Network devices that have another name on this host.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub network_overrides: Vec<NetworkOverride>,
    /// Another socket for the vsock device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vsock_override: Option<VsockOverride>,
}

/// Where a restored guest's memory comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MemoryBackend {
    /// What `backend_path` is.
    pub backend_type: BackendType,
    /// The memory file, not to be changed while the VMM runs, or the socket of
    /// a page fault handler.
    pub backend_path: PathBuf,
}

/// See [`MemoryBackend`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum BackendType {
    /// A file that is mapped privately: pages are read when they are touched.
    File,
    /// A process that answers page faults with `userfaultfd(2)`.
    Uffd,
}

/// Another host device for one of a snapshot's network interfaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NetworkOverride {
    /// The interface's id in the snapshot.
    pub iface_id: String,
    /// The TAP device on this host.
    pub host_dev_name: String,
}

/// Another socket for a snapshot's vsock device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VsockOverride {
    /// See [`Vsock::uds_path`].
    pub uds_path: PathBuf,
}
