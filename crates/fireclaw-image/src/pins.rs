//! Images that somebody depends on.
//!
//! A sandbox with a name starts again from the image that it started from first, even if the
//! name of that image is another's by then, or nobody's. The manifest says who has such an
//! image, and so what is still needed.

use crate::lock::Lock;
use crate::{Home, Image, Manifest, Progress, Result};

/// Notes that `owner` depends on an image as it is now: its file stays until [`unpin`],
/// whatever becomes of its name. What `owner` depended on before, it does no more.
///
/// # Errors
/// Those of [`resolve`](crate::resolve) for an image that is not there.
pub fn pin(home: &Home, image: &str, owner: &str, progress: &dyn Progress) -> Result<Image> {
    let _lock = Lock::wait(home, progress)?;
    let mut manifest = Manifest::read(home)?;
    let image = manifest.image(home, image)?.clone();
    manifest.pinned.insert(owner.to_owned(), image.clone());
    manifest.write(home)?;
    Ok(image)
}

/// Notes that `owner` depends on no image, if it did on one. A file that nobody else needs
/// goes with the next [`prune`](crate::prune).
///
/// # Errors
/// [`Error::File`](crate::Error::File), [`Error::Damaged`](crate::Error::Damaged).
pub fn unpin(home: &Home, owner: &str, progress: &dyn Progress) -> Result<()> {
    let _lock = Lock::wait(home, progress)?;
    let mut manifest = Manifest::read(home)?;
    match manifest.pinned.remove(owner) {
        Some(_) => manifest.write(home),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::progress::Silent;
    use crate::{
        Bootable, Error, Kernel, Pulled, add_pulled, files, prune, remove_image, resolve,
        resolve_pinned,
    };

    /// A home with a kernel, and images that contain their names.
    fn home_with(directory: &Path, images: &[&str]) -> Home {
        let home = Home::new(directory);
        let mut manifest = Manifest::default();
        let kernel = Kernel {
            release: String::new(),
            image: files::write(&home, Path::new("kernels/k"), b"kernel").unwrap(),
            modules: None,
            drivers: Vec::new(),
            origin: String::new(),
        };
        manifest.kernels.insert(Manifest::DEBIAN_KERNEL.into(), kernel);
        for name in images {
            let file = PathBuf::from(format!("images/{name}.ext4"));
            let rootfs = files::write(&home, &file, name.as_bytes()).unwrap();
            manifest.images.insert((*name).to_owned(), Image::new(rootfs, *name));
        }
        manifest.write(&home).unwrap();
        home
    }

    /// What is in the root file system that `owner` boots.
    fn boots(home: &Home, owner: &str) -> String {
        let Bootable { rootfs, .. } = resolve_pinned(home, owner, None).unwrap();
        fs::read_to_string(rootfs).unwrap()
    }

    #[test]
    fn prune_keeps_a_pinned_image_until_it_is_let_go() {
        let directory = tempfile::tempdir().unwrap();
        let home = home_with(directory.path(), &["a"]);
        assert_eq!(pin(&home, "a", "box", &Silent).unwrap().origin, "a");
        remove_image(&home, "a", &Silent).unwrap();
        prune(&home, &Silent).unwrap();
        assert!(matches!(resolve(&home, "a", None), Err(Error::UnknownImage { .. })));
        assert_eq!(boots(&home, "box"), "a");
        unpin(&home, "box", &Silent).unwrap();
        unpin(&home, "box", &Silent).unwrap();
        assert!(matches!(resolve_pinned(&home, "box", None), Err(Error::UnknownImage { .. })));
        assert_eq!(prune(&home, &Silent).unwrap().files, [Path::new("images/a.ext4")]);
    }

    #[test]
    fn an_owner_depends_on_what_it_pinned_last() {
        let directory = tempfile::tempdir().unwrap();
        let home = home_with(directory.path(), &["a", "b"]);
        for image in ["a", "b"] {
            pin(&home, image, "box", &Silent).unwrap();
            remove_image(&home, image, &Silent).unwrap();
        }
        assert_eq!(prune(&home, &Silent).unwrap().files, [Path::new("images/a.ext4")]);
        assert_eq!(boots(&home, "box"), "b");
    }

    #[test]
    fn what_is_not_there_cannot_be_pinned() {
        let directory = tempfile::tempdir().unwrap();
        let home = home_with(directory.path(), &["a"]);
        for image in ["b", Manifest::BASE_IMAGE] {
            let expected = resolve(&home, image, None).unwrap_err().to_string();
            assert_eq!(pin(&home, image, "box", &Silent).unwrap_err().to_string(), expected);
        }
        assert!(Manifest::read(&home).unwrap().pinned.is_empty());
        // Nor is anything said of pins where there are none.
        assert!(!fs::read_to_string(home.manifest()).unwrap().contains("pinned"));
    }

    #[test]
    fn an_image_that_is_pulled_again_shares_a_pinned_file_but_never_replaces_it() {
        let directory = tempfile::tempdir().unwrap();
        let home = home_with(directory.path(), &[]);
        // One layer without any files.
        let layer = tar::Builder::new(Vec::new()).into_inner().unwrap();
        let path = directory.path().join("layer");
        fs::write(&path, &layer).unwrap();
        let id = format!("sha256:{}", files::digest_of(&layer));
        let rootfs = format!(r#"{{"type": "layers", "diff_ids": ["{id}"]}}"#);
        let config = format!(r#"{{"os": "linux", "architecture": "amd64", "rootfs": {rootfs}}}"#);
        let pull = |digest| {
            let layers = vec![(id.clone(), path.clone())];
            let pulled = Pulled { name: "r/a:latest", digest, config: config.as_bytes(), layers };
            add_pulled(&home, pulled, &Silent).unwrap().rootfs.file
        };
        let first = pull("sha256:aa");
        pin(&home, "r/a:latest", "box", &Silent).unwrap();
        let second = pull("sha256:bb");
        assert_ne!(first, second);
        remove_image(&home, "r/a:latest", &Silent).unwrap();
        assert_eq!(prune(&home, &Silent).unwrap().files, [second]);
        assert_eq!(pull("sha256:aa"), first);
    }
}
