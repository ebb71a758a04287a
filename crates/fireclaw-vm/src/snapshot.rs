//! Snapshots on disk: one directory each, whole or absent.
//!
//! ```text
//! <id>/memory        the guest's memory, mapped privately by every clone
//! <id>/state         processors and devices
//! <id>/meta.json     what went in, and what the two files looked like
//! <id>.lock          held while it is made; last touched when it was last used
//! names/<name>.json  a recipe that was given a name
//! ```
//!
//! A snapshot is used only if everything that went into it is the same now
//! ([`Key`]) and its files are untouched ([`Stamp`]): a file's change time
//! (`ctime`, stat(2)) cannot be set back, so a changed or cut file is found
//! without reading it. A name stands for the recipe, not for the files, so a
//! named snapshot too is made anew when what went into it has changed.

mod key;
mod names;

use std::fs::{self, DirBuilder, File, FileTimes, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use fireclaw_host::PathError;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::backend::{MEMORY_FILE, STATE_FILE};
use crate::{Error, Result};
use key::AUTOMATIC;
pub use key::{Key, Stamp};

const META_FILE: &str = "meta.json";

/// How many snapshots without a name are kept: those used last.
const KEPT: usize = 8;

/// What was asked for, from which a snapshot can be made again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipe {
    /// The image's name.
    pub image: String,
    /// The kernel, if one was named.
    pub kernel: Option<PathBuf>,
    /// Virtual processors.
    pub cpus: u32,
    /// Guest memory in MiB.
    pub memory_mib: u64,
    /// Whether it has a network interface.
    #[serde(default, alias = "card")]
    pub interface: bool,
    /// A shell line that is run before the VM is saved.
    pub warm: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Meta {
    key: Key,
    recipe: Recipe,
    memory: Stamp,
    state: Stamp,
}

impl Meta {
    fn read(directory: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(directory.join(META_FILE)).ok()?).ok()
    }
}

/// A snapshot that was found whole.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Its id: a digest of what went in.
    pub id: String,
    /// Where it is: for [`crate::Memory::RestoredFrom`].
    pub directory: PathBuf,
}

/// What a list tells of a snapshot.
#[derive(Debug, Clone, Serialize)]
pub struct Listed {
    /// Its name, or its id if it has none.
    pub name: String,
    /// The VMM that it was made with; absent if it is to be made anew.
    pub vmm: Option<String>,
    /// What was asked for.
    #[serde(flatten)]
    pub recipe: Recipe,
    /// What it takes on disk, in bytes: the memory file is sparse.
    pub disk_bytes: u64,
    #[serde(skip)]
    id: Option<String>,
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

    /// The snapshot that was made under this key, if it is whole.
    pub fn find(&self, key: &Key) -> Option<Snapshot> {
        let id = key.id();
        let directory = self.root.join(&id);
        let meta = Meta::read(&directory)?;
        let untouched = |stamp: &Stamp, file| {
            Stamp::of(&directory.join(file)).is_ok_and(|now| stamp.is_of_same_file(&now))
        };
        let whole = meta.key == *key
            && untouched(&meta.memory, MEMORY_FILE)
            && untouched(&meta.state, STATE_FILE);
        if !whole {
            return None;
        }
        let used = FileTimes::new().set_modified(SystemTime::now());
        let _ = File::open(self.lock_path(&id)).and_then(|lock| lock.set_times(used));
        Some(Snapshot { id, directory })
    }

    /// The snapshot for this key, made with `fill` if there is no valid one.
    ///
    /// `fill` gets an empty directory and makes both files in it. Whoever comes
    /// while it is being made waits and uses it. Killed at any moment, this
    /// leaves the old snapshot or the new one, and a rest for [`Store::sweep`].
    pub async fn find_or_create<F>(
        &self,
        key: &Key,
        recipe: &Recipe,
        fill: impl FnOnce(PathBuf) -> F,
    ) -> Result<Snapshot>
    where
        F: Future<Output = Result<()>>,
    {
        let (store, wanted) = (self.clone(), key.clone());
        let found = apart(move || match store.find(&wanted) {
            None => private_dir(&store.root, true).map(|()| None),
            found => Ok(found),
        });
        if let Some(found) = found.await? {
            return Ok(found);
        }
        let lock = self.lock(&key.id()).await?;
        let (store, wanted) = (self.clone(), key.clone());
        // It keeps the lock, also if nobody waits for it any more.
        let begun = apart(move || match store.find(&wanted) {
            None => store.begin(&wanted).map(|fresh| Err((fresh, lock))),
            Some(found) => Ok(Ok(found)),
        });
        let (fresh, lock) = match begun.await? {
            Ok(found) => return Ok(found),
            Err(begun) => begun,
        };
        fill(fresh.0.clone()).await?;
        let (store, key, recipe) = (self.clone(), key.clone(), recipe.clone());
        let keep = move || {
            let kept = store.keep(&fresh, key, recipe);
            // What is left of it goes before somebody else makes it anew.
            drop((fresh, lock));
            kept
        };
        apart(keep).await
    }

