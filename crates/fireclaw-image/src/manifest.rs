//! What a home holds: `manifest.json`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use fireclaw_host::PathError;
use serde::{Deserialize, Serialize};

use crate::{Artifact, Error, Home, ImageConfig, Result, files};

/// The format of the file; raised when an older program could misread it.
const FORMAT: u32 = 1;

/// A kernel that can be booted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    /// Its release, as `uname -r` gives it in the guest, where known.
    pub release: String,
    /// The uncompressed kernel, or a bzImage that cannot be taken apart.
    pub image: Artifact,
    /// A cpio archive of modules; none if everything is built in.
    pub modules: Option<Artifact>,
    /// What the modules were chosen for; set-up chooses anew when that changes.
    #[serde(default)]
    pub drivers: Vec<String>,
    /// Where it came from, in words.
    pub origin: String,
}

/// A root file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The file system.
    pub rootfs: Artifact,
    /// Where it came from, in words.
    pub origin: String,
    /// Of a base image: the packages that set-up put into it by itself; it is made anew when
    /// they change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<String>,
    /// Of a base image: the packages that were asked for besides; they are in the next, too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extra: Vec<String>,
    /// How it is run unless somebody says otherwise.
    #[serde(default, skip_serializing_if = "ImageConfig::is_empty")]
    pub config: ImageConfig,
    /// Of an image from a registry: which it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pulled: Option<Origin>,
}

impl Image {
    /// An image of which no more is known.
    pub(crate) fn new(rootfs: Artifact, origin: impl Into<String>) -> Self {
        Self {
            rootfs,
            origin: origin.into(),
            packages: Vec::new(),
            extra: Vec::new(),
            config: ImageConfig::default(),
            pulled: None,
        }
    }
}

/// Which image of a registry it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The digest of its manifest.
    pub digest: String,
    /// The digests of its layers, from the lowest up.
    pub layers: Vec<String>,
}

/// All that a home holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    format: u32,
    /// Kernels by name; [`Manifest::kernel`] says which is used.
    pub kernels: BTreeMap<String, Kernel>,
    /// Images by name.
    pub images: BTreeMap<String, Image>,
    /// Images by the name of who depends on them: a sandbox that is to start again from what
    /// it started from, whatever becomes of the image's name meanwhile.
    // A Fireclaw of before there were pins misreads nothing, so the format is the same; but
    // what it does not know is gone once it writes the file.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pinned: BTreeMap<String, Image>,
}

impl Manifest {
    /// The kernel that comes from Debian.
    pub const DEBIAN_KERNEL: &str = "debian";
    /// The kernel that `cargo xtask kernel` builds; preferred when present.
    pub const MINIMAL_KERNEL: &str = "minimal";
    /// The kernel that the user named at set-up; preferred over all.
    pub const OWN_KERNEL: &str = "own";
    /// The image that `run` uses by default.
    pub const BASE_IMAGE: &str = "base";

