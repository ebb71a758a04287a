//! The machine that a command line asks for, and how it is started.

use std::io::IsTerminal;
use std::path::PathBuf;

use fireclaw_image::{Bootable, Home, Manifest, Options};
use fireclaw_net::Gateway;
use fireclaw_say::say;
use fireclaw_vm::firecracker::Jail;
use fireclaw_vm::probe::{Cache, Choice, Prober};
use fireclaw_vm::snapshot::{Recipe, Store};
use fireclaw_vm::{Disk, Guest, Launcher, MachineSpec, Memory, Waiting, fresh_hostname, pool};

use crate::error::{CliError, Kind, Result};
use crate::phases::Phases;
use crate::preparation;
use crate::values;

/// What machine is wanted.
#[derive(Debug, Clone, clap::Args)]
pub struct Shape {
    /// Virtual processors
    #[arg(long, value_name = "N", default_value = "1", value_parser = values::cpus, allow_negative_numbers = true)]
    cpus: u32,

    /// Memory in MiB, or with a unit: 512, 512M, 2G
    #[arg(short, long, value_name = "SIZE", default_value = "256", value_parser = values::memory, allow_negative_numbers = true)]
    memory: u64,

    /// The image to boot
    #[arg(long, value_name = "NAME", default_value = Manifest::BASE_IMAGE)]
    image: String,

    /// Boot another kernel: a file, or a name from `fireclaw images ls`
    #[arg(long, value_name = "KERNEL")]
    kernel: Option<PathBuf>,
}

impl Shape {
    /// The machine as a recipe.
    pub fn recipe(&self, warm: Option<String>) -> Recipe {
        Recipe {
            image: self.image.clone(),
            kernel: self.kernel.clone(),
            cpus: self.cpus,
            memory_mib: self.memory,
            card: false,
            warm,
        }
    }
}

/// On what it runs.
#[derive(Debug, Clone, clap::Args)]
pub struct Host {
    /// The virtual machine monitor
    #[arg(long, value_name = "VMM", env = "FIRECLAW_VMM", default_value = "auto")]
    vmm: Vmm,

    /// Do not say that emulation is used
    #[arg(short, long, env = "FIRECLAW_QUIET", value_parser = clap::builder::FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    quiet: bool,

    /// If set-up has not been done, do it now
    #[arg(short, long)]
    yes: bool,
}

/// The monitors that can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Vmm {
    /// Firecracker if KVM boots, else QEMU on KVM, else QEMU emulated
    Auto,
    /// Firecracker on KVM
    Firecracker,
    /// QEMU, on KVM if it boots
    Qemu,
}

impl From<Vmm> for Choice {
    fn from(vmm: Vmm) -> Self {
        match vmm {
            Vmm::Auto => Self::Auto,
            Vmm::Firecracker => Self::Firecracker,
            Vmm::Qemu => Self::Qemu,
        }
    }
}

impl Host {
    /// The boot files; set-up is done here if it may be.
    pub fn prepared(&self, home: &Home, recipe: &Recipe) -> Result<Bootable> {
        values::fits_host(recipe.memory_mib)?;
        let resolve = || fireclaw_image::resolve(home, &recipe.image, recipe.kernel.as_deref());
        match resolve() {
            Err(fireclaw_image::Error::NotSetUp { .. })
                if self.yes || std::io::stderr().is_terminal() =>
            {
                say!("fireclaw: first use: preparing {} once", home.root().display());
                preparation::prepare(home, &Options::default())?;
                Ok(resolve()?)
            }
            other => Ok(other?),
        }
    }

    /// What starts such machines here.
    pub async fn launcher(
        &self,
        home: &Home,
        bootable: Bootable,
        recipe: &Recipe,
        jail: Option<(u32, u32)>,
    ) -> Result<Launcher> {
        let spec = MachineSpec {
            kernel: bootable.kernel,
            initramfs: bootable.initramfs,
            cpus: recipe.cpus,
            memory_mib: recipe.memory_mib,
            disks: vec![Disk { path: bootable.rootfs, read_only: true }],
            card: recipe.card,
            kernel_args: Vec::new(),
        };
        let run = home.run();
        let mut prober = Prober { spec: &spec, run: &run, cache: Cache::open(&home.host_cache()) };
        let chosen = match jail {
            Some((uid, gid)) => {
                let program = fireclaw_vm::find_program("FIRECLAW_JAILER", "jailer")?;
                prober.jailed(Jail { program, uid, gid })?
            }
            None => prober.choose(self.vmm.into()).await?,
        };
        if let Some(note) = chosen.note.filter(|_| !self.quiet) {
            say!("fireclaw: {note}");
        }
        let patience = values::boot_patience(chosen.backend.kind())?;
        Ok(Launcher { backend: chosen.backend, spec, run, patience })
    }
}

/// Says that a snapshot is being made, to who watches.
pub fn say_making() {
    if std::io::stderr().is_terminal() {
        say!("fireclaw: making a snapshot, once, for faster starts from now on");
    }
}

