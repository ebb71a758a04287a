//! Where Fireclaw keeps its files.

use std::path::{Path, PathBuf};

/// A Fireclaw home: `FIRECLAW_HOME`, or `~/.fireclaw`.
///
/// ```text
/// manifest.json   what is here, with digests
/// kernels/        kernels and their modules
/// images/         root file systems, read-only, shared by all machines
/// initramfs/      one for each kernel and guest program
/// cache/          answers about this host; may be deleted
/// snapshots/      machines that wait for their first command; may be deleted
/// pool/           sockets of pools of waiting machines
/// run/            one directory for each running machine
/// ```
#[derive(Debug, Clone)]
pub struct Home {
    root: PathBuf,
}

impl Home {
    /// A home at a given place, which need not exist yet. Relative paths are
    /// made absolute, because VMMs run in directories of their own.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        Self { root: std::path::absolute(&root).unwrap_or(root) }
    }

    /// The home that the environment names: `FIRECLAW_HOME`, else `~/.fireclaw`.
    pub fn from_environment() -> Self {
        let named = std::env::var_os("FIRECLAW_HOME").filter(|path| !path.is_empty());
        Self::new(named.map_or_else(
            || std::env::home_dir().unwrap_or_else(|| "/".into()).join(".fireclaw"),
            PathBuf::from,
        ))
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Directories of running machines.
    pub fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    /// Snapshots of machines that wait for their first command.
    pub fn snapshots(&self) -> PathBuf {
        self.root.join("snapshots")
    }

    /// Sockets of pools of waiting machines.
    pub fn pool(&self) -> PathBuf {
        self.root.join("pool")
    }

    /// Answers about this host.
    pub fn host_cache(&self) -> PathBuf {
        self.root.join("cache/host.json")
    }

    pub(crate) fn manifest(&self) -> PathBuf {
        self.root.join("manifest.json")
    }

    pub(crate) fn setup_lock(&self) -> PathBuf {
        self.root.join("setup.lock")
    }

    pub(crate) fn join(&self, relative: &Path) -> PathBuf {
        self.root.join(relative)
    }
}
