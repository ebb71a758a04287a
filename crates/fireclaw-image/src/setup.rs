//! One-time preparation of a home, and what a run takes from it.

use std::fs;
use std::path::{Path, PathBuf};

use fireclaw_host::PathError;

use crate::files::Artifact;
use crate::lock::Lock;
use crate::manifest::{Image, Kernel, Manifest, Origin};
use crate::{
    Error, GUEST_PROGRAM, Home, ImageConfig, Progress, Result, base, files, import, initramfs,
    kernel, space,
};

/// What set-up is asked for besides the usual.
#[derive(Debug, Default)]
pub struct Options<'a> {
    /// An apt mirror instead of the host's own.
    pub mirror: Option<&'a str>,
    /// A kernel file to use instead of Debian's.
    pub kernel: Option<&'a Path>,
    /// Modules besides the usual ones.
    pub modules: &'a [&'a str],
    /// Debian packages in the base image besides the usual ones.
    pub packages: &'a [&'a str],
    /// Make everything anew even if it is there and whole.
    pub force: bool,
}

/// Paths for booting one VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bootable {
    /// The kernel.
    pub kernel: PathBuf,
    /// The initramfs with this program's guest.
    pub initramfs: PathBuf,
    /// The root file system.
    pub rootfs: PathBuf,
}

/// Makes a home ready: fetches what is missing or damaged, keeps what is whole.
///
/// Each finished step is recorded at once, so an interrupted set-up goes on
/// where it was. A second set-up at the same time waits for the first.
pub fn setup(home: &Home, options: &Options, progress: &dyn Progress) -> Result<Manifest> {
    let _lock = Lock::wait(home, progress)?;
    let mut manifest = match Manifest::read(home) {
        Err(Error::Damaged { .. }) if options.force => Manifest::default(),
        other => other?,
    };
    // A damaged kernel must not stand before Debian's, which can be had again.
    manifest
        .kernels
        .retain(|name, kernel| name == Manifest::DEBIAN_KERNEL || intact(home, &kernel.image));

    progress.step(1, 3, "kernel");
    if let Some(file) = options.kernel {
        let own = own_kernel(home, file, "kernels/own/vmlinux")?;
        progress.done(&own.release);
        manifest.kernels.insert(Manifest::OWN_KERNEL.into(), own);
        manifest.write(home)?;
    } else {
        // Asking for no kernel of one's own goes back to Debian's.
        if options.force {
            manifest.kernels.remove(Manifest::OWN_KERNEL);
        }
        let known = manifest.kernels.get(Manifest::DEBIAN_KERNEL);
        let whole = known.is_some_and(|k| {
            intact(home, &k.image)
                && k.modules.as_ref().is_none_or(|m| intact(home, m))
                && k.drivers == kernel::drivers()
        });
        let has_own = manifest.kernels.contains_key(Manifest::OWN_KERNEL);
        if options.force || !(whole || has_own) {
            space::require(home.root())?;
            let fresh = base::kernel(home, options.mirror, options.modules, progress)?;
            manifest.kernels.insert(Manifest::DEBIAN_KERNEL.into(), fresh);
            manifest.write(home)?;
        }
        progress.done(manifest.kernel().map_or("", |(_, kernel)| &kernel.release));
    }

    progress.step(2, 3, "base image");
    let known = manifest.images.get(Manifest::BASE_IMAGE);
    let whole = known.is_some_and(|image| is_current(home, image));
    if options.force || !whole {
        space::require(home.root())?;
        // One that is only too old, or damaged, keeps what was asked for when it was made.
        let before: Vec<String> =
            known.filter(|_| !options.force).map(|it| it.extra.clone()).unwrap_or_default();
        let mut extra: Vec<&str> = before.iter().map(String::as_str).collect();
        extra.extend(options.packages);
        let file = base_file(home, &manifest);
        let image = base::image(home, &file, options.mirror, &extra, progress)?;
        manifest.images.insert(Manifest::BASE_IMAGE.into(), image);
        manifest.write(home)?;
    }
    let origin = manifest.images.get(Manifest::BASE_IMAGE).map_or("", |image| &image.origin);
    progress.done(origin);

    progress.step(3, 3, "initramfs");
    let bootable = resolve(home, Manifest::BASE_IMAGE, None)?;
    progress.done(&format!("{} KiB", file_kib(&bootable.initramfs)));
    Ok(manifest)
}