/// Starts a machine: one that waits in a pool, else from its snapshot, else
/// from cold. One with a network card is plugged in at `gateway`, and never comes from
/// a pool.
///
/// A snapshot made for a name must be made; one made only to be faster may
/// fail, and the machine then boots.
pub async fn start(
    launcher: &Launcher,
    home: &Home,
    recipe: &Recipe,
    gateway: Option<&Gateway>,
    phases: &mut Phases,
) -> Result<Guest> {
    if !launcher.backend.capabilities().snapshot {
        if recipe.warm.is_some() {
            return Err(no_snapshots(launcher));
        }
        return cold(launcher, gateway, phases).await;
    }
    if gateway.is_none()
        && let Some(guest) = pooled(launcher, home, recipe, phases).await?
    {
        return Ok(guest);
    }
    let plug = gateway.map(Gateway::plug);
    let store = Store::new(home.snapshots());
    match launcher.snapshot(&store, recipe, plug, say_making).await {
        Ok(snapshot) => {
            phases.mark("prepare");
            let name = fresh_hostname()?;
            let restored = async {
                let memory = Memory::RestoredFrom(&snapshot.directory);
                let machine = launcher.launch(memory, plug).await?;
                phases.mark("restore");
                let waiting = Waiting::meet(machine, launcher.patience).await?;
                settled(waiting, &name, gateway, phases).await
            };
            match restored.await {
                Ok(guest) => return Ok(guest),
                Err(e) if recipe.warm.is_some() => return Err(e.into()),
                Err(e) => {
                    phases.note(format!("the snapshot could not be used: {e}"));
                    if let Err(e) = store.failed(&snapshot.id, &e) {
                        phases.note(format!("nor removed: {e}"));
                    }
                }
            }
        }
        Err(e) if recipe.warm.is_some() => return Err(e.into()),
        Err(e) => phases.note(format!("no snapshot could be made: {e}")),
    }
    cold(launcher, gateway, phases).await
}

/// Boots a machine.
pub async fn cold(
    launcher: &Launcher,
    gateway: Option<&Gateway>,
    phases: &mut Phases,
) -> Result<Guest> {
    phases.mark("prepare");
    let plug = gateway.map(Gateway::plug);
    let waiting = launcher.boot(Memory::Fresh, plug, || phases.mark("monitor start")).await?;
    Ok(settled(waiting, &fresh_hostname()?, gateway, phases).await?)
}

async fn pooled(
    launcher: &Launcher,
    home: &Home,
    recipe: &Recipe,
    phases: &mut Phases,
) -> Result<Option<Guest>> {
    let key = launcher.key(recipe.warm.as_deref())?;
    let Some(machine) = pool::take(&home.pool(), &key.id()).await else { return Ok(None) };
    phases.mark("prepare");
    phases.mark("from pool");
    let waiting = Waiting::meet(machine, launcher.patience).await?;
    match settled(waiting, &fresh_hostname()?, None, phases).await {
        Ok(guest) => Ok(Some(guest)),
        Err(e) => {
            phases.note(format!("the pool's machine could not be used: {e}"));
            Ok(None)
        }
    }
}

/// Brings a machine to the point where commands may come.
async fn settled(
    waiting: Waiting,
    name: &str,
    gateway: Option<&Gateway>,
    phases: &mut Phases,
) -> fireclaw_vm::Result<Guest> {
    if let Some(hello) = waiting.hello() {
        phases.booted(hello);
    }
    let guest = waiting.settle(name, gateway.map(|it| it.card().into())).await?;
    phases.mark("identity");
    Ok(guest)
}

/// The error for what only works with snapshots.
pub fn no_snapshots(launcher: &Launcher) -> CliError {
    CliError::new(Kind::Host, format!("{} offers no snapshots", launcher.backend.kind()))
        .hint("use another --vmm")
}

/// How many machines of this shape this host can run at once, with the reason.
#[derive(Debug, Clone)]
pub struct Limit {
    /// The number, at least 1.
    pub machines: usize,
    /// Why not more, in words.
    pub reason: String,
}

impl Limit {
    /// What the host's free memory and processors allow.
    pub fn of(launcher: &Launcher) -> Self {
        let hardware = launcher.backend.kind().hardware();
        // Besides its memory: the monitor, and what emulation translates into.
        let each = launcher.spec.memory_mib + if hardware { 16 } else { 160 };
        let free = values::host_memory_mib("MemAvailable:").unwrap_or(u64::MAX);
        let by_memory = usize::try_from(free / each).unwrap_or(usize::MAX).max(1);
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let for_each = if hardware { 64 } else { 16 };
        let by_processors = processors * for_each;
        if by_memory < by_processors {
            let reason = format!("each may take {each} MiB of the {free} MiB that are free");
            Self { machines: by_memory, reason }
        } else {
            let reason = format!("{for_each} for each of {processors} processors");
            Self { machines: by_processors, reason }
        }
    }
}
