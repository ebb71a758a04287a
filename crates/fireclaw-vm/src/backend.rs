//! What every virtual machine monitor (VMM) must offer.

use std::fmt;
use std::path::PathBuf;

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{ConsoleTail, Result, RunDir, VmmProcess};

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
    /// Whether the VMM opens it read-only, so that many VMs can share it.
    pub read_only: bool,
}

/// Which VMM runs a machine, and how fast it can be.
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
    /// A machine can be paused and resumed.
    pub pause: bool,
    /// The VMM can be confined by Firecracker's jailer.
    pub jailer: bool,
}

/// A byte stream to the guest.
pub trait StreamIo: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> StreamIo for T {}

/// A VMM that can boot machines.
pub trait Backend: fmt::Debug + Send + Sync {
    /// Which VMM this is.
    fn kind(&self) -> VmmKind;

    /// The VMM's own version, such as `7.2.22`.
    fn version(&self) -> &str;

    /// What this VMM can do.
    fn capabilities(&self) -> Capabilities;

    /// Starts a machine whose files live in `launch.run_dir`.
    ///
    /// Resolves when the VMM runs; the guest is then still booting. On error
    /// no process is left. Dropping the future kills what it had started.
    fn launch<'a>(&'a self, launch: Launch<'a>) -> BoxFuture<'a, Result<Machine>>;
}

/// What [`Backend::launch`] works with.
#[derive(Debug, Clone, Copy)]
pub struct Launch<'a> {
    /// What to boot.
    pub spec: &'a MachineSpec,
    /// Where sockets and logs go; its id marks the VMM's command line.
    pub run_dir: &'a RunDir,
}

/// A running VMM with one guest. Dropping it kills the VMM.
pub struct Machine {
    /// The VMM.
    pub process: VmmProcess,
    /// The stream to the guest.
    pub stream: Box<dyn StreamIo>,
    /// The last of what the guest wrote to its serial console.
    pub console: ConsoleTail,
    /// The VMM's control connection, where it has a lasting one.
    pub control: Option<Box<dyn Control>>,
}

/// What can be asked of a running VMM.
pub trait Control: Send {
    /// The VMM's own word for the machine's state, such as `running` or
    /// `internal-error`. Escaped for a terminal.
    fn status(&mut self) -> BoxFuture<'_, Result<String>>;
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine").field("process", &self.process).finish_non_exhaustive()
    }
}