/// Where a base image that is made anew goes: in the place of the one before, unless somebody
/// depends on that.
fn base_file(home: &Home, manifest: &Manifest) -> PathBuf {
    match manifest.images.get(Manifest::BASE_IMAGE) {
        Some(image) if !manifest.is_pinned(&image.rootfs.file) => image.rootfs.file.clone(),
        _ => manifest.free_file(home, "images/base", ".ext4"),
    }
}

/// Whether a base image is whole, and has in it what this program puts into one.
fn is_current(home: &Home, image: &Image) -> bool {
    image.packages == base::packages() && intact(home, &image.rootfs)
}

/// What a run boots: a named image, and the home's kernel or another one,
/// given by its name in the manifest or as a file.
///
/// An initramfs that is missing, because this program is newer than the last
/// set-up, is joined here; that takes milliseconds.
pub fn resolve(home: &Home, image: &str, own: Option<&Path>) -> Result<Bootable> {
    let manifest = Manifest::read(home)?;
    let kernel = kernel_for(home, &manifest, own)?;
    bootable(home, &kernel, manifest.image(home, image)?)
}

/// What boots the image that `owner` has [pinned](crate::pin), and as [`resolve`] the kernel.
pub fn resolve_pinned(home: &Home, owner: &str, own_kernel: Option<&Path>) -> Result<Bootable> {
    let manifest = Manifest::read(home)?;
    let kernel = kernel_for(home, &manifest, own_kernel)?;
    bootable(home, &kernel, manifest.pinned_by(owner)?)
}

fn kernel_for(home: &Home, manifest: &Manifest, own: Option<&Path>) -> Result<Kernel> {
    let named = own.and_then(Path::to_str).and_then(|name| manifest.kernels.get(name));
    match (named, own) {
        (Some(kernel), _) => Ok(kernel.clone()),
        (None, Some(file)) => own_kernel(home, file, "kernels/once"),
        (None, None) => match manifest.kernel() {
            Some((_, kernel)) => Ok(kernel.clone()),
            None => Err(Error::NotSetUp { what: "kernel", home: home.root().to_owned() }),
        },
    }
}

fn bootable(home: &Home, kernel: &Kernel, image: &Image) -> Result<Bootable> {
    let rootfs = &image.rootfs;
    for artifact in [&kernel.image, rootfs].into_iter().chain(&kernel.modules) {
        if !artifact.is_present(home) {
            let path = artifact.path(home);
            let problem = "it is missing or has the wrong length".to_owned();
            return Err(Error::Damaged { path, problem });
        }
    }
    Ok(Bootable {
        kernel: kernel.image.path(home),
        initramfs: joined_initramfs(home, kernel.modules.as_ref())?,
        rootfs: rootfs.path(home),
    })
}

fn joined_initramfs(home: &Home, modules: Option<&Artifact>) -> Result<PathBuf> {
    let relative = initramfs_file(modules);
    let path = home.join(&relative);
    if !path.is_file() {
        let modules = match modules {
            Some(artifact) => {
                artifact.verify(home)?;
                let path = artifact.path(home);
                fs::read(&path).map_err(PathError::at("read", path))?
            }
            None => Vec::new(),
        };
        let joined =
            initramfs::join(&modules, GUEST_PROGRAM).map_err(PathError::at("write", &path))?;
        files::write(home, &relative, &joined)?;
    }
    Ok(path)
}

fn initramfs_file(modules: Option<&Artifact>) -> PathBuf {
    let key = initramfs::key(modules.map(|m| m.sha256.as_str()), GUEST_PROGRAM);
    PathBuf::from(format!("initramfs/{key}.cpio"))
}

