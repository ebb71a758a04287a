//! Which VMM this host can use, found by doing.
//!
//! That `/dev/kvm` opens proves nothing: under some clouds' nesting it is
//! there and ordinary kernels hang on it. A first look (`look.rs`) tells the
//! useless ones in milliseconds. KVM counts only if a guest booted on it within
//! [`BOOT_LIMIT`], and the answer is kept for as long as the host's kernel, the
//! VMM and the guest's kernel stay the same.

mod cache;
mod look;

use std::fs::OpenOptions;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::firecracker::{self, Firecracker, Jail};
use crate::qemu::{self, Accelerator, Qemu};
use crate::{Backend, Error, Launch, MachineSpec, Memory, Result, RunDir, VmmKind, Waiting};

pub use cache::{Cache, Verdict};
use fireclaw_host::find_program;
use look::Look;

/// How long a guest may take to boot on KVM before it counts as dead. A real
/// one takes half a second; on a busy host more.
pub const BOOT_LIMIT: Duration = Duration::from_secs(10);

/// Which VMM was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Choice {
    /// Firecracker if it is there and KVM boots, else QEMU on KVM, else QEMU
    /// with software emulation.
    #[default]
    Auto,
    /// Firecracker or nothing.
    Firecracker,
    /// QEMU, on KVM if it boots.
    Qemu,
}

/// What was chosen.
#[derive(Debug)]
pub struct Chosen {
    /// The VMM to use.
    pub backend: Box<dyn Backend>,
    /// Why it is not the fastest one, in one line; said to the user.
    pub note: Option<String>,
}

/// Finds VMMs and proves KVM.
#[derive(Debug)]
pub struct Prober<'a> {
    /// What is booted to prove KVM.
    pub spec: &'a MachineSpec,
    /// Where run directories are made.
    pub run: &'a Path,
    /// Where answers are kept.
    pub cache: Cache,
}

impl Prober<'_> {
    /// Chooses a VMM, booting a guest if KVM has not been proved yet.
    pub async fn choose(&mut self, choice: Choice) -> Result<Chosen> {
        let reason = match choice {
            Choice::Firecracker => {
                let backend = Box::new(self.firecracker()?);
                open_kvm().map_err(|reason| Error::KvmUnusable { reason })?;
                return Ok(Chosen { backend, note: None });
            }
            Choice::Auto | Choice::Qemu => match self.on_kvm(choice).await {
                Ok(backend) => return Ok(Chosen { backend, note: None }),
                Err(reason) => reason,
            },
        };
        let tsc_khz = self.cache.tsc_khz();
        let backend = self.qemu(Accelerator::Tcg { tsc_khz })?;
        let note =
            format!("no usable KVM ({reason}); using QEMU with software emulation, which is slow");
        Ok(Chosen { backend: Box::new(backend), note: Some(note) })
    }

    /// Firecracker, each VM confined by its jailer.
    pub fn jailed(&mut self, jail: Jail) -> Result<Chosen> {
        let backend = Box::new(self.firecracker()?.jailed(jail)?);
        open_kvm().map_err(|reason| Error::KvmUnusable { reason })?;
        Ok(Chosen { backend, note: None })
    }

    /// The best VMM on KVM, or why there is none.
    async fn on_kvm(&mut self, choice: Choice) -> std::result::Result<Box<dyn Backend>, String> {
        open_kvm()?;
        let mut candidates: Vec<Box<dyn Backend>> = Vec::new();
        if choice == Choice::Auto
            && let Ok(firecracker) = self.firecracker()
        {
            candidates.push(Box::new(firecracker));
        }
        if let Ok(qemu) = self.qemu(Accelerator::Kvm) {
            candidates.push(Box::new(qemu));
        }
        let mut reason = "no VMM is installed".to_owned();
        for backend in candidates {
            match self.prove(backend.as_ref()).await {
                Verdict::Boots { .. } => return Ok(backend),
                // KVM itself is at fault: another VMM would only wait as long.
                Verdict::Hangs => return Err("a guest did not boot on it".into()),
                Verdict::Interprets { turn_ns } => return Err(interprets(turn_ns)),
                Verdict::Fails { reason: why } => {
                    reason = format!("{} does not start: {why}", backend.kind());
                }
            }
        }
        Err(reason)
    }

    /// Whether a guest boots on this backend: from the cache, or by booting one.
    pub async fn prove(&mut self, backend: &dyn Backend) -> Verdict {
        self.prove_after(look_apart(), backend).await
    }

    async fn prove_after(
        &mut self,
        look: impl Future<Output = Look>,
        backend: &dyn Backend,
    ) -> Verdict {
        if let Some(known) = self.cache.verdict(backend, &self.spec.kernel) {
            return known;
        }
        let verdict = match look.await {
            Look::Interprets { turn_ns } => Verdict::Interprets { turn_ns },
            // What is not known shows in a boot.
            Look::Fast | Look::Unknown(_) => self.boot_once(backend).await,
        };
        self.cache.keep_verdict(backend, &self.spec.kernel, verdict.clone());
        verdict
    }

    async fn boot_once(&self, backend: &dyn Backend) -> Verdict {
        let start = Instant::now();
        let attempt = async {
            let run_dir = RunDir::create(self.run)?;
            // Whether a guest boots does not hang on its interface.
            let spec = MachineSpec { interface: false, ..self.spec.clone() };
            let memory = Memory::Fresh;
            let launch = Launch { spec: &spec, run_dir: &run_dir, memory, attachment: None };
            let machine = backend.launch(launch).await?;
            let waiting = Waiting::meet(machine, BOOT_LIMIT).await?;
            waiting.personalize("probe", None).await?.kill().await
        };
        match tokio::time::timeout(BOOT_LIMIT, attempt).await {
            Ok(Ok(())) => Verdict::Boots {
                milliseconds: u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX),
            },
            Err(_) | Ok(Err(Error::GuestSilent { .. })) => Verdict::Hangs,
            Ok(Err(e)) => Verdict::Fails { reason: e.to_string() },
        }
    }

    /// The installed Firecracker.
    pub fn firecracker(&mut self) -> Result<Firecracker> {
        let program = find_program("FIRECLAW_FIRECRACKER", firecracker::PROGRAM)?;
        let version = self.cache.version(&program, Firecracker::ask_version)?;
        Firecracker::new(program, version)
    }

    /// The installed QEMU.
    pub fn qemu(&mut self, accelerator: Accelerator) -> Result<Qemu> {
        let program = find_program("FIRECLAW_QEMU", qemu::PROGRAM)?;
        let version = self.cache.version(&program, Qemu::ask_version)?;
        Qemu::new(program, version, accelerator)
    }
}

