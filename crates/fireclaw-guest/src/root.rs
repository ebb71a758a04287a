//! Another root: the image below, a disk of its own above, so that what is written stays when
//! the VM ends.
//!
//! At boot the upper layer is in memory ([`crate::boot`]), also in a VM that is restored from a
//! snapshot, which others start from. The host then has the root replaced under all programs.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, mount_move,
    unmount,
};

/// Where everything of ours is, in the old root and in the new one.
const OURS: &str = "run/fireclaw";

/// Where the disk is mounted, once the root is on one.
pub const DISK: &str = "/run/fireclaw/disk";

const BASE: &str = "/run/fireclaw/base";
const ROOT: &str = "/run/fireclaw/root";
const BASE_DEVICE: &str = "/dev/vda";

/// What the host gave this VM, in files: the new root has it too.
const NAMES: [&str; 3] = ["etc/hostname", "etc/hosts", "etc/resolv.conf"];

/// What it keeps once it has it.
const MACHINE_ID: &str = "etc/machine-id";

/// Makes a disk the upper layer of the root.
pub fn replace(device: &str) -> Result<(), String> {
    // What is shared cannot be moved (pivot_root(2)).
    share(MountPropagationFlags::PRIVATE)?;
    let replaced = on_disk(device);
    // Who asks for containers needs it again, whatever has happened.
    share(MountPropagationFlags::SHARED)?;
    replaced
}

fn share(how: MountPropagationFlags) -> Result<(), String> {
    mount_change("/", how | MountPropagationFlags::REC)
        .map_err(|e| format!("cannot change how mounts propagate: {e}"))
}

fn on_disk(device: &str) -> Result<(), String> {
    for place in [DISK, BASE, ROOT] {
        directory(Path::new(place), 0o700)?;
    }
    mount(device, DISK, "ext4", MountFlags::NOATIME, None)
        .map_err(|e| format!("cannot mount the disk {device}: {e}"))?;
    let is_mounted = ["ext4", "erofs", "squashfs"]
        .into_iter()
        .any(|kind| mount(BASE_DEVICE, BASE, kind, MountFlags::RDONLY, None).is_ok());
    if !is_mounted {
        return Err("cannot mount the image again".into());
    }
    let [upper, work] = ["upper", "work"].map(|name| Path::new(DISK).join(name));
    let is_new = !upper.join(MACHINE_ID).exists();
    directory(&upper, 0o755)?;
    directory(&work, 0o755)?;
    let layers = c"lowerdir=/run/fireclaw/base,upperdir=/run/fireclaw/disk/upper,\
                   workdir=/run/fireclaw/disk/work";
    mount("overlay", ROOT, "overlay", MountFlags::empty(), Some(layers))
        .map_err(|e| format!("cannot lay the disk over the image: {e}"))?;
    // The overlay holds it.
    let _ = unmount(BASE, UnmountFlags::DETACH);
    names(Path::new("/"), Path::new(ROOT), is_new);
    containers();
    move_all()?;
    enter()
}

/// Makes a directory, if it is not there.
fn directory(path: &Path, mode: u32) -> Result<(), String> {
    match fs::create_dir(path) {
        Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(mode)),
        Err(e) if e.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(e) => Err(e),
    }
    .map_err(|e| format!("cannot create {}: {e}", path.display()))
}

/// Takes the files along that say who this VM is. A machine keeps its id.
fn names(from: &Path, to: &Path, is_new: bool) {
    for name in NAMES.into_iter().chain(is_new.then_some(MACHINE_ID)) {
        let Ok(text) = fs::read(from.join(name)) else { continue };
        let target = to.join(name);
        // A link of a program in the VM must not lead the text elsewhere.
        if target.is_symlink() {
            let _ = fs::remove_file(&target);
        }
        if let Some(parent) = target.parent() {
            let _ = fs::create_dir_all(parent);
        }
        // What programs in the VM made of it is theirs, and no reason to keep it from starting.
        if target.is_file() || !target.exists() {
            let written = fs::write(&target, text);
            let _ = written.inspect_err(|e| crate::say!("/{name} stays as it was: {e}"));
        }
    }
}