/// Takes over a kernel file that the user named. It must have the drivers for
/// virtio-mmio, ext4 and overlay built in.
fn own_kernel(home: &Home, file: &Path, relative: &str) -> Result<Kernel> {
    let bytes = fs::read(file).map_err(PathError::at("read", file))?;
    let digest = files::digest_of(&bytes);
    let relative = PathBuf::from(format!("{relative}-{}", &digest[..16]));
    let bad = |problem: kernel::Problem| Error::BadKernel {
        path: file.to_owned(),
        problem: problem.to_string(),
    };
    let path = home.join(&relative);
    let image = match fs::read(&path) {
        Ok(known) => {
            Artifact { file: relative, sha256: files::digest_of(&known), bytes: known.len() as u64 }
        }
        Err(_) => files::write(home, &relative, &kernel::bootable(bytes).map_err(bad)?)?,
    };
    Ok(Kernel {
        release: format!("own ({})", file.display()),
        image,
        modules: None,
        drivers: Vec::new(),
        origin: file.display().to_string(),
    })
}

/// Writes the content of a tar archive as an ext4 image that is no part of a home.
pub fn write_image(tar: impl std::io::Read, image: &Path) -> Result<()> {
    import::from_tar(tar, &image.display().to_string(), image, None).map(drop)
}

/// Adds the kernel that `cargo xtask kernel` built.
pub fn add_minimal_kernel(
    home: &Home,
    file: &Path,
    release: &str,
    config: &str,
    progress: &dyn Progress,
) -> Result<()> {
    let _lock = Lock::wait(home, progress)?;
    let mut manifest = Manifest::read(home)?;
    let bytes = fs::read(file).map_err(PathError::at("read", file))?;
    let image = kernel::bootable(bytes).map_err(|problem| Error::BadKernel {
        path: file.to_owned(),
        problem: problem.to_string(),
    })?;
    let relative = PathBuf::from(format!("kernels/minimal-{release}/vmlinux"));
    let image = files::write(home, &relative, &image)?;
    let kernel = Kernel {
        release: release.to_owned(),
        image,
        modules: None,
        drivers: Vec::new(),
        origin: format!("built from Debian's source with {config}"),
    };
    manifest.kernels.insert(Manifest::MINIMAL_KERNEL.into(), kernel);
    manifest.write(home)
}

/// Adds an image made of an archive: a root file system, or images in layers, of which `tag`
/// names one if there are several.
pub fn add_image(
    home: &Home,
    name: &str,
    tar: impl std::io::Read,
    origin: &str,
    tag: Option<&str>,
    progress: &dyn Progress,
) -> Result<Image> {
    check_name(name)?;
    let _lock = Lock::wait(home, progress)?;
    // VMs may be running from the image that had this name: theirs stays
    // until they end, under a name that `prune` knows.
    let mut manifest = Manifest::read(home)?;
    let relative =
        manifest.free_file(home, &format!("images/{name}-{}", manifest.images.len() + 1), ".ext4");
    let mut config = ImageConfig::default();
    let rootfs = files::create(home, &relative, |path| {
        config = import::from_tar(tar, origin, path, tag)?;
        Ok(())
    })?;
    let image = Image { config, ..Image::new(rootfs, origin) };
    manifest.images.insert(name.to_owned(), image.clone());
    manifest.write(home)?;
    Ok(image)
}

/// An image of a registry, with its parts on disk.
#[derive(Debug, Clone)]
pub struct Pulled<'a> {
    /// Its full name, such as `docker.io/library/alpine:latest`.
    pub name: &'a str,
    /// The digest of its manifest.
    pub digest: &'a str,
    /// Its configuration.
    pub config: &'a [u8],
    /// The digests of its layers and their files, from the lowest up.
    pub layers: Vec<(String, PathBuf)>,
}

