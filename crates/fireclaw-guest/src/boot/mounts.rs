//! File systems: the early ones, the root with its overlay, and the usual rest.

use std::ffi::CStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::mount::{
    MountFlags, MountPropagationFlags, mount, mount_bind, mount_change, mount_move, mount_remount,
};

const BASE_DEVICE: &str = "/dev/vda";
const BASE: &str = "/base";
const WRITABLE: &str = "/writable";
const ROOT: &str = "/root";

/// This program, for those in the guest who start it as something else than init.
const GUEST: &str = "/run/fireclaw/guest";

/// How long the base image's device may take to appear.
const DEVICE_WAIT: Duration = Duration::from_secs(10);

fn on(
    source: &str,
    target: &str,
    kind: &str,
    flags: MountFlags,
    data: Option<&CStr>,
) -> Result<(), String> {
    match fs::create_dir(target) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(format!("cannot create {target}: {e}"));
        }
        _ => {}
    }
    mount(source, target, kind, flags, data)
        .map_err(|e| format!("cannot mount {kind} on {target}: {e}"))
}

/// Mounts what loading modules and finding devices needs.
pub fn early() -> Result<(), String> {
    let safe = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV;
    on("proc", "/proc", "proc", safe, None)?;
    on("sysfs", "/sys", "sysfs", safe, None)?;
    match on("dev", "/dev", "devtmpfs", MountFlags::NOSUID, Some(c"mode=0755")) {
        // A kernel may have mounted it by itself (CONFIG_DEVTMPFS_MOUNT).
        Err(_) if Path::new("/dev/null").exists() => Ok(()),
        other => other,
    }
}

