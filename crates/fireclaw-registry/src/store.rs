//! Blobs on disk, by their digests.

use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fireclaw_host::{PathError, claim};
use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// What a blob that is not whole is called after its digest.
const PARTIAL: &str = ".partial";

/// What who uses a store has locked.
const LOCK: &str = "lock";

/// How often it is looked whether somebody else is done with a blob.
const LOOK: Duration = Duration::from_millis(100);

/// A folder of blobs. Many processes may use it at once.
#[derive(Debug, Clone)]
pub struct Store {
    directory: PathBuf,
}

/// A blob that is there and whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// Its digest: `sha256:` and 64 hexadecimal digits.
    pub digest: String,
    /// Its file.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
}

/// A blob that is being fetched. Nobody else fetches it meanwhile, also in other processes.
#[derive(Debug)]
pub(crate) struct Fetch {
    file: File,
    hasher: Sha256,
    /// How much of it is there.
    pub(crate) bytes: u64,
    whole: Blob,
    partial: PathBuf,
}

/// The hexadecimal digits of a digest. Only they become part of a path.
fn hex_of(digest: &str) -> Option<&str> {
    let hex = digest.strip_prefix("sha256:")?;
    let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    (hex.len() == 64 && hex.bytes().all(is_hex)).then_some(hex)
}

impl Store {
    /// The store in this folder, which is made when it is needed.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// Where a blob is or would be; none for what is no SHA-256.
    pub fn path(&self, digest: &str) -> Option<PathBuf> {
        Some(self.directory.join("sha256").join(hex_of(digest)?))
    }

    /// Has nothing removed from it, also by other processes, until this is dropped: for who
    /// pulls an image and is not done with its blobs.
    ///
    /// # Errors
    /// [`Error::File`].
    pub async fn hold(&self) -> Result<Hold> {
        let file = self.lock_file()?;
        loop {
            match file.try_lock_shared() {
                Ok(()) => return Ok(Hold(file)),
                Err(TryLockError::WouldBlock) => tokio::time::sleep(LOOK).await,
                Err(TryLockError::Error(e)) => {
                    return Err(PathError::at("lock", self.directory.join(LOCK))(e).into());
                }
            }
        }
    }

    fn lock_file(&self) -> Result<File> {
        let path = self.directory.join(LOCK);
        make_directory(&self.directory)?;
        let mut options = File::options();
        options.write(true).create(true).truncate(false).mode(0o600);
        Ok(options.open(&path).map_err(PathError::at("create", path))?)
    }

    /// Removes every blob that the result of `used`, called once nobody uses the store, does not
    /// pick, and all that is not whole and that
    /// nobody fetches; how many bytes that frees. Nothing while somebody [holds](Store::hold)
    /// it.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn prune<K, E>(
        &self,
        used: impl FnOnce() -> std::result::Result<K, E>,
    ) -> std::result::Result<u64, E>
    where
        K: Fn(&str) -> bool,
        E: From<Error>,
    {
        if !self.directory.exists() {
            return Ok(0);
        }
        let lock = self.lock_file()?;
        if lock.try_lock().is_err() {
            return Ok(0);
        }
        Ok(self.remove_but(&used()?)?)
    }

    fn remove_but(&self, keep: &dyn Fn(&str) -> bool) -> Result<u64> {
        let mut freed = 0;
        for entry in fs::read_dir(self.directory.join("sha256")).into_iter().flatten().flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_string_lossy();
            let is_kept = match name.strip_suffix(PARTIAL) {
                // Who fetches it has it locked.
                Some(_) => File::open(&path).is_ok_and(|file| file.try_lock().is_err()),
                None => keep(&format!("sha256:{name}")),
            };
            if is_kept {
                continue;
            }
            let bytes = entry.metadata().map_or(0, |found| found.len());
            match fs::remove_file(&path) {
                Err(e) if e.kind() != ErrorKind::NotFound => {
                    return Err(PathError::at("remove", path)(e).into());
                }
                _ => freed += bytes,
            }
        }
        Ok(freed)
    }

    /// A blob of a length, if it is there; else what fetches it from a registry, once nobody
    /// else does from the same one: what one has sent is no other's. `waits` is called if
    /// somebody does.
    pub(crate) async fn fetch(
        &self,
        digest: &str,
        bytes: u64,
        registry: &str,
        waits: impl FnOnce(),
    ) -> Result<std::result::Result<Blob, Fetch>> {
        let no_digest = || Error::WrongBytes {
            registry: "the registry".into(),
            digest: fireclaw_host::escape(digest),
            problem: "it is no SHA-256".into(),
        };
        let path = self.path(digest).ok_or_else(no_digest)?;
        let whole = Blob { digest: digest.to_owned(), path, bytes };
        if is_there(&whole) {
            return Ok(Ok(whole));
        }
        let of = &hex(&Sha256::digest(registry))[..16];
        let partial = whole.path.with_extension(format!("{of}{PARTIAL}"));
        make_directory(&self.directory.join("sha256"))?;
        let mut waits = Some(waits);
        loop {
            let Some(file) = claim(&partial)? else {
                if let Some(waits) = waits.take() {
                    waits();
                }
                tokio::time::sleep(LOOK).await;
                continue;
            };
            if is_there(&whole) {
                // Whoever had it is done; what we have locked is a new, empty one.
                let _ = fs::remove_file(&partial);
                return Ok(Ok(whole));
            }
            let (hasher, there) = hashed(&file).map_err(PathError::at("read", &partial))?;
            return Ok(Err(Fetch { file, hasher, bytes: there, whole, partial }));
        }
    }
}

