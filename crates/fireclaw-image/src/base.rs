//! The two things that come from Debian: the kernel and the base image.

use std::path::Path;

use fireclaw_host::PathError;

use crate::debian::{self, Request};
use crate::kernel::{self, DebianKernel};
use crate::{Error, Home, Image, Kernel, Progress, Result, files, import, initramfs};

/// The kernel package for virtual machines, without drivers for hardware.
const KERNEL_PACKAGE: &str = "linux-image-cloud-amd64";

/// What a person expects to find in a VM, besides Debian's essential
/// packages. `passwd` brings the tools that make user `agent`.
const PACKAGES: &[&str] = &[
    "bash",
    "ca-certificates",
    "coreutils",
    "curl",
    "e2fsprogs",
    "git",
    "iproute2",
    "mount",
    "passwd",
    "podman",
    "procps",
    "python-is-python3",
    "python3",
    "uidmap",
    "uuid-runtime",
];

/// How containers run in a VM (containers.conf(5), containers-storage.conf(5)).
///
/// They share the VM's network, on which its policy is. There is no systemd to
/// make cgroups for a user. Layers lie where no overlay is, because an overlay cannot
/// be the upper layer of another: the guest mounts something there.
const CONTAINERS: &str = r#"--customize-hook=
mkdir -p "$1"/etc/containers "$1"/var/lib/containers
rm -rf "$1"/etc/cni
cat >"$1"/etc/containers/containers.conf <<'END'
[containers]
netns = "host"
cgroups = "disabled"
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
END
cat >"$1"/etc/containers/storage.conf <<'END'
[storage]
driver = "overlay"
graphroot = "/var/lib/containers/storage"
runroot = "/run/containers/storage"
rootless_storage_path = "/var/lib/containers/rootless/$UID"
END
"#;

const OPTIONS: &[&str] = &[
    "--aptopt=APT::Install-Recommends \"false\"",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-include=/usr/share/doc/*/copyright",
    "--dpkgopt=path-exclude=/usr/share/info/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    CONTAINERS,
    "--customize-hook=chroot \"$1\" useradd --create-home --shell /bin/bash agent",
    // mmdebstrap copies these from the host; they are nobody's business here.
    "--customize-hook=rm -f \"$1\"/etc/hostname \"$1\"/etc/resolv.conf \"$1\"/etc/machine-id",
];

/// Fetches Debian's kernel; `extra` are modules besides the usual ones.
pub fn kernel(
    home: &Home,
    mirror: Option<&str>,
    extra: &[&str],
    progress: &dyn Progress,
) -> Result<Kernel> {
    let scratch = debian::scratch(home);
    let request = Request {
        // Unpacks without installing: no scripts run, nothing is configured.
        variant: "extract",
        packages: &[KERNEL_PACKAGE],
        options: &["--aptopt=APT::Install-Recommends \"false\""],
        mirror,
        scratch: &scratch,
    };
    let found = debian::fetch(&request, progress, |tar| {
        DebianKernel::read(tar, extra).map_err(|problem| Error::BadArchive {
            origin: format!("Debian's {KERNEL_PACKAGE}"),
            problem,
        })
    })?;
    let directory = Path::new("kernels").join(&found.release);
    let modules = initramfs::modules_archive(&found.modules)
        .map_err(PathError::at("pack", home.root().join(&directory)))?;
    Ok(Kernel {
        image: files::write(home, &directory.join("vmlinux"), &found.image)?,
        modules: Some(files::write(home, &directory.join("modules.cpio"), &modules)?),
        drivers: kernel::drivers(),
        release: found.release,
        origin: format!("Debian {} {KERNEL_PACKAGE}", debian::SUITE),
    })
}

/// Fetches and installs Debian's packages into a fresh image at `file` below the home; `extra`
/// are packages besides the usual ones.
pub fn image(
    home: &Home,
    file: &Path,
    mirror: Option<&str>,
    extra: &[&str],
    progress: &dyn Progress,
) -> Result<Image> {
    let scratch = debian::scratch(home);
    let packages = [PACKAGES, extra].concat();
    let request = Request {
        variant: "essential",
        packages: &packages,
        options: OPTIONS,
        mirror,
        scratch: &scratch,
    };
    let origin = format!("Debian {}", debian::SUITE);
    let rootfs = files::create(home, file, |path| {
        debian::fetch(&request, progress, |tar| {
            import::from_tar(tar, &origin, path, None).map(drop)
        })
    })?;
    Ok(Image { packages: self::packages(), extra: owned(extra), ..Image::new(rootfs, origin) })
}

/// What a base image is made with, besides what its maker asked for.
pub fn packages() -> Vec<String> {
    owned(PACKAGES)
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}