    /// An empty directory to make a snapshot in.
    fn begin(&self, key: &Key) -> Result<Fresh> {
        // A VMM that runs out of space while it writes guest memory dies of
        // SIGBUS, so look first.
        has_room(&self.root, key.memory_mib)?;
        let fresh = Fresh(self.root.join(format!(".{}.new", key.id())));
        remove(&fresh.0)?;
        private_dir(&fresh.0, false)?;
        Ok(fresh)
    }

    /// Puts what was made in its place, safe from a loss of power. All of a guest's memory is
    /// written, which takes long.
    fn keep(&self, fresh: &Fresh, key: Key, recipe: Recipe) -> Result<Snapshot> {
        for file in [MEMORY_FILE, STATE_FILE] {
            sync(&fresh.0.join(file))?;
        }
        let memory = Stamp::of(&fresh.0.join(MEMORY_FILE))?;
        let state = Stamp::of(&fresh.0.join(STATE_FILE))?;
        let meta = Meta { key, recipe, memory, state };
        let path = fresh.0.join(META_FILE);
        let json = serde_json::to_vec_pretty(&meta).map_err(io::Error::other);
        json.and_then(|json| fs::write(&path, json)).map_err(PathError::at("write", &path))?;
        sync(&path)?;
        sync(&fresh.0)?;
        let id = meta.key.id();
        let directory = self.root.join(&id);
        put_in_place(&fresh.0, &directory)?;
        sync(&self.root)?;
        self.remove_useless(&meta.key);
        Ok(Snapshot { id, directory })
    }

    /// All snapshots, those with a name first.
    pub fn list(&self) -> Vec<Listed> {
        let mut made = self.made();
        let mut list = Vec::new();
        for (name, recipe) in self.names() {
            let of_it: Vec<_> = made.iter().filter(|(_, meta)| meta.recipe == recipe).collect();
            if of_it.is_empty() {
                list.push(Listed { name, vmm: None, recipe, disk_bytes: 0, id: None });
            } else {
                list.extend(of_it.into_iter().map(|(id, meta)| self.listed(&name, id, meta)));
            }
        }
        made.retain(|(id, _)| !list.iter().any(|listed| listed.id.as_ref() == Some(id)));
        list.extend(made.iter().map(|(id, meta)| self.listed(id, id, meta)));
        list
    }

    fn listed(&self, name: &str, id: &str, meta: &Meta) -> Listed {
        let files = fs::read_dir(self.root.join(id)).into_iter().flatten().flatten();
        let blocks = files.filter_map(|file| Some(file.metadata().ok()?.blocks()));
        Listed {
            name: name.to_owned(),
            vmm: Some(format!("{} {}", meta.key.vmm, meta.key.vmm_version)),
            recipe: meta.recipe.clone(),
            // st_blocks counts 512 bytes (stat(2)).
            disk_bytes: blocks.sum::<u64>() * 512,
            id: Some(id.to_owned()),
        }
    }

