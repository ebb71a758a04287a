//! The files behind the disks of sandboxes. What may take long runs on a thread of its own.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use fireclaw_host::{PathError, claim};
use fireclaw_vm::RunDir;
use rustix::fs::ioctl_ficlone;
use rustix::io::Errno;

use crate::{Error, OwnDisk, Result};

/// How often it is looked whether another is done with a file.
const LOOK: Duration = Duration::from_millis(10);

/// A disk with an ext4 file system that outlives its sandbox: made if it is not there, grown
/// if it is smaller. `label` is the file system's.
///
/// # Errors
/// [`Error::NoMke2fs`], [`Error::Format`], [`Error::File`].
pub async fn lasting(path: &Path, mib: u64, label: &'static str) -> Result<()> {
    let path = path.to_owned();
    apart(move || {
        if path.exists() {
            return sparse(&path, mib);
        }
        let (fresh, _own) = begin(&path)?;
        if path.exists() {
            // Another has made it meanwhile.
            fs::remove_file(&fresh).map_err(PathError::at("remove", fresh))?;
            return sparse(&path, mib);
        }
        sparse(&fresh, mib)?;
        // Nothing in it is kept for root: it is the guest's alone.
        format(&fresh, &["-m", "0", "-L", label])?;
        Ok(fs::rename(&fresh, &path).map_err(PathError::at("create", path))?)
    })
    .await
}

/// A disk with an ext4 file system for one start, made anew. It has no journal: it does not
/// outlive the VM.
///
/// # Errors
/// Those of [`lasting`].
pub async fn passing(path: &Path, mib: u64, label: &'static str) -> Result<()> {
    let path = path.to_owned();
    apart(move || {
        let _ = fs::remove_file(&path);
        sparse(&path, mib)?;
        format(&path, &["-m", "0", "-L", label, "-O", "^has_journal"])
    })
    .await
}

/// Copies a disk. What is a hole stays one, and where the file system can, nothing is copied
/// until either is written. The copy takes the place of another at `to` when it is whole.
///
/// # Errors
/// [`Error::File`].
pub async fn copy(from: &Path, to: &Path) -> Result<()> {
    let (from, to) = (from.to_owned(), to.to_owned());
    apart(move || {
        let (fresh, _own) = begin(&to)?;
        copy_holes(&from, &fresh).map_err(|e| {
            let _ = fs::remove_file(&fresh);
            PathError::at("copy", &from)(e)
        })?;
        Ok(fs::rename(&fresh, &to).map_err(PathError::at("create", to))?)
    })
    .await
}

/// Runs what may block where it blocks nobody.
///
/// # Errors
/// Its own.
pub async fn apart<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(e) => Err(Error::System("a task", e.into())),
    }
}

/// Blank disks for a snapshot; gone when dropped.
#[derive(Debug)]
pub(crate) struct Blank {
    directory: RunDir,
    number: usize,
}

impl Blank {
    /// As many as these, of the same sizes.
    pub fn like(run: &Path, disks: &[OwnDisk]) -> Result<Self> {
        let blank = Self { directory: RunDir::create(run)?, number: disks.len() };
        for (path, disk) in blank.paths().zip(disks) {
            sparse(&path, disk.mib)?;
        }
        Ok(blank)
    }

    /// Their files, in that order.
    pub fn paths(&self) -> impl Iterator<Item = PathBuf> {
        let directory = self.directory.path();
        (0..self.number).map(move |n| directory.join(format!("blank-{n}.img")))
    }
}

/// The name of something beside a file.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    name.into()
}

/// Begins a file under another name, which it has until it is whole. Nobody else makes it
/// while the file is open: who was given up, such as an agent that is ended while it starts,
/// may still be at work.
fn begin(path: &Path) -> Result<(PathBuf, File)> {
    let fresh = beside(path, ".new");
    make_directory(path)?;
    loop {
        if let Some(file) = claim(&fresh)? {
            // What a killed one has left.
            file.set_len(0).map_err(PathError::at("write", &fresh))?;
            return Ok((fresh, file));
        }
        std::thread::sleep(LOOK);
    }
}

/// Makes the directory that a file is in.
fn make_directory(path: &Path) -> Result<()> {
    match path.parent() {
        Some(parent) => Ok(fs::create_dir_all(parent).map_err(PathError::at("create", parent))?),
        None => Ok(()),
    }
}

/// Makes a sparse file, or lets it grow; it never shrinks.
fn sparse(path: &Path, mib: u64) -> Result<()> {
    make_directory(path)?;
    let file = File::options().create(true).truncate(false).write(true).open(path);
    let file = file.map_err(PathError::at("create", path))?;
    let length = file.metadata().map_err(PathError::at("read", path))?.len();
    if length < mib << 20 {
        file.set_len(mib << 20).map_err(PathError::at("write", path))?;
    }
    Ok(())
}

/// Makes an ext4 file system on a blank disk. What need not be written stays a hole.
fn format(path: &Path, options: &[&str]) -> Result<()> {
    let program =
        fireclaw_host::find_program("FIRECLAW_MKE2FS", "mke2fs").map_err(|_| Error::NoMke2fs)?;
    let output = Command::new(program)
        .args(["-q", "-F", "-t", "ext4"])
        .args(options)
        .arg(path)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| Error::System("starting mke2fs", e))?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(Error::Format { path: path.to_owned(), said })
        }
    }
}

fn copy_holes(from: &Path, to: &Path) -> io::Result<()> {
    let mut source = File::open(from)?;
    let mut target = File::options().create(true).truncate(true).write(true).open(to)?;
    target.set_permissions(source.metadata()?.permissions())?;
    // Not every file system can.
    if ioctl_ficlone(&target, &source).is_err() {
        let length = source.metadata()?.len();
        target.set_len(length)?;
        let mut at = 0;
        while let Some((start, end)) = data(&source, at, length)? {
            source.seek(SeekFrom::Start(start))?;
            target.seek(SeekFrom::Start(start))?;
            io::copy(&mut io::Read::take(&mut source, end - start), &mut target)?;
            at = end;
        }
    }
    target.sync_all()
}

