//! Snapshots on disk: one directory each, whole or absent.
//!
//! ```text
//! <name>/memory      the guest's memory, mapped privately by every clone
//! <name>/state       processors and devices
//! <name>/meta.json   what went in, and what the two files looked like
//! <name>.lock        held while it is made
//! ```
//!
//! A snapshot is used only if everything that went into it is the same now
//! ([`Key`]) and its files are untouched ([`Stamp`]): a file's change time
//! (`ctime`, stat(2)) cannot be set back, so a changed or cut file is found
//! without reading it.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::backend::{MEMORY_FILE, STATE_FILE};
use crate::{Backend, Error, MachineSpec, Result, VmmKind};

const META_FILE: &str = "meta.json";

/// What snapshots that `run` makes for itself are called, before their key.
const AUTOMATIC: &str = "auto-";

/// Everything that a snapshot depends on. Two keys are equal only if a machine
/// restored from one would be what a cold boot for the other gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// Our own version: the machine line and the kernel's parameters are ours.
    fireclaw: String,
    vmm: VmmKind,
    vmm_version: String,
    /// The processor's name and abilities: a guest has adapted to them.
    processor: String,
    /// Restoring on another host kernel can change what KVM offers.
    host_kernel: String,
    kernel: Stamp,
    initramfs: Stamp,
    disks: Vec<Stamp>,
    kernel_args: Vec<String>,
    cpus: u32,
    memory_mib: u64,
    generation: u32,
}

/// What a file looked like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    path: PathBuf,
    bytes: u64,
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Result<Self> {
        let path = fs::canonicalize(path).map_err(Error::file("find", path))?;
        let meta = fs::metadata(&path).map_err(Error::file("read", &path))?;
        Ok(Self {
            bytes: meta.len(),
            inode: meta.ino(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
            path,
        })
    }
}

impl Key {
    /// The key for booting `spec` on `backend`, as everything is now.
    pub fn new(backend: &dyn Backend, spec: &MachineSpec) -> Result<Self> {
        let disks = spec.disks.iter().map(|disk| Stamp::of(&disk.path)).collect::<Result<_>>()?;
        Ok(Self {
            fireclaw: env!("CARGO_PKG_VERSION").to_owned(),
            vmm: backend.kind(),
            vmm_version: backend.version().to_owned(),
            processor: processor(),
            host_kernel: first_line("/proc/sys/kernel/osrelease"),
            kernel: Stamp::of(&spec.kernel)?,
            initramfs: Stamp::of(&spec.initramfs)?,
            disks,
            kernel_args: spec.kernel_args.clone(),
            cpus: spec.cpus,
            memory_mib: spec.memory_mib,
            generation: fireclaw_protocol::GENERATION,
        })
    }

    /// The name of the snapshot that `run` makes for itself under this key.
    pub fn automatic_name(&self) -> String {
        let json = serde_json::to_vec(self).unwrap_or_default();
        let digest: String =
            Sha256::digest(json).iter().take(8).map(|b| format!("{b:02x}")).collect();
        format!("{AUTOMATIC}{digest}")
    }

    /// Whether a snapshot under `other` was made for the same purpose, before
    /// something that went into it changed.
    fn replaces(&self, other: &Self) -> bool {
        let purpose = |key: &Self| {
            let disks: Vec<PathBuf> = key.disks.iter().map(|disk| disk.path.clone()).collect();
            (key.vmm, key.cpus, key.memory_mib, key.kernel_args.clone(), disks)
        };
        self != other && purpose(self) == purpose(other)
    }
}

/// The first processor's description without what changes from moment to moment.
fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let first = text.split("\n\n").next().unwrap_or_default();
    let stable = ["vendor_id", "cpu family", "model", "stepping", "microcode", "flags"];
    let lines = first.lines().filter(|line| stable.iter().any(|name| line.starts_with(name)));
    let digest = Sha256::digest(lines.collect::<Vec<_>>().join("\n"));
    digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

fn first_line(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

#[derive(Debug, Serialize, Deserialize)]
struct Meta {
    key: Key,
    memory: Stamp,
    state: Stamp,
}

/// A snapshot that was found whole.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Its name.
    pub name: String,
    /// Where it is: for [`crate::Memory::RestoredFrom`].
    pub directory: PathBuf,
}

/// What a list tells of a snapshot.
#[derive(Debug, Clone, Serialize)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// The monitor that it was made with.
    pub monitor: String,
    /// Virtual processors.
    pub cpus: u32,
    /// Guest memory in MiB.
    pub memory_mib: u64,
    /// What it takes on disk, in bytes: the memory file is sparse.
    pub disk_bytes: u64,
}

