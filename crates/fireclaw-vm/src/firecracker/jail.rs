//! Firecracker's jailer: a changed root and an unprivileged user.
//!
//! It needs root. See `docs/jailer.md` in Firecracker's repository.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use fireclaw_host::PathError;
use rustix::fs::{CWD, Mode, OFlags, mkfifoat};
use tokio::net::unix::pipe::{OpenOptions, Receiver, Sender};

use crate::{Error, MachineSpec, Result, RunDir};

/// How VMMs are confined.
///
/// Run directories must be on a file system mounted without `nodev`: the jail
/// in them has a `/dev/kvm` of its own. That rules out `/run/user`.
///
/// The parent-death signal does not reach a jailed VMM: the kernel forgets it
/// when the jailer changes its user (`prctl(2)`, `PR_SET_PDEATHSIG`). Dropping
/// the VM still kills it, for the jailer becomes the VMM without another
/// fork. An owner that was itself killed leaves the VMM to the next
/// [`sweep`](crate::sweep), which finds it by its `--id`: the jailer passes that
/// on as an argument of its own.
#[derive(Debug, Clone)]
pub struct Jail {
    /// The jailer, of the same version as Firecracker.
    pub program: PathBuf,
    /// The user that the VMM becomes, best one that nothing else runs as.
    pub uid: u32,
    /// The group that the VMM becomes.
    pub gid: u32,
}

/// What a jailed VMM logs to, in its root: a pipe, so that no guest fills the host's disk.
pub(super) const LOG: &str = "log";

/// The log of a jailed VMM, before the VMM is there.
pub(super) struct Log {
    /// What it will log.
    pub reader: Receiver,
    /// Until it has opened its end, the reader would find the end of the log.
    pub held: Sender,
}

/// Opens a pipe to read from. What a jailed VMM may have put in its place is refused: a link
/// would lead out of the jail.
fn reader(path: &Path) -> io::Result<Receiver> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Receiver::from_file(rustix::fs::open(path, flags, Mode::empty())?.into())
}

/// The VMM's root directory, named by the jailer. It lies inside the run
/// directory and so goes away with it.
pub(super) fn root(firecracker: &Path, run_dir: &RunDir) -> PathBuf {
    let name = firecracker.file_name().unwrap_or_default();
    base(run_dir).join(name).join(run_dir.id()).join("root")
}

fn base(run_dir: &RunDir) -> PathBuf {
    run_dir.path().join("jail")
}

impl Jail {
    /// Whether this process can jail at all.
    pub(super) fn check(&self) -> Result<()> {
        if rustix::process::geteuid().is_root() {
            return Ok(());
        }
        Err(Error::System {
            what: "Firecracker's jailer",
            cause: io::Error::new(io::ErrorKind::PermissionDenied, "only root can use it"),
        })
    }