    /// What is on disk, by id, whether it is still of use or not.
    fn made(&self) -> Vec<(String, Meta)> {
        let mut made: Vec<_> = fs::read_dir(&self.root)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                let id = entry.file_name().into_string().ok()?;
                id.starts_with(AUTOMATIC).then_some(())?;
                Some((id, Meta::read(&entry.path())?))
            })
            .collect();
        made.sort_by(|(a, _), (b, _)| a.cmp(b));
        made
    }

    /// Removes a snapshot; clones that run from it keep what they mapped.
    pub fn remove(&self, listed: &Listed) -> Result<()> {
        self.forget(&listed.name)?;
        listed.id.as_ref().map_or(Ok(()), |id| self.discard(id))
    }

    /// Removes the files of a snapshot.
    ///
    /// They are renamed first: a clone that is just starting then finds nothing
    /// under the old name, instead of half a snapshot or a place to make files.
    pub fn discard(&self, id: &str) -> Result<()> {
        let directory = self.root.join(id);
        let gone = self.root.join(format!(".{id}.{}.gone", std::process::id()));
        match fs::rename(&directory, &gone) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(PathError::at("remove", directory)(e).into()),
            Ok(()) => remove(&gone),
        }
    }

    /// A VM that was restored from it failed: it is discarded, unless its guest was only
    /// slow. On a busy host that says nothing against the snapshot.
    ///
    /// # Errors
    /// Those of [`Store::discard`].
    pub fn failed(&self, id: &str, error: &Error) -> Result<()> {
        match Self::is_to_blame(error) {
            false => Ok(()),
            true => self.discard(id),
        }
    }

    /// Whether a VM that was restored failed in a way that speaks against its snapshot.
    pub fn is_to_blame(error: &Error) -> bool {
        !matches!(error, Error::GuestSilent { .. })
    }

    /// Removes what the snapshot just made replaces, and those without a name
    /// that were not used for longest.
    fn remove_useless(&self, key: &Key) {
        let (replaced, mut kept): (Vec<_>, Vec<_>) =
            self.made().into_iter().partition(|(_, meta)| key.replaces(&meta.key));
        let named: Vec<Recipe> = self.names().into_iter().map(|(_, recipe)| recipe).collect();
        kept.retain(|(_, meta)| !named.contains(&meta.recipe));
        let used = |id: &str| fs::metadata(self.lock_path(id)).and_then(|meta| meta.modified());
        kept.sort_by_key(|(id, _)| std::cmp::Reverse(used(id).unwrap_or(SystemTime::UNIX_EPOCH)));
        for (id, _) in replaced.iter().chain(kept.iter().skip(KEPT)) {
            let _ = self.discard(id);
        }
    }

    /// Removes what killed makers and removers left.
    pub fn sweep(&self) {
        crate::leftover::remove_dead(&self.root.join("names"), "new");
        for entry in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str().and_then(|name| name.strip_prefix('.')) else {
                continue;
            };
            let id = name.strip_suffix(".new");
            // What is being made is locked.
            let is_half = id.is_some_and(|id| {
                File::open(self.lock_path(id)).is_ok_and(|lock| lock.try_lock().is_ok())
            });
            if is_half || name.ends_with(".gone") {
                let _ = remove(&entry.path());
            }
        }
    }

    fn lock_path(&self, id: &str) -> PathBuf {
        self.root.join(format!("{id}.lock"))
    }

    async fn lock(&self, id: &str) -> Result<File> {
        const POLL: Duration = Duration::from_millis(5);
        let path = self.lock_path(id);
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(PathError::at("create", &path))?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) => tokio::time::sleep(POLL).await,
                Err(TryLockError::Error(e)) => return Err(PathError::at("lock", path)(e).into()),
            }
        }
    }
}

/// Runs what waits for a disk where it keeps nobody waiting.
async fn apart<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| Error::system("looking after a snapshot")(e.into()))?
}

/// Refuses a file system without room for all of a guest's memory.
fn has_room(directory: &Path, memory_mib: u64) -> Result<()> {
    let Ok(found) = rustix::fs::statvfs(directory) else { return Ok(()) };
    if found.f_bavail.saturating_mul(found.f_frsize) >> 20 >= memory_mib {
        return Ok(());
    }
    Err(PathError::at("make a snapshot in", directory)(io::ErrorKind::StorageFull.into()).into())
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
    let failed = |e: io::Error| PathError::at("create", place)(e);
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
            Err(e) => return Err(failed(e.into()).into()),
        }
    }
    Ok(fs::rename(fresh, place).map_err(failed)?)
}

fn remove(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(PathError::at("remove", directory)(e).into())
        }
        _ => Ok(()),
    }
}

fn private_dir(path: &Path, may_exist: bool) -> Result<()> {
    Ok(DirBuilder::new()
        .recursive(may_exist)
        .mode(0o700)
        .create(path)
        .map_err(PathError::at("create", path))?)
}

fn sync(path: &Path) -> Result<()> {
    Ok(File::open(path).and_then(|file| file.sync_all()).map_err(PathError::at("write", path))?)
}

#[cfg(test)]
mod tests {
    use super::key::tests::{key, sized, upgraded};
    use super::*;