/// All snapshots of a home.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// The store in a directory, which need not exist yet.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The snapshot of this name if it was made under this key and is whole.
    pub fn find(&self, name: &str, key: &Key) -> Option<Snapshot> {
        let directory = self.root.join(name);
        let meta: Meta = serde_json::from_slice(&fs::read(directory.join(META_FILE)).ok()?).ok()?;
        let untouched = |stamp: &Stamp, file| {
            Stamp::of(&directory.join(file)).is_ok_and(|now| {
                // The directory was renamed since, its files were not.
                Stamp { path: PathBuf::new(), ..now }
                    == Stamp { path: PathBuf::new(), ..stamp.clone() }
            })
        };
        let whole = meta.key == *key
            && untouched(&meta.memory, MEMORY_FILE)
            && untouched(&meta.state, STATE_FILE);
        whole.then(|| Snapshot { name: name.to_owned(), directory })
    }

    /// The snapshot of this name, made with `fill` if there is no valid one.
    ///
    /// `fill` gets an empty directory and makes both files in it. Whoever comes
    /// while it is being made waits and uses it. Killed at any moment, this
    /// leaves the old snapshot or the new one, and a rest that the next maker
    /// removes.
    pub async fn find_or_create<F>(
        &self,
        name: &str,
        key: &Key,
        fill: impl FnOnce(PathBuf) -> F,
    ) -> Result<Snapshot>
    where
        F: Future<Output = Result<()>>,
    {
        if let Some(found) = self.find(name, key) {
            return Ok(found);
        }
        private_dir(&self.root, true)?;
        let _lock = self.lock(name).await?;
        if let Some(found) = self.find(name, key) {
            return Ok(found);
        }
        let fresh = Fresh(self.root.join(format!(".{name}.new")));
        remove(&fresh.0)?;
        private_dir(&fresh.0, false)?;
        fill(fresh.0.clone()).await?;
        for file in [MEMORY_FILE, STATE_FILE] {
            sync(&fresh.0.join(file))?;
        }
        let meta = Meta {
            key: key.clone(),
            memory: Stamp::of(&fresh.0.join(MEMORY_FILE))?,
            state: Stamp::of(&fresh.0.join(STATE_FILE))?,
        };
        let path = fresh.0.join(META_FILE);
        let json = serde_json::to_vec_pretty(&meta).map_err(io::Error::other);
        json.and_then(|json| fs::write(&path, json)).map_err(Error::file("write", &path))?;
        sync(&path)?;
        sync(&fresh.0)?;
        let directory = self.root.join(name);
        put_in_place(&fresh.0, &directory)?;
        sync(&self.root)?;
        self.remove_replaced(key);
        Ok(Snapshot { name: name.to_owned(), directory })
    }

    /// All snapshots by name, whether they are still of use or not.
    pub fn list(&self) -> Vec<Listed> {
        let mut list: Vec<Listed> = fs::read_dir(&self.root)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let meta = fs::read(entry.path().join(META_FILE)).ok()?;
                let key = serde_json::from_slice::<Meta>(&meta).ok()?.key;
                let files = fs::read_dir(entry.path()).ok()?.flatten();
                let blocks = files.filter_map(|file| Some(file.metadata().ok()?.blocks()));
                (!name.starts_with('.')).then(|| Listed {
                    name,
                    monitor: format!("{} {}", key.vmm, key.vmm_version),
                    cpus: key.cpus,
                    memory_mib: key.memory_mib,
                    // st_blocks counts 512 bytes (stat(2)).
                    disk_bytes: blocks.sum::<u64>() * 512,
                })
            })
            .collect();
        list.sort_by(|a, b| a.name.cmp(&b.name));
        list
    }

    /// Removes a snapshot; clones that run from it keep what they mapped.
    ///
    /// It is renamed first: a clone that is just starting then finds nothing
    /// under the old name, instead of half a snapshot or a place to make files.
    pub fn remove(&self, name: &str) -> Result<()> {
        let directory = self.root.join(name);
        let gone = self.root.join(format!(".{name}.{}.gone", std::process::id()));
        match fs::rename(&directory, &gone) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(Error::file("remove", directory)(e)),
            Ok(()) => remove(&gone),
        }
    }

    /// Automatic snapshots that this key makes useless.
    fn remove_replaced(&self, key: &Key) {
        for entry in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let is_automatic = name.to_str().is_some_and(|name| name.starts_with(AUTOMATIC));
            let meta = fs::read(entry.path().join(META_FILE)).unwrap_or_default();
            let old = serde_json::from_slice::<Meta>(&meta);
            if is_automatic && old.is_ok_and(|old| key.replaces(&old.key)) {
                let _ = self.remove(&name.to_string_lossy());
            }
            // What a remover left that was killed.
            if name.to_str().is_some_and(|name| name.ends_with(".gone")) {
                let _ = remove(&entry.path());
            }
        }
    }

    async fn lock(&self, name: &str) -> Result<File> {
        const POLL: Duration = Duration::from_millis(5);
        let path = self.root.join(format!("{name}.lock"));
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(Error::file("create", &path))?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) => tokio::time::sleep(POLL).await,
                Err(TryLockError::Error(e)) => return Err(Error::file("lock", path)(e)),
            }
        }
    }
}

/// A directory that is being filled; what is left of it is removed.
struct Fresh(PathBuf);

impl Drop for Fresh {
    fn drop(&mut self) {
        let _ = remove(&self.0);
    }
}

