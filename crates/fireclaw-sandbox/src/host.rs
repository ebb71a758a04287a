//! What of this host a sandbox is made with.

use std::sync::Arc;
use std::time::Duration;

use fireclaw_image::{Bootable, Home};
use fireclaw_vm::firecracker::Jail;
use fireclaw_vm::probe::{Cache, Choice, Prober};
use fireclaw_vm::snapshot::{Recipe, Snapshot, Store};
use fireclaw_vm::{Disk, Launcher, MachineSpec, TapAttachment, VmmKind};

use crate::limit::memory_mib;
use crate::{Error, Limit, Result, SandboxSpec, disks};

/// How many seconds a guest may take to boot, if another number than the usual one.
pub const BOOT_TIMEOUT: &str = "FIRECLAW_BOOT_TIMEOUT";

/// The longest time that anything may be given: what runs for more than a week is an agent.
const LONGEST: Duration = Duration::from_secs(604_800);

/// What of this host a sandbox is made with.
#[derive(Debug, Clone)]
pub struct Host {
    /// The data directory.
    pub home: Home,
    /// The VMM.
    pub vmm: Choice,
    /// The user and group of Firecracker's jail, if it has one.
    pub jail: Option<(u32, u32)>,
}

/// A spec and all that starts sandboxes of it on this host.
#[derive(Debug)]
pub struct Plan {
    pub(crate) host: Host,
    pub(crate) spec: SandboxSpec,
    pub(crate) launcher: Launcher,
    /// What should be known of the VMM: why it emulates, for one.
    pub note: Option<String>,
}

impl Host {
    /// A host with a data directory, and whatever VMM works best.
    pub fn new(home: Home) -> Self {
        Self { home, vmm: Choice::Auto, jail: None }
    }

    /// The boot files of a sandbox.
    ///
    /// # Errors
    /// [`Error::TooMuchMemory`]; [`Error::Image`] if they are not there or were damaged.
    pub fn boot_files(&self, spec: &SandboxSpec) -> Result<Bootable> {
        refuse_too_much_memory(spec)?;
        Ok(fireclaw_image::resolve(&self.home, &spec.image, spec.kernel.as_deref())?)
    }

    /// What starts such sandboxes here. A VMM is chosen, which may take a boot the first
    /// time.
    ///
    /// # Errors
    /// Those of [`Host::boot_files`]; [`Error::Vm`] if no VMM can be used;
    /// [`Error::Variable`] for a [`BOOT_TIMEOUT`] that is no time.
    pub async fn plan(&self, spec: SandboxSpec) -> Result<Plan> {
        let (host, asked) = (self.clone(), spec.clone());
        let files = disks::apart(move || host.boot_files(&asked)).await?;
        self.plan_with(spec, files).await
    }

    /// The same with boot files that were found before.
    ///
    /// # Errors
    /// Those of [`Host::plan`].
    pub async fn plan_with(&self, spec: SandboxSpec, files: Bootable) -> Result<Plan> {
        refuse_too_much_memory(&spec)?;
        let mut disks = vec![Disk { path: files.rootfs, read_only: true }];
        let own = spec.disks.iter();
        disks.extend(own.map(|own| Disk { path: own.path.clone(), read_only: false }));
        let recipe = spec.recipe();
        let machine = MachineSpec {
            kernel: files.kernel,
            initramfs: files.initramfs,
            cpus: recipe.cpus,
            memory_mib: recipe.memory_mib,
            disks,
            interface: recipe.interface,
            kernel_args: Vec::new(),
        };
        let run = self.home.run();
        let cache = Cache::open(&self.home.host_cache());
        let mut prober = Prober { spec: &machine, run: &run, cache };
        let chosen = match self.jail {
            Some((uid, gid)) => {
                let program = fireclaw_host::find_program("FIRECLAW_JAILER", "jailer")
                    .map_err(fireclaw_vm::Error::from)?;
                prober.jailed(Jail { program, uid, gid })?
            }
            None => prober.choose(self.vmm).await?,
        };
        let timeout = boot_timeout(chosen.backend.kind())?;
        let launcher = Launcher { backend: Arc::from(chosen.backend), spec: machine, run, timeout };
        Ok(Plan { host: self.clone(), spec, launcher, note: chosen.note })
    }
}

