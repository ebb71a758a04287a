//! Images in layers, as archives hold them: an OCI image layout, and what `docker save`
//! writes. Both have been extracted like any other archive; here their parts are read.

mod config;
mod describe;
#[cfg(test)]
mod tests;

use std::fs;
use std::io::{self, Read};
use std::path::PathBuf;

use sha2::{Digest, Sha256};

use crate::ext4::Blocks;
use crate::extract::{Extraction, Role};
use crate::files::hex;
use crate::plain::plain;
use crate::problem::{Outcome, Problem, bad, shown};
use crate::tree::{Kind as File, ROOT, Tree};
pub use config::ImageConfig;
pub use describe::Kind;

/// The longest description that is read: each layer takes some hundred bytes.
const MAX_DESCRIPTION: u64 = 4 << 20;

/// Layers of one image. Docker writes 127 at most.
const MAX_LAYERS: usize = 512;

/// An image that was chosen: its layers from the lowest up.
#[derive(Debug, PartialEq, Eq)]
pub struct Chosen {
    layers: Vec<Layer>,
    /// How it is run.
    pub config: ImageConfig,
}

/// One layer.
#[derive(Debug, PartialEq, Eq)]
struct Layer {
    /// Where it is in the archive.
    path: String,
    /// The SHA-256 of its uncompressed archive, in hexadecimal.
    diff_id: String,
}

/// The parts of images, extracted.
pub struct Store {
    tree: Tree,
    blocks: Blocks,
}

/// How the archive describes what is in it, if it does.
pub fn kind(tree: &Tree) -> Option<Kind> {
    let has = |name: &str| {
        let id = tree.child(ROOT, name.as_bytes())?;
        matches!(tree.inode(id).kind, File::File { .. }).then_some(())
    };
    // Docker writes both; its own description has the names that people know.
    has("manifest.json")
        .map(|()| Kind::Docker)
        .or_else(|| has("oci-layout").or_else(|| has("index.json")).map(|()| Kind::Oci))
}

impl Store {
    /// Parts that lie in flushed blocks.
    pub fn new(tree: Tree, blocks: Blocks) -> Self {
        Self { tree, blocks }
    }

    /// Finds the image with a tag, or the only one.
    pub fn choose(&mut self, kind: Kind, tag: Option<&str>) -> Outcome<Chosen> {
        describe::choose(self, kind, tag)
    }

    /// Puts the layers one over the other. Each must be what its image says it is.
    pub fn apply(&mut self, image: &Chosen, to: &mut Extraction) -> Outcome<()> {
        for layer in &image.layers {
            let of_layer = |problem| match problem {
                Problem::Bad(problem) => {
                    Problem::Bad(format!("layer {}: {problem}", shown(layer.path.as_bytes())))
                }
                other => other,
            };
            let packed = self.open(&layer.path)?;
            put_layer(packed, &layer.diff_id, to).map_err(of_layer)?;
        }
        Ok(())
    }

    /// A file of the archive. Docker writes a layer that two images share as a link.
    fn open(&mut self, path: &str) -> Outcome<impl Read + use<>> {
        const MAX_FOLLOWED: usize = 8;
        let mut at = path.as_bytes().to_vec();
        for _ in 0..MAX_FOLLOWED {
            let Some(id) = self.tree.find(&at)? else { break };
            match &self.tree.inode(id).kind {
                File::File { size, extents } => {
                    return self.blocks.reader(*size, extents.clone()).map_err(Problem::Read);
                }
                File::Link(target) => {
                    let folder = at.iter().rposition(|byte| *byte == b'/').map_or(0, |n| n + 1);
                    at.truncate(folder);
                    at.extend_from_slice(target);
                }
                _ => break,
            }
        }
        bad(format!("{} is missing in it", shown(path.as_bytes())))
    }

    /// A description, with the digest of its bytes.
    fn description(&mut self, path: &str) -> Outcome<(Vec<u8>, String)> {
        let mut bytes = Vec::new();
        let from = self.open(path)?;
        from.take(MAX_DESCRIPTION + 1).read_to_end(&mut bytes).map_err(Problem::Read)?;
        if bytes.len() as u64 > MAX_DESCRIPTION {
            let path = shown(path.as_bytes());
            return bad(format!("{path} has more than {MAX_DESCRIPTION} bytes"));
        }
        let digest = hex(&Sha256::digest(&bytes));
        Ok((bytes, digest))
    }
}

/// Puts a layer, which may be compressed, over what is there. It must have the SHA-256 that
/// its image says it has uncompressed.
fn put_layer(packed: impl Read, diff_id: &str, to: &mut Extraction) -> Outcome<()> {
    let unpacked = plain(packed).map_err(Problem::Read)?;
    let mut hashed = Hashed { from: unpacked, hasher: Sha256::new() };
    to.archive(&mut hashed, Role::Layer)?;
    let digest = hex(&hashed.hasher.finalize());
    match digest == diff_id {
        true => Ok(()),
        false => bad(format!("its SHA-256 is {digest}, not {diff_id}")),
    }
}

/// Puts the layers of an image that was pulled one over the other: `files` from the lowest
/// up, compressed or not, as `config` describes them. How it is run.
pub fn put_pulled(config: &[u8], files: &[PathBuf], to: &mut Extraction) -> Outcome<ImageConfig> {
    let (diff_ids, config) = describe::configuration(config, files.len())?;
    for (n, (file, diff_id)) in files.iter().zip(diff_ids).enumerate() {
        let of_layer = |problem| match problem {
            Problem::Bad(problem) => Problem::Bad(format!("layer {}: {problem}", n + 1)),
            other => other,
        };
        let packed = fs::File::open(file).map_err(Problem::Read)?;
        put_layer(packed, &diff_id, to).map_err(of_layer)?;
    }
    Ok(config)
}

/// Hashes what is read.
struct Hashed<R> {
    from: R,
    hasher: Sha256,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.from.read(into)?;
        self.hasher.update(&into[..n]);
        Ok(n)
    }
}