    /// Reads a home's manifest; an absent one is empty.
    pub fn read(home: &Home) -> Result<Self> {
        let path = home.manifest();
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(e) => return Err(PathError::at("read", &path)(e).into()),
        };
        let manifest: Self = serde_json::from_slice(&bytes)
            .map_err(|e| Error::Damaged { path: path.clone(), problem: e.to_string() })?;
        if manifest.format > FORMAT {
            let problem = format!("format {} is from a newer Fireclaw", manifest.format);
            return Err(Error::Damaged { path, problem });
        }
        Ok(manifest)
    }

    /// Replaces a home's manifest.
    pub(crate) fn write(&self, home: &Home) -> Result<()> {
        let current = Self { format: FORMAT, ..self.clone() };
        let path = home.manifest();
        let bytes = serde_json::to_vec_pretty(&current)
            .map_err(|e| PathError::at("write", &path)(e.into()))?;
        files::write(home, Path::new("manifest.json"), &bytes).map(drop)
    }

    /// The kernel that is booted when none is named: the user's own, else the
    /// minimal one, else Debian's.
    pub fn kernel(&self) -> Option<(&str, &Kernel)> {
        [Self::OWN_KERNEL, Self::MINIMAL_KERNEL, Self::DEBIAN_KERNEL]
            .into_iter()
            .find_map(|name| self.kernels.get(name).map(|kernel| (name, kernel)))
    }

    /// The image of that name.
    pub(crate) fn image(&self, home: &Home, name: &str) -> Result<&Image> {
        match self.images.get(name) {
            Some(image) => Ok(image),
            None if name == Self::BASE_IMAGE => {
                Err(Error::NotSetUp { what: "base image", home: home.root().to_owned() })
            }
            None => Err(Error::unknown_image(name, &self.images)),
        }
    }

    /// The image that `owner` depends on.
    pub(crate) fn pinned_by(&self, owner: &str) -> Result<&Image> {
        self.pinned.get(owner).ok_or_else(|| Error::unknown_image(owner, &self.pinned))
    }

    /// Every file that the manifest speaks of, once, however many share it.
    pub fn artifacts(&self) -> impl Iterator<Item = &Artifact> {
        let kernels = self.kernels.values().flat_map(|k| [Some(&k.image), k.modules.as_ref()]);
        let images = self.images.values().chain(self.pinned.values()).map(|image| &image.rootfs);
        let mut told = BTreeSet::new();
        let all = kernels.flatten().chain(images);
        all.filter(move |artifact| told.insert((&artifact.file, &artifact.sha256)))
    }

    /// Whether somebody depends on an image in this file.
    pub(crate) fn is_pinned(&self, file: &Path) -> bool {
        self.pinned.values().any(|image| image.rootfs.file == file)
    }

    /// Where a new file can be, below the home: at `start` and `end`, else with a number in
    /// between. It is neither that of another, nor that of an image which somebody depends on
    /// and which has gone: nobody is to start from something else.
    pub(crate) fn free_file(&self, home: &Home, start: &str, end: &str) -> PathBuf {
        let is_free = |file: &PathBuf| !self.is_pinned(file) && !home.join(file).exists();
        let mut file = PathBuf::from(format!("{start}{end}"));
        let mut n = 1;
        while !is_free(&file) {
            n += 1;
            file = PathBuf::from(format!("{start}-{n}{end}"));
        }
        file
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_survives_the_disk_and_a_newer_one_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::new(directory.path());
        assert!(Manifest::read(&home).unwrap().kernel().is_none());
        Manifest::default().write(&home).unwrap();
        Manifest::read(&home).unwrap();
        let newer = r#"{"format": 99, "kernels": {}, "images": {}}"#;
        fs::write(home.manifest(), newer).unwrap();
        assert!(matches!(Manifest::read(&home), Err(Error::Damaged { .. })));
        fs::write(home.manifest(), "{").unwrap();
        assert!(matches!(Manifest::read(&home), Err(Error::Damaged { .. })));
    }

    #[test]
    fn a_new_file_takes_nobodys_place() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::new(directory.path());
        let mut manifest = Manifest::default();
        let free = |manifest: &Manifest| manifest.free_file(&home, "images/a", ".ext4");
        let artifact = files::write(&home, &free(&manifest), b"1").unwrap();
        assert_eq!(artifact.file, Path::new("images/a.ext4"));
        assert_eq!(free(&manifest), Path::new("images/a-2.ext4"));
        manifest.pinned.insert("box".into(), Image::new(artifact.clone(), ""));
        fs::remove_file(artifact.path(&home)).unwrap();
        assert_eq!(free(&manifest), Path::new("images/a-2.ext4"));
        manifest.pinned.clear();
        assert_eq!(free(&manifest), Path::new("images/a.ext4"));
    }

    #[test]
    fn a_file_that_several_share_is_told_once() {
        let artifact = Artifact { file: "images/a".into(), sha256: "0".into(), bytes: 1 };
        let image = Image::new(artifact.clone(), "");
        let mut manifest = Manifest::default();
        manifest.images.extend(["a", "b"].map(|name| (name.to_owned(), image.clone())));
        manifest.pinned.insert("box".into(), image);
        assert_eq!(manifest.artifacts().collect::<Vec<_>>(), [&artifact]);
    }
}