    fn recipe() -> Recipe {
        Recipe {
            image: "base".into(),
            kernel: None,
            cpus: 1,
            memory_mib: 256,
            interface: false,
            warm: None,
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

    fn store() -> (tempfile::TempDir, Store, Key) {
        let home = tempfile::tempdir().unwrap();
        let (store, key) = (Store::new(home.path().join("snapshots")), key(home.path()));
        (home, store, key)
    }

    #[test]
    fn a_slow_guest_says_nothing_against_its_snapshot() {
        let (_home, store, _) = store();
        let directory = store.root.join("auto-1");
        fs::create_dir_all(&directory).unwrap();
        let limit = std::time::Duration::from_secs(1);
        let slow = Error::GuestSilent { limit, console: String::new() };
        store.failed("auto-1", &slow).unwrap();
        assert!(directory.exists());
        let broken: Error =
            PathError::at("read", &directory)(io::ErrorKind::InvalidData.into()).into();
        store.failed("auto-1", &broken).unwrap();
        assert!(!directory.exists());
    }

    #[tokio::test]
    async fn it_is_made_once_and_found_again() {
        let (_home, store, key) = store();
        assert!(store.find(&key).is_none());
        store.find_or_create(&key, &recipe(), fill).await.unwrap();
        store.find_or_create(&key, &recipe(), must_not_fill).await.unwrap();
        store.remove(&store.list()[0]).unwrap();
        assert!(store.find(&key).is_none() && store.list().is_empty());
    }

    #[tokio::test]
    async fn a_changed_file_is_never_used() {
        let (_home, store, key) = store();
        for file in [MEMORY_FILE, STATE_FILE] {
            let made = store.find_or_create(&key, &recipe(), fill).await.unwrap();
            let path = made.directory.join(file);
            let before = fs::metadata(&path).unwrap().modified().unwrap();
            let length = fs::metadata(&path).unwrap().len() as usize;
            // The same length, and the old modification time put back.
            fs::write(&path, vec![b'x'; length]).unwrap();
            File::options().write(true).open(&path).unwrap().set_modified(before).unwrap();
            assert!(store.find(&key).is_none(), "{file} was changed");
        }
        store.find_or_create(&key, &recipe(), fill).await.unwrap();
        assert!(store.find(&key).is_some());
    }

    #[tokio::test]
    async fn anything_else_that_went_in_makes_it_another() {
        let (_home, store, key) = store();
        store.find_or_create(&key, &recipe(), fill).await.unwrap();
        let (newer, larger) = (upgraded(&key), sized(&key, 512));
        assert!(store.find(&newer).is_none());
        // The older one is of no more use and goes; one of another size stays.
        store.find_or_create(&larger, &recipe(), fill).await.unwrap();
        store.find_or_create(&newer, &recipe(), fill).await.unwrap();
        assert!(store.find(&key).is_none());
        assert!(store.find(&larger).is_some());
    }

    #[tokio::test]
    async fn those_without_a_name_that_nobody_uses_go() {
        let (_home, store, key) = store();
        let sizes: Vec<Key> = (0..KEPT as u64 + 3).map(|n| sized(&key, 100 + n)).collect();
        let named = Recipe { memory_mib: 100, ..recipe() };
        store.name("first", &named).unwrap();
        for (n, key) in sizes.iter().enumerate() {
            let recipe = Recipe { memory_mib: 100 + n as u64, ..recipe() };
            store.find_or_create(key, &recipe, fill).await.unwrap();
            // The second is used all the time.
            if n > 0 {
                assert!(store.find(&sizes[1]).is_some());
            }
        }
        assert!(store.find(&sizes[0]).is_some(), "it has a name");
        assert!(store.find(&sizes[2]).is_none(), "nobody used it");
        assert_eq!(store.list().len(), KEPT + 1);
    }

    #[tokio::test]
    async fn what_a_killed_maker_left_is_replaced() {
        let (_home, store, key) = store();
        let old = store.find_or_create(&key, &recipe(), fill).await.unwrap();
        fs::write(old.directory.join(MEMORY_FILE), "changed").unwrap();
        let half = store.root.join(format!(".{}.new", key.id()));
        fs::create_dir(&half).unwrap();
        fs::write(half.join(MEMORY_FILE), "half").unwrap();
        let recipe = recipe();
        let failed = store.find_or_create(&key, &recipe, async |_| {
            Err(Error::System { what: "x", cause: io::Error::other("y") })
        });
        assert!(failed.await.is_err());
        assert!(old.directory.join(META_FILE).exists() && !half.exists());
        store.find_or_create(&key, &recipe, fill).await.unwrap();
        assert!(store.find(&key).is_some() && !half.exists());

        fs::create_dir(&half).unwrap();
        let lock = store.lock(&key.id()).await.unwrap();
        store.sweep();
        assert!(half.exists(), "it is being made");
        drop(lock);
        store.sweep();
        assert!(!half.exists() && store.find(&key).is_some());
    }

    #[test]
    fn a_full_disk_is_seen_before_the_work() {
        let home = tempfile::tempdir().unwrap();
        has_room(home.path(), 1).unwrap();
        let error = has_room(home.path(), 1 << 40).unwrap_err();
        assert!(
            matches!(error, Error::File(PathError { cause, .. }) if cause.kind() == io::ErrorKind::StorageFull)
        );
    }
}