    /// The command line up to Firecracker's own arguments.
    pub(super) fn command(&self, firecracker: &Path, run_dir: &RunDir) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--id").arg(run_dir.id());
        command.arg("--exec-file").arg(firecracker);
        command.args(["--uid", &self.uid.to_string(), "--gid", &self.gid.to_string()]);
        command.arg("--chroot-base-dir").arg(base(run_dir)).arg("--");
        command
    }

    /// Puts the VM's files into the jail and tells where they are there.
    pub(super) fn provision(
        &self,
        firecracker: &Path,
        spec: &MachineSpec,
        run_dir: &RunDir,
    ) -> Result<MachineSpec> {
        let root = root(firecracker, run_dir);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&root)
            .map_err(PathError::at("create", &root))?;
        devices_work(&root)?;
        let mut inside = spec.clone();
        inside.kernel = self.lend(&spec.kernel, &root, "kernel")?;
        inside.initramfs = self.lend(&spec.initramfs, &root, "initramfs")?;
        for (n, disk) in inside.disks.iter_mut().enumerate() {
            let name = format!("disk{n}");
            disk.path = if disk.read_only {
                self.lend(&disk.path, &root, &name)?
            } else {
                // This VM's own: what the guest writes is for this file,
                // so a copy would not do.
                let target = root.join(&name);
                let from = disk.path.canonicalize().map_err(PathError::at("find", &disk.path))?;
                fs::hard_link(from, &target).map_err(PathError::at("link into", &target))?;
                self.give(&target)?;
                name.into()
            };
        }
        Ok(inside)
    }

    /// Makes the pipe that the VMM logs to.
    pub(super) fn log(&self, root: &Path) -> Result<Log> {
        let path = root.join(LOG);
        let failed = PathError::at("make a pipe", &path);
        mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).map_err(|e| failed(e.into()))?;
        let open = || {
            // It does not wait for a writer, and a writer finds a reader.
            let reader = reader(&path)?;
            Ok(Log { reader, held: OpenOptions::new().open_sender(&path)? })
        };
        let log = open().map_err(PathError::at("open", &path))?;
        self.give(&path)?;
        Ok(log)
    }

    /// What a jailed VMM that runs already logs from now on.
    pub(super) fn follow_log(root: &Path) -> Result<Receiver> {
        let path = root.join(LOG);
        Ok(reader(&path).map_err(PathError::at("open", &path))?)
    }

    /// Shares a file for reading. Others use it too, so its owner stays. Where
    /// the VMM could not read it or could change it, and on another file
    /// system, it is copied.
    fn lend(&self, from: &Path, root: &Path, name: &str) -> Result<PathBuf> {
        let target = root.join(name);
        // A link to a symbolic link would lead out of the jail.
        let from = from.canonicalize().map_err(PathError::at("find", from))?;
        let meta = fs::metadata(&from).map_err(PathError::at("read", &from))?;
        if !(self.only_reads(&meta) && fs::hard_link(&from, &target).is_ok()) {
            fs::copy(&from, &target).map_err(PathError::at("copy", &from))?;
            self.give(&target)?;
        }
        Ok(name.into())
    }

    /// Whether the VMM's user can read a file and not change it.
    fn only_reads(&self, meta: &fs::Metadata) -> bool {
        let allowed = if meta.gid() == self.gid { meta.mode() >> 3 } else { meta.mode() } & 0o6;
        // An owner could give itself any permission.
        meta.uid() != self.uid && allowed == 0o4
    }

    /// Makes the VMM's user the owner.
    pub(super) fn give(&self, path: &Path) -> Result<()> {
        Ok(chown(path, Some(self.uid), Some(self.gid))
            .map_err(PathError::at("change the owner of", path))?)
    }
}

/// Whether devices can be opened in a directory. Else the VMM would tell of `/dev/kvm` that
/// permission is denied, and nobody would know why.
fn devices_work(directory: &Path) -> Result<()> {
    let failed = |source: io::Error| Error::system("reading how a file system is mounted")(source);
    let flags = rustix::fs::statvfs(directory).map_err(|e| failed(e.into()))?.f_flag;
    if !flags.contains(rustix::fs::StatVfsMountFlags::NODEV) {
        return Ok(());
    }
    let reason = format!("{} is on a file system mounted with nodev", directory.display());
    Err(Error::System { what: "Firecracker's jailer", cause: io::Error::other(reason) })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn a_log_is_a_pipe_and_no_link_to_one() {
        let dir = tempfile::tempdir().unwrap();
        let (pipe, link) = (dir.path().join("pipe"), dir.path().join(LOG));
        mkfifoat(CWD, &pipe, Mode::RUSR | Mode::WUSR).unwrap();
        assert!(reader(&pipe).is_ok());
        std::os::unix::fs::symlink(&pipe, &link).unwrap();
        assert!(Jail::follow_log(dir.path()).is_err());
        fs::remove_file(&link).unwrap();
        fs::write(&link, "").unwrap();
        assert!(Jail::follow_log(dir.path()).is_err());
    }

    #[test]
    fn a_shared_file_is_linked_only_if_the_jail_cannot_change_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "").unwrap();
        let owner = fs::metadata(&path).unwrap();
        let jail = |uid, gid| Jail { program: "jailer".into(), uid, gid };
        let (uid, gid) = (owner.uid() + 1, owner.gid() + 1);
        for (mode, jail, linked) in [
            (0o644, jail(uid, gid), true),
            (0o604, jail(uid, owner.gid()), false),
            (0o640, jail(uid, owner.gid()), true),
            (0o640, jail(uid, gid), false),
            (0o666, jail(uid, gid), false),
            (0o644, jail(owner.uid(), gid), false),
        ] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let meta = fs::metadata(&path).unwrap();
            assert_eq!(jail.only_reads(&meta), linked, "{mode:o} {jail:?}");
        }
    }
}