/// Adds an image that was pulled under its full name. One whose root file system is there
/// already, under whatever name, shares it.
pub fn add_pulled(home: &Home, pulled: Pulled<'_>, progress: &dyn Progress) -> Result<Image> {
    let _lock = Lock::wait(home, progress)?;
    let mut manifest = Manifest::read(home)?;
    let Pulled { name, digest, config, layers } = pulled;
    let is_same = |image: &&Image| {
        let origin = image.pulled.as_ref();
        origin.is_some_and(|origin| origin.digest == digest) && image.rootfs.is_present(home)
    };
    let image = match manifest.images.values().chain(manifest.pinned.values()).find(is_same) {
        Some(image) => Image { origin: name.to_owned(), ..image.clone() },
        None => {
            space::require(home.root())?;
            let (digests, files): (_, Vec<_>) = layers.into_iter().unzip();
            let hex = digest.rsplit(':').next().unwrap_or_default();
            let start: String = hex.chars().filter(char::is_ascii_hexdigit).take(16).collect();
            let relative = manifest.free_file(home, &format!("images/{start}"), ".ext4");
            let mut execution = ImageConfig::default();
            let rootfs = files::create(home, &relative, |path| {
                execution = import::from_layers(config, &files, name, path)?;
                Ok(())
            })?;
            let origin = Origin { digest: digest.to_owned(), layers: digests };
            Image { config: execution, pulled: Some(origin), ..Image::new(rootfs, name) }
        }
    };
    manifest.images.insert(name.to_owned(), image.clone());
    manifest.write(home)?;
    Ok(image)
}

/// Removes an image; its file goes with the next [`prune`], unless somebody has
/// [pinned](crate::pin) it.
pub fn remove_image(home: &Home, name: &str, progress: &dyn Progress) -> Result<()> {
    let _lock = Lock::wait(home, progress)?;
    let mut manifest = Manifest::read(home)?;
    if manifest.images.remove(name).is_none() {
        return Err(Error::unknown_image(name, &manifest.images));
    }
    manifest.write(home)
}

/// What [`prune`] removed.
#[derive(Debug, Default, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Pruned {
    /// Files, below the home.
    pub files: Vec<PathBuf>,
    /// The sum of their lengths.
    pub bytes: u64,
}

/// Removes files that the manifest does not speak of: images and kernels that
/// were replaced, initramfs files of older programs, halves of broken writes.
///
/// A VM that runs from such a file keeps it until it ends.
pub fn prune(home: &Home, progress: &dyn Progress) -> Result<Pruned> {
    let _lock = Lock::wait(home, progress)?;
    let manifest = Manifest::read(home)?;
    let mut keep: Vec<PathBuf> = manifest.artifacts().map(|a| a.path(home)).collect();
    for kernel in manifest.kernels.values() {
        keep.push(home.join(&initramfs_file(kernel.modules.as_ref())));
    }
    let mut pruned = Pruned::default();
    for directory in ["kernels", "images", "initramfs"] {
        prune_below(home, &home.join(Path::new(directory)), &keep, &mut pruned)?;
    }
    Ok(pruned)
}

fn prune_below(home: &Home, directory: &Path, keep: &[PathBuf], pruned: &mut Pruned) -> Result<()> {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_dir() {
            prune_below(home, &path, keep, pruned)?;
            // Only an empty one goes.
            let _ = fs::remove_dir(&path);
        } else if !keep.contains(&path) {
            fs::remove_file(&path).map_err(PathError::at("remove", &path))?;
            pruned.bytes += metadata.len();
            pruned.files.push(path.strip_prefix(home.root()).unwrap_or(&path).to_owned());
        }
    }
    Ok(())
}

fn check_name(name: &str) -> Result<()> {
    let good = name.len() <= 64
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if good { Ok(()) } else { Err(Error::BadName { name: name.to_owned() }) }
}

fn intact(home: &Home, artifact: &Artifact) -> bool {
    artifact.is_present(home) && artifact.verify(home).is_ok()
}

