//! A directory for each running VM, and the sweep of those left behind.
//!
//! A daemon's VMs outlive it. Theirs are *detached* directories, elsewhere: no
//! lock, no sweep; the daemon's state says whose they are.
//!
//! `run/<id>/` holds a VM's sockets and logs, `run/<id>.lock` says whose
//! it is: the owner holds the file locked for as long as it lives, and the
//! kernel lets go of the lock however the owner ends. Whoever can lock it has
//! found a directory without an owner and may clear it away.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use fireclaw_host::PathError;

use crate::{Error, Result};

/// The prefix of the mark that every VMM of ours carries on its command line.
pub const MARK: &str = "fireclaw-";

/// A VM's directory; dropping it removes the directory and its lock.
#[derive(Debug)]
pub struct RunDir {
    id: String,
    path: PathBuf,
    /// None for a detached directory.
    lock: Option<(PathBuf, File)>,
}

impl RunDir {
    /// Makes a directory with a fresh id below `run`.
    pub fn create(run: &Path) -> Result<Self> {
        private_dir(run).map_err(PathError::at("create", run))?;
        loop {
            let id = Self::fresh_id()?;
            let lock_path = run.join(format!("{id}.lock"));
            let lock = File::create_new(&lock_path).map_err(PathError::at("create", &lock_path))?;
            lock.lock().map_err(PathError::at("lock", &lock_path))?;
            if !same_file(&lock, &lock_path) {
                // A sweep took the file between its creation and our lock.
                continue;
            }
            let path = run.join(&id);
            let dir = Self { id, path, lock: Some((lock_path, lock)) };
            private_dir(&dir.path).map_err(PathError::at("create", &dir.path))?;
            return Ok(dir);
        }
    }

    /// A fresh id for [`RunDir::detached`].
    pub fn fresh_id() -> Result<String> {
        Ok(format!("{MARK}{}", random_id()?))
    }

    /// The directory of this id below `machines`, made if it is not there. It
    /// stays when this is dropped, and so does the VM in it.
    pub fn detached(machines: &Path, id: &str) -> Result<Self> {
        let path = machines.join(id);
        private_dir(&path).map_err(PathError::at("create", &path))?;
        Ok(Self { id: id.to_owned(), path, lock: None })
    }

    /// Whether the VM outlives this.
    pub fn is_detached(&self) -> bool {
        self.lock.is_none()
    }

    /// The VM's id: `fireclaw-` and 16 hexadecimal digits.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        // The lock file goes last: with it, what cannot be removed now is
        // found by the next sweep.
        if let Some((lock_path, _)) = &self.lock
            && removed(&self.path)
        {
            let _ = fs::remove_file(lock_path);
        }
    }
}

/// What a [`sweep`] cleared away.
#[derive(Debug, Default, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Swept {
    /// Ids of directories whose owner is gone.
    pub directories: Vec<String>,
    /// Process ids of VMMs whose owner was gone.
    pub processes: Vec<i32>,
    /// Directories without an owner that could not be removed.
    pub stuck: Vec<PathBuf>,
}

/// Clears away what dead owners left below `run`: VMMs first, then files.
///
/// Only names with our mark are touched, and only when their lock is free.
pub fn sweep(run: &Path) -> Result<Swept> {
    let mut swept = Swept::default();
    let entries = match fs::read_dir(run) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(swept),
        other => other.map_err(PathError::at("read", run))?,
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(id) = name.to_str().and_then(|n| n.strip_suffix(".lock")).filter(|id| is_id(id))
        else {
            continue;
        };
        let lock_path = entry.path();
        let Ok(lock) = File::open(&lock_path) else { continue };
        match lock.try_lock() {
            Ok(()) if same_file(&lock, &lock_path) => {}
            Ok(()) | Err(TryLockError::WouldBlock | TryLockError::Error(_)) => continue,
        }
        swept.processes.extend(kill_marked(id));
        let dir = run.join(id);
        if removed(&dir) && fs::remove_file(&lock_path).is_ok() {
            swept.directories.push(id.to_owned());
        } else {
            swept.stuck.push(dir);
        }
    }
    Ok(swept)
}

