//! What every VMM must offer.

use std::fmt;
use std::path::{Path, PathBuf};

use fireclaw_host::ProcessStamp;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;

use crate::{AttachmentKind, Error, Result, RunDir, TapAttachment, VmmProcess};

/// What to boot. Memory is in MiB (2^20 bytes).
#[derive(Debug, Clone)]
pub struct MachineSpec {
    /// The guest kernel: an uncompressed `vmlinux` ELF file or a `bzImage`.
    pub kernel: PathBuf,
    /// The initial RAM file system whose `/init` is the Fireclaw guest.
    pub initramfs: PathBuf,
    /// Virtual processors, 1 to [`MachineSpec::MAX_CPUS`].
    pub cpus: u32,
    /// Guest memory in MiB, [`MachineSpec::MIN_MEMORY_MIB`] or more.
    pub memory_mib: u64,
    /// Block devices in order: the first is `/dev/vda`, the base image.
    pub disks: Vec<Disk>,
    /// Whether it has a network interface, see [`TapAttachment`].
    pub interface: bool,
    /// Kernel parameters besides those that the backend itself needs.
    pub kernel_args: Vec<String>,
}

impl MachineSpec {
    /// The most virtual processors: Firecracker's own limit (its swagger, `vcpu_count`).
    pub const MAX_CPUS: u32 = 32;
    /// The least memory in which the kernel, its initramfs and a shell fit.
    pub const MIN_MEMORY_MIB: u64 = 96;
}

/// A block device backed by a raw file.
#[derive(Debug, Clone)]
pub struct Disk {
    /// The raw image on the host.
    pub path: PathBuf,
    /// Whether the VMM opens it read-only, so that many VMs can share it. One
    /// that it writes to belongs to this VM; a VM that is restored may
    /// have another file of the same size than the one that was saved.
    pub read_only: bool,
}

/// Which VMM runs a VM, and how fast it can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VmmKind {
    /// Firecracker on KVM.
    Firecracker,
    /// QEMU on KVM.
    QemuKvm,
    /// QEMU with software emulation (TCG): works anywhere, many times slower.
    QemuTcg,
}

impl VmmKind {
    /// Whether the guest runs on the processor's own virtualization.
    pub fn hardware(self) -> bool {
        self != Self::QemuTcg
    }
}

impl fmt::Display for VmmKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Firecracker => "Firecracker on KVM",
            Self::QemuKvm => "QEMU on KVM",
            Self::QemuTcg => "QEMU with software emulation",
        })
    }
}

/// What a backend can do beyond booting. Callers ask before they try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Capabilities {
    /// Memory and device state can be saved and restored.
    pub snapshot: bool,
    /// The VMM can be confined by Firecracker's jailer.
    pub jailer: bool,
    /// What a network interface is plugged into.
    pub attachment: AttachmentKind,
}

/// A byte stream to the guest.
pub trait StreamIo: AsyncRead + AsyncWrite + Send + Unpin {
    /// The socket beneath it, once there is one: to hand it to another process.
    fn into_socket(self: Box<Self>) -> Option<UnixStream>;
}

impl StreamIo for UnixStream {
    fn into_socket(self: Box<Self>) -> Option<UnixStream> {
        Some(*self)
    }
}

/// A VMM that can boot VMs.
pub trait Backend: fmt::Debug + Send + Sync {
    /// Which VMM this is.
    fn kind(&self) -> VmmKind;

    /// The VMM's own version, such as `7.2.22`.
    fn version(&self) -> &str;

    /// What this VMM can do.
    fn capabilities(&self) -> Capabilities;

    /// Starts a VM whose files live in `launch.run_dir`.
    ///
    /// Resolves when the VMM runs; the guest is then still booting. On error
    /// no process is left. Dropping the future kills what it had started.
    fn launch<'a>(&'a self, launch: Launch<'a>) -> BoxFuture<'a, Result<Machine>>;

    /// Takes over a VM in a detached directory from a process that has ended.
    ///
    /// Its guest has lost its host and says hello anew: see
    /// [`crate::Waiting::meet`].
    fn adopt<'a>(
        &'a self,
        run_dir: &'a RunDir,
        stamp: ProcessStamp,
    ) -> BoxFuture<'a, Result<Machine>>;
}

/// What [`Backend::launch`] works with.
#[derive(Debug, Clone, Copy)]
pub struct Launch<'a> {
    /// Where the guest's memory comes from.
    pub memory: Memory<'a>,
    /// What to boot.
    pub spec: &'a MachineSpec,
    /// Where sockets and logs go; its id marks the VMM's command line. In a detached
    /// one the VM outlives this process.
    pub run_dir: &'a RunDir,
    /// Where its network interface is attached: of the kind that
    /// [`Capabilities::attachment`] tells, and there if and only if the VM has
    /// one ([`MachineSpec::interface`]).
    pub attachment: Option<&'a TapAttachment>,
}

/// Where a guest's memory and state come from.
#[derive(Debug, Clone, Copy)]
pub enum Memory<'a> {
    /// A cold boot in memory of the VMM's own.
    Fresh,
    /// A cold boot after which [`Control::save`] writes [`MEMORY_FILE`] and
    /// [`STATE_FILE`] in this directory.
    SavedTo(&'a Path),
    /// The VM that was saved in this directory. Its memory is mapped
    /// privately: any number of VMs can be restored from it at once, and
    /// what one writes no other sees.
    RestoredFrom(&'a Path),
}

/// The guest's memory in a snapshot's directory.
pub const MEMORY_FILE: &str = "memory";
/// The state of the VMM and its devices in a snapshot's directory.
pub const STATE_FILE: &str = "state";

/// A running VMM with one guest. Dropping it kills the VMM.
pub struct Machine {
    /// The VMM.
    pub process: VmmProcess,
    /// The stream to the guest.
    pub stream: Box<dyn StreamIo>,
    /// The VMM's control connection.
    pub control: Box<dyn Control>,
    /// Whether the guest said hello before its snapshot was taken and now
    /// waits for the host's answer.
    pub has_said_hello: bool,
    /// Whether the guest had another host before, because it was restored or
    /// adopted: what it says of its boot is then of the past.
    pub is_restored: bool,
    /// Its directory, if that goes with it. Last, so that it goes last.
    pub run_dir: Option<RunDir>,
}

impl Machine {
    /// A VM that another process started.
    pub(crate) fn adopted(process: VmmProcess, stream: Box<dyn StreamIo>) -> Self {
        let control = Box::new(NoControl);
        Self { process, stream, control, has_said_hello: false, is_restored: true, run_dir: None }
    }
}

/// The control of a VM that can no longer be saved.
pub(crate) struct NoControl;

impl Control for NoControl {
    fn save(&mut self) -> BoxFuture<'_, Result<()>> {
        async {
            Err(Error::Refused {
                vmm: "the VMM",
                request: "a snapshot".into(),
                message: "the VM was not launched to be saved".into(),
            })
        }
        .boxed()
    }
}

/// What can be asked of a running VMM.
pub trait Control: Send {
    /// Stops the VM for good and writes its snapshot.
    ///
    /// Legal once, on a VM launched with [`Memory::SavedTo`].
    fn save(&mut self) -> BoxFuture<'_, Result<()>>;
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine").field("process", &self.process).finish_non_exhaustive()
    }
}
