//! The sandbox that a command line asks for, and on what it runs.

use std::io::IsTerminal;
use std::path::PathBuf;

use fireclaw_image::{Bootable, Home, Manifest, Options};
use fireclaw_sandbox::{Plan, SandboxSpec};
use fireclaw_say::say;
use fireclaw_vm::probe::Choice;

use crate::error::Result;
use crate::values;
use crate::{preparation, pull};

/// What VM is wanted.
#[derive(Debug, Clone, clap::Args)]
pub struct Shape {
    /// Number of vCPUs
    #[arg(long, value_name = "N", default_value = "1", value_parser = values::cpus, allow_negative_numbers = true)]
    cpus: u32,

    /// Memory in MiB, or with a unit: 512, 512M, 2G
    #[arg(short, long, value_name = "SIZE", default_value = "256", value_parser = values::memory, allow_negative_numbers = true)]
    memory: u64,

    /// Image to boot: a local one, or one from a registry such as python:3.12, which is pulled
    #[arg(long, value_name = "NAME", default_value = Manifest::BASE_IMAGE)]
    image: String,

    /// When to pull the image from its registry
    #[arg(long, value_name = "WHEN", default_value = "missing")]
    pull: pull::When,

    /// Kernel to boot: a file, or a name from `fireclaw image ls`
    #[arg(long, value_name = "KERNEL")]
    kernel: Option<PathBuf>,
}

impl Shape {
    /// Whether another kernel than the image's is asked for.
    pub fn has_kernel(&self) -> bool {
        self.kernel.is_some()
    }

    /// The sandbox, without a network. Its image is pulled if it has to be.
    pub fn spec(&self, home: &Home, warm: Option<String>) -> Result<SandboxSpec> {
        Ok(SandboxSpec {
            image: pull::ensure(home, &self.image, self.pull)?,
            kernel: self.kernel.clone(),
            cpus: self.cpus,
            memory_mib: self.memory,
            warm,
            ..SandboxSpec::default()
        })
    }
}

/// On what it runs.
#[derive(Debug, Clone, clap::Args)]
pub struct Host {
    /// The VMM
    #[arg(long, value_name = "VMM", env = "FIRECLAW_VMM", default_value = "auto")]
    vmm: Vmm,

    /// Suppress the notice about emulation
    #[arg(short, long, env = "FIRECLAW_QUIET", value_parser = clap::builder::FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    quiet: bool,

    /// Run `fireclaw setup` first if it is needed
    #[arg(short, long)]
    yes: bool,
}

/// The VMMs that can be asked for.
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
    pub fn prepared(&self, home: &Home, spec: &SandboxSpec) -> Result<Bootable> {
        let host = self.of(home, None);
        match host.boot_files(spec) {
            Err(fireclaw_sandbox::Error::Image(fireclaw_image::Error::NotSetUp { .. }))
                if self.yes || std::io::stderr().is_terminal() =>
            {
                say!("fireclaw: first use: setting up {}", home.root().display());
                preparation::prepare(home, &Options::default())?;
                Ok(host.boot_files(spec)?)
            }
            other => Ok(other?),
        }
    }

    /// What starts such sandboxes here.
    pub async fn plan(
        &self,
        home: &Home,
        spec: SandboxSpec,
        files: Bootable,
        jail: Option<(u32, u32)>,
    ) -> Result<Plan> {
        let mut plan = self.of(home, jail).plan_with(spec, files).await?;
        if let Some(note) = plan.note.take().filter(|_| !self.quiet) {
            say!("fireclaw: {note}");
        }
        Ok(plan)
    }

    fn of(&self, home: &Home, jail: Option<(u32, u32)>) -> fireclaw_sandbox::Host {
        fireclaw_sandbox::Host { home: home.clone(), vmm: self.vmm.into(), jail }
    }
}

/// Says that a snapshot is being made, to who watches.
pub fn say_making() {
    if std::io::stderr().is_terminal() {
        say!("fireclaw: creating a snapshot; later runs start faster");
    }
}
