//! What sandbox is wanted.

use std::path::PathBuf;

use fireclaw_image::Manifest;
use fireclaw_policy::Network;
use fireclaw_vm::snapshot::Recipe;

/// What sandbox is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxSpec {
    /// The image to boot, by name.
    pub image: String,
    /// Another kernel than the image's: a file, or a name of one that is set up.
    pub kernel: Option<PathBuf>,
    /// Virtual processors.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Disks of its own, in the order of the guest's devices after the image's.
    pub disks: Vec<OwnDisk>,
    /// What it may reach.
    pub network: Network,
    /// A shell line that is run once, before the snapshot from which such sandboxes start.
    pub warm: Option<String>,
}

impl Default for SandboxSpec {
    /// A small one of the base image, with nothing of its own.
    fn default() -> Self {
        Self {
            image: Manifest::BASE_IMAGE.into(),
            kernel: None,
            cpus: 1,
            memory_mib: 256,
            disks: Vec::new(),
            network: Network::None,
            warm: None,
        }
    }
}

/// A disk that one sandbox writes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnDisk {
    /// Its file.
    pub path: PathBuf,
    /// Its size in MiB.
    pub mib: u64,
}

impl SandboxSpec {
    /// What a snapshot of such a sandbox is made from.
    pub fn recipe(&self) -> Recipe {
        Recipe {
            image: self.image.clone(),
            kernel: self.kernel.clone(),
            cpus: self.cpus,
            memory_mib: self.memory_mib,
            interface: self.network != Network::None,
            warm: self.warm.clone(),
        }
    }
}

impl From<Recipe> for SandboxSpec {
    /// A sandbox of a snapshot that was given a name.
    fn from(recipe: Recipe) -> Self {
        let Recipe { image, kernel, cpus, memory_mib, interface: _, warm } = recipe;
        Self { image, kernel, cpus, memory_mib, warm, ..Self::default() }
    }
}