/// An image with containers keeps their layers on the disk: an overlay cannot be the upper
/// layer of another.
fn containers() {
    let place = Path::new(ROOT).join("var/lib/containers");
    let layers = Path::new(DISK).join("containers");
    if !place.is_dir() || place.is_symlink() {
        return;
    }
    let made = directory(&layers, 0o755)
        .and_then(|()| directory(&layers.join("rootless"), 0o1777))
        .and_then(|()| mount_bind(&layers, &place).map_err(|e| e.to_string()));
    if let Err(e) = made {
        crate::say!("containers have no place for their layers: {e}");
    }
}

/// Moves what is mounted below the old root to the same place below the new one.
fn move_all() -> Result<(), String> {
    for name in ["dev", "proc", "sys", "tmp", "run"] {
        let mode = if name == "tmp" { 0o1777 } else { 0o755 };
        let path = Path::new(ROOT).join(name);
        // A link of a program in the VM must not lead elsewhere.
        if path.is_symlink() {
            fs::remove_file(&path).map_err(|e| format!("cannot remove the link /{name}: {e}"))?;
        }
        directory(&path, mode)?;
    }
    // On the disk there is what an earlier start left, which may be anything.
    let ours = Path::new(ROOT).join(OURS);
    if ours.is_symlink() || (ours.exists() && !ours.is_dir()) {
        fs::remove_file(&ours).map_err(|e| format!("cannot remove /{OURS}: {e}"))?;
    }
    directory(&ours, 0o755)?;
    mount("tmpfs", &ours, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, Some(c"mode=0755"))
        .map_err(|e| format!("cannot mount /{OURS}: {e}"))?;
    fs::write(ours.join("guest"), "").map_err(|e| format!("cannot write /{OURS}: {e}"))?;
    for name in ["proc", "disk", "old"] {
        directory(&ours.join(name), 0o700)?;
    }
    let moved = |from: &str, to: &Path| {
        mount_move(from, to).map_err(|e| format!("cannot move {from}: {e}"))
    };
    moved("/run/fireclaw/guest", &ours.join("guest"))?;
    moved("/run/fireclaw/proc", &ours.join("proc"))?;
    moved(DISK, &ours.join("disk"))?;
    for name in ["dev", "sys", "proc"] {
        moved(&format!("/{name}"), &Path::new(ROOT).join(name))?;
    }
    Ok(())
}

/// Makes the new root that of all programs.
fn enter() -> Result<(), String> {
    let entered = rustix::process::chdir(ROOT)
        .and_then(|()| rustix::process::pivot_root(".", format!("{OURS}/old")))
        .and_then(|()| rustix::process::chdir("/"));
    entered.map_err(|e| format!("cannot change into the root: {e}"))?;
    let old = Path::new("/").join(OURS).join("old");
    let _ = unmount(&old, UnmountFlags::DETACH);
    let _ = fs::remove_dir(&old);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_machine_keeps_its_id_and_gets_its_names_anew() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let outside = tempfile::tempdir().unwrap();
        fs::create_dir(from.path().join("etc")).unwrap();
        for name in ["etc/hostname", "etc/hosts", MACHINE_ID] {
            fs::write(from.path().join(name), "first").unwrap();
        }
        names(from.path(), to.path(), true);
        for name in ["etc/hostname", "etc/hosts", MACHINE_ID] {
            fs::write(from.path().join(name), "second").unwrap();
        }
        let kept = outside.path().join("kept");
        fs::write(&kept, "kept").unwrap();
        fs::remove_file(to.path().join("etc/hosts")).unwrap();
        symlink(&kept, to.path().join("etc/hosts")).unwrap();
        names(from.path(), to.path(), false);
        let read = |name: &str| fs::read_to_string(to.path().join(name)).unwrap();
        assert_eq!((read("etc/hostname"), read(MACHINE_ID)), ("second".into(), "first".into()));
        assert_eq!(
            (read("etc/hosts"), fs::read_to_string(kept).unwrap()),
            ("second".into(), "kept".into())
        );
        assert!(!to.path().join("etc/resolv.conf").exists());
    }
}
