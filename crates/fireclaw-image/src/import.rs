//! Archives as images: the way from what people have to what a VM boots from.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use fireclaw_host::PathError;

use crate::ext4::{self, Blocks};
use crate::extract::{Extraction, Role};
use crate::plain::plain;
use crate::problem::{Outcome, Problem, bad, shown};
use crate::tree::{ROOT, Tree};
use crate::{Error, ImageConfig, Result, oci, space};

/// Folders of which every root file system has one.
const OF_A_ROOT: [&[u8]; 6] = [b"bin", b"etc", b"lib", b"sbin", b"usr", b"nix"];

/// Writes an ext4 image with the content of a tar archive, which may be compressed with
/// gzip, xz or zstd: a root file system, or images as `docker save` and others write them,
/// of which `tag` names one.
///
/// Nothing is mounted or unpacked on the host, and no program is run.
///
/// How the image is run comes back; archives of root file systems do not say it.
pub fn from_tar(
    tar: impl Read,
    origin: &str,
    image: &Path,
    tag: Option<&str>,
) -> Result<ImageConfig> {
    let config = write(tar, image, tag).map_err(|problem| error(problem, image, origin))?;
    seal(image)?;
    Ok(config)
}

/// Writes an ext4 image of the layers of an image that was pulled; how it is run.
pub fn from_layers(
    config: &[u8],
    layers: &[PathBuf],
    origin: &str,
    image: &Path,
) -> Result<ImageConfig> {
    let written = || {
        let (mut tree, mut blocks) = (Tree::new(), create(image)?);
        let mut extraction = Extraction::new(&mut tree, &mut blocks);
        let config = oci::put_pulled(config, layers, &mut extraction)?;
        ext4::write(&tree, &mut blocks)?;
        Ok(config)
    };
    let config = written().map_err(|problem| error(problem, image, origin))?;
    seal(image)?;
    Ok(config)
}

/// A file in the host's page cache that others map must not change any more.
fn seal(image: &Path) -> Result<()> {
    let read_only = fs::Permissions::from_mode(0o444);
    Ok(fs::set_permissions(image, read_only).map_err(PathError::at("write", image))?)
}

fn write(tar: impl Read, image: &Path, tag: Option<&str>) -> Outcome<ImageConfig> {
    let (mut tree, mut blocks) = (Tree::new(), create(image)?);
    let mut config = ImageConfig::default();
    let from = plain(tar).map_err(Problem::Read)?;
    let members = Extraction::new(&mut tree, &mut blocks).archive(from, Role::Whole)?;
    if members == 0 {
        return bad("there are no files in it");
    }
    if !is_root(&tree, ROOT)
        && let Some(kind) = oci::kind(&tree)
    {
        // What was extracted are the layers and their descriptions. From here on this file
        // has no name: it goes when it is closed.
        blocks.flush()?;
        fs::remove_file(image).map_err(Problem::Write)?;
        let mut store = oci::Store::new(tree, blocks);
        let chosen = store.choose(kind, tag)?;
        (tree, blocks) = (Tree::new(), create(image)?);
        store.apply(&chosen, &mut Extraction::new(&mut tree, &mut blocks))?;
        config = chosen.config;
    } else if let Some(tag) = tag {
        return Err(Problem::Tag { wanted: Some(tag.to_owned()), known: Vec::new() });
    } else if let Some(folder) = only_folder(&tree) {
        return Err(Problem::Below(folder));
    }
    ext4::write(&tree, &mut blocks)?;
    Ok(config)
}

fn create(image: &Path) -> Outcome<Blocks> {
    let mut options = File::options();
    let file = options.read(true).write(true).create(true).truncate(true).open(image);
    file.map(Blocks::new).map_err(Problem::Write)
}

fn is_root(tree: &Tree, directory: u32) -> bool {
    OF_A_ROOT.iter().any(|name| tree.child(directory, name).is_some())
}

/// The folder that everything is in, if that looks like a root file system.
fn only_folder(tree: &Tree) -> Option<String> {
    let mut entries = tree.inode(ROOT).entries()?.iter();
    let (Some((name, entry)), None) = (entries.next(), entries.next()) else { return None };
    let whole = !is_root(tree, ROOT) && is_root(tree, entry.id);
    whole.then(|| shown(name))
}

fn error(problem: Problem, image: &Path, origin: &str) -> Error {
    let origin = origin.to_owned();
    match problem {
        Problem::Write(e) if e.kind() == ErrorKind::StorageFull => {
            space::error(image).unwrap_or_else(|| PathError::at("write", image)(e).into())
        }
        Problem::Write(e) => PathError::at("write", image)(e).into(),
        Problem::Below(folder) => Error::BelowFolder { origin, folder },
        Problem::Layer(mark) => Error::OneLayer { origin, mark },
        Problem::Tag { wanted, known } => Error::WhichImage { origin, wanted, known },
        problem => Error::BadArchive { origin, problem: problem.to_string() },
    }
}

#[cfg(test)]
mod against_tar;
#[cfg(test)]
mod against_umoci;
#[cfg(test)]
mod tests;