/// Looks at KVM from a thread of its own.
async fn look_apart() -> Look {
    let looking = tokio::task::spawn_blocking(look::look);
    looking.await.unwrap_or_else(|e| Look::Unknown(e.to_string()))
}

/// What is wrong with a KVM that interprets, in words.
pub fn interprets(turn_ns: u64) -> String {
    format!("it interprets kernels: {turn_ns} ns an instruction")
}

/// Opens `/dev/kvm` as a VMM would, or says why that fails.
pub fn open_kvm() -> std::result::Result<(), String> {
    match OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        Ok(_) => Ok(()),
        Err(e) => Err(format!("/dev/kvm: {e}")),
    }
}

impl VmmKind {
    /// How long a guest may take to report before a run gives up: generous,
    /// because a loaded VM is slow and only a dead guest takes this long.
    pub fn boot_timeout(self) -> Duration {
        Duration::from_secs(if self.hardware() { 30 } else { 120 })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::FutureExt;
    use futures_util::future::{BoxFuture, ready};

    use super::*;
    use crate::{AttachmentKind, Capabilities, Machine};
    use fireclaw_host::ProcessStamp;

    /// A VMM that starts nothing, and counts.
    #[derive(Debug, Default)]
    struct Broken(AtomicUsize);

    impl Backend for Broken {
        fn kind(&self) -> VmmKind {
            VmmKind::QemuKvm
        }

        fn version(&self) -> &str {
            "1"
        }

        fn capabilities(&self) -> Capabilities {
            Capabilities { snapshot: false, jailer: false, attachment: AttachmentKind::Tap }
        }

        fn launch<'a>(&'a self, _: Launch<'a>) -> BoxFuture<'a, Result<Machine>> {
            self.0.fetch_add(1, Ordering::Relaxed);
            ready(Err(Error::KvmUnusable { reason: "broken".into() })).boxed()
        }

        fn adopt<'a>(&'a self, _: &'a RunDir, _: ProcessStamp) -> BoxFuture<'a, Result<Machine>> {
            ready(Err(Error::KvmUnusable { reason: "broken".into() })).boxed()
        }
    }

    #[tokio::test]
    async fn a_kvm_that_interprets_is_remembered_and_costs_no_boot() {
        let dir = tempfile::tempdir().unwrap();
        let spec = MachineSpec {
            kernel: dir.path().join("kernel"),
            initramfs: dir.path().join("initramfs"),
            cpus: 1,
            memory_mib: 128,
            disks: Vec::new(),
            interface: false,
            kernel_args: Vec::new(),
        };
        let file = dir.path().join("host.json");
        let prober = || Prober { spec: &spec, run: dir.path(), cache: Cache::open(&file) };
        let vmm = Broken::default();
        let interprets = Verdict::Interprets { turn_ns: 270 };
        let look = ready(Look::Interprets { turn_ns: 270 });
        assert_eq!(prober().prove_after(look, &vmm).await, interprets);
        // Another process does not even look.
        let look = async { panic!("it is known") };
        assert_eq!(prober().prove_after(look, &vmm).await, interprets);
        assert_eq!(vmm.0.load(Ordering::Relaxed), 0);
        // What the look cannot tell shows in a boot.
        let mut again = prober();
        again.cache.forget_verdicts();
        let verdict = again.prove_after(ready(Look::Unknown("no".into())), &vmm).await;
        assert!(matches!(verdict, Verdict::Fails { .. }), "{verdict:?}");
        assert_eq!(vmm.0.load(Ordering::Relaxed), 1);
    }
}