/// Lays a writable overlay on the read-only base image and makes it the root.
pub fn root() -> Result<(), String> {
    let start = Instant::now();
    while !Path::new(BASE_DEVICE).exists() {
        if start.elapsed() > DEVICE_WAIT {
            return Err(format!("the base image's device {BASE_DEVICE} did not appear"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    on(BASE_DEVICE, BASE, "ext4", MountFlags::RDONLY, None)
        .or_else(|_| on(BASE_DEVICE, BASE, "erofs", MountFlags::RDONLY, None))
        .or_else(|_| on(BASE_DEVICE, BASE, "squashfs", MountFlags::RDONLY, None))
        .map_err(|_| format!("{BASE_DEVICE} holds no ext4, erofs or squashfs file system"))?;
    // Three quarters: a full overlay must not take the memory that programs need.
    on("writable", WRITABLE, "tmpfs", MountFlags::empty(), Some(c"mode=0755,size=75%"))?;
    for directory in ["/writable/upper", "/writable/work"] {
        fs::create_dir(directory).map_err(|e| format!("cannot create {directory}: {e}"))?;
    }
    on(
        "overlay",
        ROOT,
        "overlay",
        MountFlags::empty(),
        Some(c"lowerdir=/base,upperdir=/writable/upper,workdir=/writable/work"),
    )?;
    containers();
    for name in ["proc", "sys", "dev"] {
        let target = format!("{ROOT}/{name}");
        if !Path::new(&target).is_dir() {
            fs::create_dir(&target).map_err(|e| format!("cannot create {target}: {e}"))?;
        }
        mount_move(format!("/{name}"), &target).map_err(|e| format!("cannot move /{name}: {e}"))?;
    }
    rustix::process::chdir(ROOT)
        .and_then(|()| mount_move(".", "/"))
        .and_then(|()| rustix::process::chroot("."))
        .and_then(|()| rustix::process::chdir("/"))
        .map_err(|e| format!("cannot change into the root: {e}"))
}

/// Gives an image with containers a place for their layers that is no overlay: one
/// cannot be the upper layer of another (Documentation/filesystems/overlayfs.rst).
fn containers() {
    const PLACE: &str = "/root/var/lib/containers";
    const LAYERS: &str = "/writable/containers";
    // Each user keeps their own.
    const OF_USERS: &str = "/writable/containers/rootless";
    if Path::new(PLACE).is_dir() {
        let made = fs::create_dir(LAYERS)
            .and_then(|()| fs::create_dir(OF_USERS))
            .and_then(|()| fs::set_permissions(OF_USERS, fs::Permissions::from_mode(0o1777)))
            .and_then(|()| Ok(mount_bind(LAYERS, PLACE)?));
        if let Err(e) = made {
            crate::say!("containers have no place for their layers: {e}");
        }
    }
}

/// Mounts what every Linux program expects. An image that lacks a directory
/// gets it; what a kernel cannot do is left out.
pub fn system() {
    let safe = MountFlags::NOSUID | MountFlags::NODEV;
    let _ = on(
        "devpts",
        "/dev/pts",
        "devpts",
        MountFlags::NOSUID | MountFlags::NOEXEC,
        Some(c"mode=0620,gid=5,ptmxmode=0666"),
    );
    let _ = on("shm", "/dev/shm", "tmpfs", safe, Some(c"mode=1777"));
    // Nothing is mounted on /run and /tmp: what is written there is in memory as it is, and
    // what the image has there stays, with its owners and modes.
    places(Path::new("/"));
    if let Err(e) = guest_program() {
        crate::say!("{GUEST} is not there: {e}");
    }
    let _ = for_containers(safe);
    for (name, target) in [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
    ] {
        let _ = symlink(target, name);
    }
    let cgroup = mount(
        "cgroup2",
        "/sys/fs/cgroup",
        "cgroup2",
        safe | MountFlags::NOEXEC,
        Some(c"nsdelegate"),
    );
    if cgroup.is_ok() {
        // Processes may live only in leaves (cgroups(7), "no internal processes").
        let _ = fs::create_dir("/sys/fs/cgroup/init");
        let _ = fs::write("/sys/fs/cgroup/init/cgroup.procs", "1");
        // No controllers here: each makes every command's cgroup dearer, and who
        // wants them for containers can switch them on.
    }
}

/// Makes the places for passing files that an image lacks. What it has stays as it is.
fn places(root: &Path) {
    place(&root.join("run"), 0o755);
    place(&root.join("tmp"), 0o1777);
    // Debian's /var/lock is a link to it, and boot scripts make it there.
    let is_linked = fs::read_link(root.join("var/lock"))
        .is_ok_and(|to| to.ends_with("run/lock") && !to.starts_with("/var"));
    if is_linked {
        place(&root.join("run/lock"), 0o1777);
    }
}

fn place(path: &Path, mode: u32) {
    // The umask must not take from the mode.
    if fs::create_dir(path).is_ok() {
        let _ = fs::set_permissions(path, fs::Permissions::from_mode(mode));
    }
}

/// What containers of a user other than root ask of the mounts around them.
fn for_containers(safe: MountFlags) -> Result<(), String> {
    // The kernel lets a user namespace have a /proc only if there is one on which
    // nothing is mounted (mount_namespaces(7)); on ours lies the boot id's cover.
    on("proc", "/run/fireclaw/proc", "proc", safe | MountFlags::NOEXEC, None)?;
    let shared = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
    mount_change("/", shared).map_err(|e| e.to_string())
}

/// Shows this program's file, which is in the initramfs below the root, without a copy:
/// the memory it takes is the same.
fn guest_program() -> std::io::Result<()> {
    fs::create_dir("/run/fireclaw")?;
    fs::File::create_new(GUEST)?;
    mount_bind("/proc/self/exe", GUEST)?;
    let safe = MountFlags::NOSUID | MountFlags::NODEV;
    // A bind takes no other flags before it is there.
    Ok(mount_remount(GUEST, MountFlags::BIND | MountFlags::RDONLY | safe, "")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn places_that_an_image_lacks_are_made_and_those_it_has_stay() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("var")).unwrap();
        symlink("/run/lock", root.path().join("var/lock")).unwrap();
        places(root.path());
        for (name, expected) in [("run", 0o755), ("tmp", 0o1777), ("run/lock", 0o1777)] {
            assert_eq!(mode(&root.path().join(name)), expected, "{name}");
        }

        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("run/app")).unwrap();
        fs::set_permissions(root.path().join("run"), fs::Permissions::from_mode(0o711)).unwrap();
        places(root.path());
        assert_eq!(mode(&root.path().join("run")), 0o711);
        assert!(root.path().join("run/app").is_dir() && !root.path().join("run/lock").exists());
    }
}