impl Plan {
    /// What it starts.
    pub fn spec(&self) -> &SandboxSpec {
        &self.spec
    }

    /// What starts the VMs behind its sandboxes.
    pub fn launcher(&self) -> &Launcher {
        &self.launcher
    }

    /// How many such sandboxes this host can run at once.
    pub fn limit(&self) -> Limit {
        Limit::of(&self.launcher)
    }

    /// Whether its sandboxes can start from a snapshot.
    ///
    /// # Errors
    /// [`Error::NoSnapshots`] if not.
    pub fn needs_snapshots(&self) -> Result<()> {
        match self.launcher.backend.capabilities().snapshot {
            true => Ok(()),
            false => Err(Error::NoSnapshots(self.launcher.backend.kind())),
        }
    }

    /// The snapshot from which its sandboxes start, which is made now if it has to be, after
    /// `on_make`. Its disks are blank ones of the same sizes, which no guest has looked
    /// into. It has its network interface where `attachment` says.
    ///
    /// # Errors
    /// [`Error::NoSnapshots`], [`Error::Vm`], [`Error::File`].
    pub async fn snapshot(
        &self,
        attachment: Option<&TapAttachment>,
        on_make: impl FnOnce(),
    ) -> Result<Snapshot> {
        self.needs_snapshots()?;
        let recipe = self.spec.recipe();
        if self.spec.disks.is_empty() {
            return self.snapshot_of(&self.launcher, &recipe, attachment, on_make).await;
        }
        let blank = disks::Blank::like(&self.launcher.run, &self.spec.disks)?;
        let mut spec = self.launcher.spec.clone();
        let own = spec.disks.iter_mut().filter(|disk| !disk.read_only);
        for (disk, path) in own.zip(blank.paths()) {
            disk.path = path;
        }
        let launcher = Launcher { spec, ..self.launcher.clone() };
        self.snapshot_of(&launcher, &recipe, attachment, on_make).await
    }

    async fn snapshot_of(
        &self,
        launcher: &Launcher,
        recipe: &Recipe,
        attachment: Option<&TapAttachment>,
        on_make: impl FnOnce(),
    ) -> Result<Snapshot> {
        Ok(launcher.snapshot(&self.store(), recipe, attachment, on_make).await?)
    }

    pub(crate) fn store(&self) -> Store {
        Store::new(self.host.home.snapshots())
    }
}

fn refuse_too_much_memory(spec: &SandboxSpec) -> Result<()> {
    let has_mib = memory_mib("MemTotal:").unwrap_or(u64::MAX);
    match spec.memory_mib > has_mib {
        true => Err(Error::TooMuchMemory { asked_mib: spec.memory_mib, has_mib }),
        false => Ok(()),
    }
}

/// How long a guest may take to boot.
fn boot_timeout(vmm: VmmKind) -> Result<Duration> {
    match std::env::var(BOOT_TIMEOUT) {
        Ok(value) if !value.is_empty() => seconds(&value).map_err(|problem| Error::Variable {
            variable: BOOT_TIMEOUT,
            value,
            problem,
        }),
        _ => Ok(vmm.boot_timeout()),
    }
}

/// Reads seconds, with a fraction if need be.
///
/// # Errors
/// What is wrong with them.
pub fn seconds(text: &str) -> std::result::Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    let limit = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    if limit.as_millis() == 0 || limit > LONGEST {
        return Err("it must be more than 0 and at most 604800 seconds (a week)".into());
    }
    Ok(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_positive_and_finite() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for wrong in ["0", "-1", "inf", "NaN", "1e30", "x", "0.0001"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn more_memory_than_there_is_is_refused_before_anything_is_looked_for() {
        let home = tempfile::tempdir().unwrap();
        let host = Host::new(Home::new(home.path()));
        let spec = SandboxSpec { memory_mib: 10 << 20, ..SandboxSpec::default() };
        assert!(matches!(host.boot_files(&spec), Err(Error::TooMuchMemory { .. })));
        let small = SandboxSpec { memory_mib: 96, ..SandboxSpec::default() };
        assert!(matches!(host.boot_files(&small), Err(Error::Image(_))), "nothing is set up");
    }
}