/// That a store is used.
#[derive(Debug)]
pub struct Hold(#[allow(dead_code, reason = "the lock is held by the open file")] File);

fn make_directory(path: &Path) -> Result<()> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    Ok(made.map_err(PathError::at("create", path))?)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether a blob is there: it was given its name when it was whole.
fn is_there(blob: &Blob) -> bool {
    fs::metadata(&blob.path).is_ok_and(|found| found.is_file() && found.len() == blob.bytes)
}

/// The hash of what is there, and how much that is. The file stands at its end then.
fn hashed(mut file: &File) -> std::io::Result<(Sha256, u64)> {
    let (mut hasher, mut bytes) = (Sha256::new(), 0);
    let mut buffer = vec![0; 256 * 1024];
    file.seek(SeekFrom::Start(0))?;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((hasher, bytes)),
            n => {
                hasher.update(&buffer[..n]);
                bytes += n as u64;
            }
        }
    }
}

impl Fetch {
    /// How long it will be.
    pub(crate) fn expected(&self) -> u64 {
        self.whole.bytes
    }

    /// Begins anew.
    pub(crate) fn reset(&mut self) -> Result<()> {
        let emptied = self.file.set_len(0).and_then(|()| self.file.rewind());
        emptied.map_err(PathError::at("write", &self.partial))?;
        (self.hasher, self.bytes) = (Sha256::new(), 0);
        Ok(())
    }

