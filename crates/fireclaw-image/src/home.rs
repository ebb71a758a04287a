//! Where Fireclaw keeps its files.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use fireclaw_host::PathError;

use crate::Result;

/// What whoever changes the home holds.
pub(crate) const SETUP_LOCK: &str = "setup.lock";

/// Directories of a home that others have no business in, wherever the home is.
const PRIVATE_DIRECTORIES: [&str; 9] =
    ["agents", "blobs", "cache", "irc", "machines", "pool", "run", "snapshots", "templates"];

/// The same of files. Who may read a file may also lock it for ever.
const PRIVATE_FILES: [&str; 9] = [
    "state.db",
    "state.db-wal",
    "state.db-shm",
    "daemon.lock",
    "daemon.sock",
    SETUP_LOCK,
    "net.db",
    "net.db-journal",
    "net.lock",
];

/// A Fireclaw home: `FIRECLAW_HOME`, or `~/.fireclaw`.
///
/// ```text
/// manifest.json   what is here, with digests
/// kernels/        kernels and their modules
/// images/         root file systems, read-only, shared by all VMs
/// blobs/          layers of images that were pulled, by their digests
/// initramfs/      one for each kernel and guest program
/// cache/          answers about this host; may be deleted
/// snapshots/      VMs that wait for their first command; may be deleted
/// pool/           sockets of pools of waiting VMs
/// run/            one directory for each running VM
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

    /// Makes the directory if it is not there, and takes from other users whatever they may
    /// do with it and what is in it, under whatever umask it was made.
    ///
    /// What other users of our own need from a home (a jailed VMM, the private IRC
    /// server, a gateway) they get as open files or links, not by its path.
    ///
    /// A directory that is there for more than Fireclaw is left as it is, and only what is
    /// ours in it is closed: the root, one with a sticky bit such as `/tmp`, the user's own.
    /// Nothing that belongs to another user is touched.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn make_private(&self) -> Result<()> {
        let root = &self.root;
        if !root.exists() {
            // Its parents are the user's affair.
            let parents = root.parent().map_or(Ok(()), fs::create_dir_all);
            let made = parents.and_then(|()| DirBuilder::new().mode(0o700).create(root));
            match made {
                Err(e) if e.kind() != ErrorKind::AlreadyExists => {
                    return Err(PathError::at("create", root)(e).into());
                }
                _ => {}
            }
        }
        let found = fs::metadata(root).map_err(PathError::at("read", root))?;
        let is_shared = root.parent().is_none()
            || found.mode() & 0o1000 != 0
            || std::env::home_dir().is_some_and(|own| own == *root);
        if !is_shared && is_ours(&found) {
            close(root, &found).map_err(PathError::at("protect", root))?;
        }
        for name in PRIVATE_DIRECTORIES {
            close_whole(&root.join(name), if name == "agents" { 2 } else { 0 })?;
        }
        PRIVATE_FILES.iter().try_for_each(|name| close_whole(&root.join(name), 0))
    }

    /// Opens a file at the top of the home to lock it, made if it is not there. Others can
    /// neither read nor lock it.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn lock_file(&self, name: &str) -> Result<File> {
        let path = self.root.join(name);
        self.make_private()?;
        let mut options = File::options();
        options.create(true).truncate(false).write(true).mode(0o600);
        Ok(options.open(&path).map_err(PathError::at("create", &path))?)
    }

    /// Directories of running VMs.
    pub fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    /// Snapshots of VMs that wait for their first command.
    pub fn snapshots(&self) -> PathBuf {
        self.root.join("snapshots")
    }

    /// Sockets of pools of waiting VMs.
    pub fn pool(&self) -> PathBuf {
        self.root.join("pool")
    }

    /// Layers of images that were pulled.
    pub fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    /// Answers about this host.
    pub fn host_cache(&self) -> PathBuf {
        self.root.join("cache/host.json")
    }

    pub(crate) fn manifest(&self) -> PathBuf {
        self.root.join("manifest.json")
    }

    pub(crate) fn setup_lock(&self) -> PathBuf {
        self.root.join(SETUP_LOCK)
    }

    pub(crate) fn join(&self, relative: &Path) -> PathBuf {
        self.root.join(relative)
    }
}

fn is_ours(found: &fs::Metadata) -> bool {
    found.uid() == rustix::process::geteuid().as_raw()
}

/// Takes from others what they may do.
fn close(path: &Path, found: &fs::Metadata) -> io::Result<()> {
    match found.mode() & 0o077 {
        0 => Ok(()),
        _ => fs::set_permissions(path, Permissions::from_mode(found.mode() & 0o700)),
    }
}

/// The same with a file or directory that may be there, and `levels` of what is in it. Links
/// lead elsewhere and are not followed.
fn close_whole(path: &Path, levels: usize) -> Result<()> {
    let Ok(found) = fs::symlink_metadata(path) else { return Ok(()) };
    if found.is_symlink() || !is_ours(&found) {
        return Ok(());
    }
    match close(path, &found) {
        // It has just gone: the end of a VM, of another command.
        Err(e) if e.kind() != ErrorKind::NotFound => {
            return Err(PathError::at("protect", path)(e).into());
        }
        _ => {}
    }
    if levels > 0 && found.is_dir() {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            close_whole(&entry.path(), levels - 1)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    fn open_to_all(path: &Path) {
        let mode = if path.is_dir() { 0o777 } else { 0o666 };
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_home_is_its_owners_alone_however_it_was_made() {
        let base = tempfile::tempdir().unwrap();
        let home = Home::new(base.path().join("new/home"));
        home.make_private().unwrap();
        assert_eq!(mode(home.root()), 0o700);
        drop(home.lock_file("daemon.lock").unwrap());
        assert_eq!(mode(&home.root().join("daemon.lock")), 0o600);
        // As an earlier Fireclaw left it, under a generous umask.
        let (agent, cache) = (home.root().join("agents/w"), home.root().join("cache"));
        fs::create_dir_all(&agent).unwrap();
        fs::create_dir(&cache).unwrap();
        let files = [
            home.root().join("state.db"),
            home.root().join("state.db-shm"),
            home.root().join("setup.lock"),
            agent.join("workspace.ext4"),
            agent.join("agent.log"),
        ];
        for file in &files {
            fs::write(file, "x").unwrap();
            open_to_all(file);
        }
        let directories =
            [home.root().to_owned(), agent.parent().unwrap().to_owned(), agent, cache];
        directories.iter().for_each(|directory| open_to_all(directory));
        // A link is not followed.
        let elsewhere = base.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        open_to_all(&elsewhere);
        std::os::unix::fs::symlink(&elsewhere, home.root().join("snapshots")).unwrap();
        home.make_private().unwrap();
        for file in &files {
            assert_eq!(mode(file), 0o600, "{}", file.display());
        }
        for directory in &directories {
            assert_eq!(mode(directory), 0o700, "{}", directory.display());
        }
        assert_eq!(mode(&elsewhere), 0o777);
    }

    #[test]
    fn a_directory_for_more_than_us_is_left_as_it_is() {
        let base = tempfile::tempdir().unwrap();
        let home = Home::new(base.path());
        fs::write(base.path().join("state.db"), "x").unwrap();
        fs::write(base.path().join("notes"), "x").unwrap();
        open_to_all(&base.path().join("notes"));
        fs::set_permissions(base.path(), Permissions::from_mode(0o1777)).unwrap();
        home.make_private().unwrap();
        assert_eq!(mode(base.path()), 0o1777);
        assert_eq!(mode(&base.path().join("state.db")), 0o600);
        assert_eq!(mode(&base.path().join("notes")), 0o666);
    }
}