/// Whether a process has `id` as an argument of its own.
pub fn is_marked(id: &str) -> bool {
    let is_process = |name: &std::ffi::OsStr| {
        name.to_str().is_some_and(|name| name.bytes().all(|b| b.is_ascii_digit()))
    };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter(|entry| is_process(&entry.file_name()))
        .any(|entry| has_mark(&entry.path(), id))
}

fn has_mark(process: &Path, id: &str) -> bool {
    fs::read(process.join("cmdline"))
        .is_ok_and(|line| line.split(|b| *b == 0).any(|argument| argument == id.as_bytes()))
}

/// Kills every process that has `id` as an argument of its own, by pidfd so
/// that a recycled pid is never hit. Their process ids.
pub fn kill_marked(id: &str) -> Vec<i32> {
    let mut killed = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|n| n.parse().ok())
            .and_then(rustix::process::Pid::from_raw)
        else {
            continue;
        };
        let marked = || has_mark(&entry.path(), id);
        if !marked() {
            continue;
        }
        let Ok(fd) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else {
            continue;
        };
        // Looked at again now that the pidfd holds this very process.
        if marked()
            && rustix::process::pidfd_send_signal(&fd, rustix::process::Signal::KILL).is_ok()
        {
            let mut ended = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)];
            let limit = rustix::event::Timespec { tv_sec: 5, tv_nsec: 0 };
            let _ = rustix::event::poll(&mut ended, Some(&limit));
            killed.push(pid.as_raw_nonzero().get());
        }
    }
    killed
}

/// Removes a directory; true if it is gone afterwards.
fn removed(dir: &Path) -> bool {
    match fs::remove_dir_all(dir) {
        Ok(()) => true,
        Err(e) => e.kind() == io::ErrorKind::NotFound,
    }
}

fn is_id(name: &str) -> bool {
    name.strip_prefix(MARK)
        .is_some_and(|rest| rest.len() == 16 && rest.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn random_id() -> Result<String> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|e| Error::system("getrandom")(e.into()))?;
    Ok(format!("{:016x}", u64::from_ne_bytes(bytes)))
}

fn private_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn same_file(open: &File, path: &Path) -> bool {
    match (open.metadata(), fs::metadata(path)) {
        (Ok(a), Ok(b)) => a.dev() == b.dev() && a.ino() == b.ino(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_living_owner_is_left_alone_and_a_dead_one_is_swept() {
        let home = tempfile::tempdir().unwrap();
        let run = home.path().join("run");
        let alive = RunDir::create(&run).unwrap();
        fs::write(alive.path().join("log"), "x").unwrap();

        // What a killed owner leaves: a directory, a lock file nobody holds,
        // and a VMM that carries the id.
        let dead = "fireclaw-0123456789abcdef";
        fs::create_dir(run.join(dead)).unwrap();
        fs::write(run.join(dead).join("api.sock"), "").unwrap();
        fs::write(run.join(format!("{dead}.lock")), "").unwrap();
        let mut orphan = std::process::Command::new("sh")
            .args(["-c", "read never", dead])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        // Its command line shows only once its exec is through.
        let line = format!("/proc/{}/cmdline", orphan.id());
        while !fs::read_to_string(&line).unwrap().contains(dead) {
            std::thread::yield_now();
        }
        // Not ours: never touched.
        fs::write(run.join("notes.lock"), "").unwrap();

        let swept = sweep(&run).unwrap();
        assert_eq!(swept.directories, [dead]);
        assert_eq!(swept.processes, [i32::try_from(orphan.id()).unwrap()]);
        assert!(!orphan.wait().unwrap().success());
        assert!(alive.path().join("log").exists());
        assert!(run.join("notes.lock").exists() && !run.join(dead).exists());

        assert_eq!(sweep(&run).unwrap(), Swept::default());
        drop(alive);
        let left: Vec<_> = fs::read_dir(&run).unwrap().flatten().map(|e| e.file_name()).collect();
        assert_eq!(left, ["notes.lock"]);
    }

    #[test]
    fn nothing_to_sweep_is_fine() {
        let home = tempfile::tempdir().unwrap();
        assert_eq!(sweep(&home.path().join("absent")).unwrap(), Swept::default());
    }
}