    /// Writes what comes next; false if that is more than there may be.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<bool> {
        if self.bytes + bytes.len() as u64 > self.whole.bytes {
            return Ok(false);
        }
        self.file.write_all(bytes).map_err(PathError::at("write", &self.partial))?;
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(true)
    }

    /// The digest of what there is.
    fn digest(&self) -> String {
        format!("sha256:{}", hex(&self.hasher.clone().finalize()))
    }

    /// Whether it is what it should be.
    pub(crate) fn is_right(&self) -> bool {
        self.bytes == self.whole.bytes && self.digest() == self.whole.digest
    }

    /// Gives it its name, if it is what it should be; else what it is.
    pub(crate) fn finish(self) -> Result<std::result::Result<Blob, String>> {
        let digest = self.digest();
        if digest != self.whole.digest || self.bytes != self.whole.bytes {
            let _ = fs::remove_file(&self.partial);
            return Ok(Err(format!("{} bytes with {digest}", self.bytes)));
        }
        self.file.sync_all().map_err(PathError::at("write", &self.partial))?;
        fs::rename(&self.partial, &self.whole.path)
            .map_err(PathError::at("create", &self.whole.path))?;
        Ok(Ok(self.whole))
    }

    /// Throws away what came.
    pub(crate) fn discard(self) {
        let _ = fs::remove_file(&self.partial);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const HELLO: &str = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

    fn store() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path().join("blobs"));
        (directory, store)
    }

    async fn fetch(store: &Store, digest: &str, bytes: u64) -> Fetch {
        store.fetch(digest, bytes, "a", || ()).await.unwrap().unwrap_err()
    }

    fn prune(store: &Store, used: &str) -> u64 {
        store.prune(|| Ok::<_, Error>(move |digest: &str| digest == used)).unwrap()
    }

    #[tokio::test]
    async fn what_one_registry_has_sent_is_no_others() {
        let (_directory, store) = store();
        let mut evil = fetch(&store, HELLO, 5).await;
        evil.write(b"evi").unwrap();
        // Also while it drips.
        let mut good = store.fetch(HELLO, 5, "b", || panic!("waits")).await.unwrap().unwrap_err();
        assert_eq!(good.bytes, 0);
        good.write(b"hello").unwrap();
        assert!(good.is_right() && !evil.is_right());
        good.finish().unwrap().unwrap();
        drop(evil);
        assert!(store.fetch(HELLO, 5, "a", || ()).await.unwrap().is_ok());
    }

    #[tokio::test]
    async fn a_blob_is_there_once_it_is_whole_and_what_it_should_be() {
        let (_directory, store) = store();
        let mut fetching = fetch(&store, HELLO, 5).await;
        assert!(fetching.write(b"hel").unwrap());
        assert!(!fetching.write(b"lo!").unwrap(), "more than was said");
        assert!(fetching.write(b"lo").unwrap());
        let blob = fetching.finish().unwrap().unwrap();
        assert_eq!(fs::read(&blob.path).unwrap(), b"hello");
        assert_eq!(store.fetch(HELLO, 5, "b", || ()).await.unwrap().unwrap(), blob);
        // Other bytes are never there, and nothing is left of them.
        let mut fetching = fetch(&store, EMPTY, 5).await;
        fetching.write(b"hallo").unwrap();
        assert!(fetching.finish().unwrap().is_err());
        assert_eq!(fs::read_dir(blob.path.parent().unwrap()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn what_was_not_finished_is_gone_on_with() {
        let (_directory, store) = store();
        let mut fetching = fetch(&store, HELLO, 5).await;
        fetching.write(b"hel").unwrap();
        drop(fetching);
        let mut fetching = fetch(&store, HELLO, 5).await;
        assert_eq!((fetching.bytes, fetching.expected()), (3, 5));
        fetching.write(b"lo").unwrap();
        fetching.finish().unwrap().unwrap();
        // Or begun anew.
        let mut fetching = fetch(&store, EMPTY, 0).await;
        fetching.reset().unwrap();
        fetching.finish().unwrap().unwrap();
    }

    #[tokio::test]
    async fn one_fetches_and_the_other_waits_for_it() {
        let (_directory, store) = store();
        let mut first = fetch(&store, HELLO, 5).await;
        let (waits, waited) = tokio::sync::oneshot::channel();
        let other = store.clone();
        let second = async move {
            other.fetch(HELLO, 5, "a", || waits.send(()).unwrap()).await.unwrap().unwrap()
        };
        let done = async {
            waited.await.unwrap();
            first.write(b"hello").unwrap();
            first.finish().unwrap().unwrap()
        };
        let (second, first) = tokio::join!(second, done);
        assert_eq!(second, first);
        let names = fs::read_dir(first.path.parent().unwrap()).unwrap();
        assert_eq!(names.count(), 1, "nothing is left of the one that waited");
    }

    #[tokio::test]
    async fn prune_keeps_what_is_used_and_what_is_being_fetched() {
        let (_directory, store) = store();
        let mut fetching = fetch(&store, HELLO, 5).await;
        fetching.write(b"hello").unwrap();
        let hello = fetching.finish().unwrap().unwrap();
        let empty = fetch(&store, EMPTY, 0).await;
        assert_eq!(prune(&store, HELLO), 0);
        assert!(hello.path.exists() && empty.partial.exists());
        drop(empty);
        let held = store.hold().await.unwrap();
        assert_eq!(prune(&store, ""), 0, "somebody uses it");
        drop(held);
        assert_eq!(prune(&store, ""), 5);
        assert_eq!(fs::read_dir(hello.path.parent().unwrap()).unwrap().count(), 0);
    }

    #[test]
    fn only_digests_become_paths() {
        let (_directory, store) = store();
        assert!(store.path(HELLO).unwrap().ends_with(&HELLO[7..]));
        for bad in ["", "sha256:", "sha256:../../etc/passwd", &HELLO.to_uppercase(), "md5:00"] {
            assert_eq!(store.path(bad), None, "{bad}");
        }
    }
}