/// Renames `fresh` to `place`; what was there takes its old name.
fn put_in_place(fresh: &Path, place: &Path) -> Result<()> {
    let failed = |e: io::Error| Error::file("create", place)(e);
    if place.exists() {
        match renameat_with(CWD, fresh, CWD, place, RenameFlags::EXCHANGE) {
            Ok(()) => return Ok(()),
            // Not every file system can exchange: then the old one goes first,
            // and a kill in between leaves none, which the next run makes.
            Err(Errno::INVAL | Errno::NOSYS) => {
                let gone = place.with_extension("gone");
                fs::rename(place, &gone).map_err(failed)?;
                remove(&gone)?;
            }
            Err(e) => return Err(failed(e.into())),
        }
    }
    fs::rename(fresh, place).map_err(failed)
}

fn remove(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::file("remove", directory)(e)),
        _ => Ok(()),
    }
}

fn private_dir(path: &Path, may_exist: bool) -> Result<()> {
    DirBuilder::new()
        .recursive(may_exist)
        .mode(0o700)
        .create(path)
        .map_err(Error::file("create", path))
}

fn sync(path: &Path) -> Result<()> {
    File::open(path).and_then(|file| file.sync_all()).map_err(Error::file("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(directory: &Path) -> Key {
        let file = directory.join("kernel");
        fs::write(&file, "kernel").unwrap();
        let stamp = Stamp::of(&file).unwrap();
        Key {
            fireclaw: "0.1.0".into(),
            vmm: VmmKind::QemuTcg,
            vmm_version: "7.2".into(),
            processor: processor(),
            host_kernel: String::new(),
            kernel: stamp.clone(),
            initramfs: stamp.clone(),
            disks: vec![stamp],
            kernel_args: Vec::new(),
            cpus: 1,
            memory_mib: 256,
            generation: 1,
        }
    }

    async fn fill(directory: PathBuf) -> Result<()> {
        fs::write(directory.join(MEMORY_FILE), "memory").unwrap();
        fs::write(directory.join(STATE_FILE), "state").unwrap();
        Ok(())
    }

    async fn must_not_fill(_: PathBuf) -> Result<()> {
        panic!("it was there already");
    }

    #[tokio::test]
    async fn it_is_made_once_and_found_again() {
        let home = tempfile::tempdir().unwrap();
        let (store, key) = (Store::new(home.path().join("snapshots")), key(home.path()));
        assert!(store.find("a", &key).is_none());
        store.find_or_create("a", &key, fill).await.unwrap();
        store.find_or_create("a", &key, must_not_fill).await.unwrap();
        store.remove("a").unwrap();
        assert!(store.find("a", &key).is_none());
    }

    #[tokio::test]
    async fn a_changed_file_is_never_used() {
        let home = tempfile::tempdir().unwrap();
        let (store, key) = (Store::new(home.path().join("snapshots")), key(home.path()));
        for file in [MEMORY_FILE, STATE_FILE] {
            let made = store.find_or_create("a", &key, fill).await.unwrap();
            let path = made.directory.join(file);
            let before = fs::metadata(&path).unwrap().modified().unwrap();
            let length = fs::metadata(&path).unwrap().len() as usize;
            // The same length, and the old modification time put back.
            fs::write(&path, vec![b'x'; length]).unwrap();
            File::options().write(true).open(&path).unwrap().set_modified(before).unwrap();
            assert!(store.find("a", &key).is_none(), "{file} was changed");
        }
    }

    #[tokio::test]
    async fn anything_else_that_went_in_makes_it_another() {
        let home = tempfile::tempdir().unwrap();
        let (store, key) = (Store::new(home.path().join("snapshots")), key(home.path()));
        store.find_or_create(&key.automatic_name(), &key, fill).await.unwrap();
        let newer = Key { vmm_version: "8.0".into(), ..key.clone() };
        assert_ne!(newer.automatic_name(), key.automatic_name());
        assert!(store.find(&key.automatic_name(), &newer).is_none());
        // The older one is of no more use and goes; one of another size stays.
        let larger = Key { memory_mib: 512, ..key.clone() };
        store.find_or_create(&larger.automatic_name(), &larger, fill).await.unwrap();
        store.find_or_create(&newer.automatic_name(), &newer, fill).await.unwrap();
        assert!(store.find(&key.automatic_name(), &key).is_none());
        assert!(store.find(&larger.automatic_name(), &larger).is_some());
    }

    #[tokio::test]
    async fn what_a_killed_maker_left_is_replaced() {
        let home = tempfile::tempdir().unwrap();
        let (store, key) = (Store::new(home.path().join("snapshots")), key(home.path()));
        let old = store.find_or_create("a", &key, fill).await.unwrap();
        fs::write(old.directory.join(MEMORY_FILE), "changed").unwrap();
        let half = store.root.join(".a.new");
        fs::create_dir(&half).unwrap();
        fs::write(half.join(MEMORY_FILE), "half").unwrap();
        let failed = store.find_or_create("a", &key, async |_| {
            Err(Error::System { what: "x", source: io::Error::other("y") })
        });
        assert!(failed.await.is_err());
        assert!(old.directory.join(META_FILE).exists() && !half.exists());
        store.find_or_create("a", &key, fill).await.unwrap();
        assert!(store.find("a", &key).is_some() && !half.exists());
    }
}