/// The next bytes at or after `at` that are no hole.
fn data(file: impl AsFd, at: u64, length: u64) -> io::Result<Option<(u64, u64)>> {
    if at >= length {
        return Ok(None);
    }
    let start = match rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(at)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    let end = rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(start))?;
    Ok(Some((start, end)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt, MetadataExt};

    use super::*;

    /// A file of 4 GiB with some data at its start, in its middle and at its end.
    fn holey(path: &Path) {
        const SIZE: u64 = 4 << 30;
        let file = File::create(path).unwrap();
        file.set_len(SIZE).unwrap();
        for (at, byte) in [(0, 1), (SIZE / 2 + 12345, 2), (SIZE - 4096, 3)] {
            file.write_all_at(&[byte; 4096], at).unwrap();
        }
    }

    #[tokio::test]
    async fn a_copy_has_the_same_bytes_and_the_same_holes() {
        let home = tempfile::tempdir().unwrap();
        let (from, to) = (home.path().join("disk"), home.path().join("copy"));
        holey(&from);
        fs::write(&to, "an earlier one").unwrap();
        copy(&from, &to).await.unwrap();
        let (one, other) = (fs::metadata(&from).unwrap(), fs::metadata(&to).unwrap());
        assert_eq!((one.len(), one.mode()), (other.len(), other.mode()));
        assert!(other.blocks() <= one.blocks() + 64, "{} of {}", other.blocks(), one.blocks());
        let (one, other) = (File::open(&from).unwrap(), File::open(&to).unwrap());
        for at in [0, (2 << 30) + 12345 - 100, (4 << 30) - 4096] {
            let (mut a, mut b) = ([0; 4096], [0; 4096]);
            one.read_exact_at(&mut a, at).unwrap();
            other.read_exact_at(&mut b, at).unwrap();
            assert_eq!(a, b, "at {at}");
        }
        assert!(!beside(&to, ".new").exists());
    }

    #[tokio::test]
    async fn a_disk_is_made_once_however_many_make_it() {
        for _ in 0..8 {
            let home = tempfile::tempdir().unwrap();
            let path = home.path().join("agent/workspace.ext4");
            // Nobody waits for the first: it goes on all the same, as when an agent is ended.
            drop(futures_util::future::FutureExt::now_or_never(lasting(&path, 8, "workspace")));
            let rest = (0..3).map(|_| lasting(&path, 8, "workspace"));
            for made in futures_util::future::join_all(rest).await {
                made.unwrap();
            }
            let check = Command::new("e2fsck").arg("-fn").arg(&path).output().unwrap();
            assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
            assert!(!beside(&path, ".new").exists());
        }
    }

    #[tokio::test]
    async fn what_cannot_be_copied_leaves_the_earlier_copy() {
        let home = tempfile::tempdir().unwrap();
        let to = home.path().join("copy");
        fs::write(&to, "an earlier one").unwrap();
        let copied = copy(&home.path().join("nothing"), &to).await;
        assert!(matches!(copied, Err(Error::File(PathError { action: "copy", .. }))));
        assert_eq!(fs::read(&to).unwrap(), b"an earlier one");
        assert!(!beside(&to, ".new").exists());
    }

    #[tokio::test]
    async fn a_copy_that_was_killed_half_way_is_neither_used_nor_in_the_way() {
        let home = tempfile::tempdir().unwrap();
        let (from, to) = (home.path().join("disk"), home.path().join("copy"));
        holey(&from);
        // What a killed one leaves: more bytes than there should be, where holes are.
        fs::write(beside(&to, ".new"), vec![0xaa; 1 << 20]).unwrap();
        assert!(!to.exists());
        copy(&from, &to).await.unwrap();
        let mut hole = [1; 4096];
        File::open(&to).unwrap().read_exact_at(&mut hole, 512 << 10).unwrap();
        assert_eq!(hole, [0; 4096]);
        assert!(!beside(&to, ".new").exists());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_copy_holds_nobody_up() {
        // A pipe can be opened for reading only once another task has opened it for writing.
        let home = tempfile::tempdir().unwrap();
        let (pipe, to) = (home.path().join("pipe"), home.path().join("copy"));
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        let (tell, told) = std::sync::mpsc::channel::<()>();
        let writer = std::thread::spawn({
            let pipe = pipe.clone();
            move || {
                let waited = told.recv_timeout(Duration::from_secs(60));
                drop(File::options().write(true).open(pipe).unwrap());
                waited.is_ok()
            }
        });
        let other = async move { tell.send(()).unwrap() };
        let (copied, ()) = tokio::join!(copy(&pipe, &to), other);
        copied.unwrap();
        assert!(writer.join().unwrap(), "the thread was blocked");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_takes_long_holds_nobody_up() {
        // It ends only once another task of the same thread has run.
        let (tell, told) = std::sync::mpsc::channel::<()>();
        let work = apart(move || {
            let waited = told.recv_timeout(Duration::from_secs(60));
            Ok(waited.is_ok())
        });
        let other = async move { tell.send(()).unwrap() };
        let (waited, ()) = tokio::join!(work, other);
        assert!(waited.unwrap(), "the thread was blocked");
    }

    #[test]
    fn a_disk_grows_and_never_shrinks() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("agents/worker/disk");
        for (mib, length) in [(2, 2), (4, 4), (1, 4)] {
            sparse(&path, mib).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().len(), length << 20);
        }
    }
}