fn file_kib(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |m| m.len() / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;

    #[test]
    fn names_are_checked() {
        for good in ["base", "a.b-c_1", "7"] {
            check_name(good).unwrap();
        }
        for bad in ["", ".", "../x", "a/b", "-a", "a b", &"x".repeat(65), "ä"] {
            assert!(matches!(check_name(bad), Err(Error::BadName { .. })), "{bad}");
        }
    }

    #[test]
    fn prune_keeps_what_the_manifest_speaks_of() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::new(directory.path());
        let mut manifest = Manifest::default();
        let rootfs = files::write(&home, Path::new("images/base.ext4"), b"kept").unwrap();
        files::write(&home, Path::new("images/old.ext4"), b"replaced").unwrap();
        files::write(&home, Path::new("kernels/6.0/vmlinux"), b"old").unwrap();
        manifest.images.insert("base".into(), Image::new(rootfs, ""));
        manifest.write(&home).unwrap();
        let pruned = prune(&home, &Silent).unwrap();
        assert_eq!(pruned.bytes, 11);
        assert!(home.join(Path::new("images/base.ext4")).exists());
        assert!(!home.join(Path::new("kernels/6.0")).exists());
    }

    #[test]
    fn a_damaged_file_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::new(directory.path());
        let artifact = files::write(&home, Path::new("images/a"), b"whole").unwrap();
        fs::write(artifact.path(&home), b"wrong").unwrap();
        assert!(artifact.is_present(&home) && !intact(&home, &artifact));
        assert!(matches!(artifact.verify(&home), Err(Error::Damaged { .. })));
    }

    #[test]
    fn a_base_image_of_an_older_recipe_is_made_anew() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::new(directory.path());
        let rootfs = files::write(&home, Path::new("images/base.ext4"), b"whole").unwrap();
        let packages = base::packages();
        let image = Image { packages, ..Image::new(rootfs, "") };
        assert!(is_current(&home, &image));
        let mut older = image.packages.clone();
        older.retain(|package| package != "python-is-python3");
        assert!(!is_current(&home, &Image { packages: older, ..image.clone() }));
        // One of a set-up that did not write them down.
        assert!(!is_current(&home, &Image { packages: Vec::new(), ..image.clone() }));
        fs::write(image.rootfs.path(&home), b"wrong").unwrap();
        assert!(!is_current(&home, &image));
    }

    /// Makes a base image of some bytes, as set-up does.
    fn rebuild(home: &Home, content: &[u8]) -> PathBuf {
        let mut manifest = Manifest::read(home).unwrap();
        let file = base_file(home, &manifest);
        let rootfs = files::write(home, &file, content).unwrap();
        manifest.images.insert(Manifest::BASE_IMAGE.into(), Image::new(rootfs, ""));
        manifest.write(home).unwrap();
        file
    }

    #[test]
    fn a_base_image_made_anew_takes_the_place_of_the_one_before_but_not_of_one_that_is_pinned() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::new(directory.path());
        let content = |file: &Path| fs::read(home.join(file)).unwrap();
        let first = rebuild(&home, b"first");
        assert_eq!(first, Path::new("images/base.ext4"));
        assert_eq!(rebuild(&home, b"second"), first);
        crate::pin(&home, "base", "box", &Silent).unwrap();
        let third = rebuild(&home, b"third");
        assert_eq!((content(&first), content(&third)), (b"second".to_vec(), b"third".to_vec()));
        assert_eq!(rebuild(&home, b"fourth"), third);
        assert_eq!(prune(&home, &Silent).unwrap(), Pruned::default());
        assert_eq!((content(&first), content(&third)), (b"second".to_vec(), b"fourth".to_vec()));
        // Nobody is to start from something else when one that is pinned is lost.
        fs::remove_file(home.join(&first)).unwrap();
        crate::pin(&home, "base", "other", &Silent).unwrap();
        assert!(![first, third].contains(&rebuild(&home, b"fifth")));
    }

    #[test]
    fn an_empty_home_says_what_is_missing() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::new(directory.path());
        assert!(matches!(resolve(&home, "base", None), Err(Error::NotSetUp { .. })));
    }
}
