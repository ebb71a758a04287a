//! What archives of images say about themselves (OCI image layout and manifest, version 1;
//! Docker's `manifest.json`).

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::config::{Execution, ImageConfig};
use super::{Chosen, Layer, MAX_LAYERS, Store};
use crate::problem::{Outcome, Problem, bad, shown};

/// What VMs here are, in the words of descriptions.
const SYSTEM: &str = "linux";
const ARCHITECTURE: &str = "amd64";

/// Whose words are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `manifest.json`, a list of images.
    Docker,
    /// `index.json`, which speaks of blobs.
    Oci,
}

#[derive(Deserialize)]
struct DockerImage {
    #[serde(rename = "Config")]
    config: String,
    #[serde(rename = "RepoTags", default)]
    tags: Option<Vec<String>>,
    #[serde(rename = "Layers")]
    layers: Vec<String>,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize, Clone)]
struct Descriptor {
    #[serde(rename = "mediaType", default)]
    media_type: String,
    digest: String,
    #[serde(default)]
    platform: Option<Platform>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize, Clone)]
struct Platform {
    os: String,
    architecture: String,
}

#[derive(Deserialize)]
struct ImageManifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Config {
    os: String,
    architecture: String,
    rootfs: RootFs,
    #[serde(default)]
    config: Option<Execution>,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

/// Finds the image with a tag, or the only one for this kind of VM.
pub fn choose(store: &mut Store, kind: Kind, tag: Option<&str>) -> Outcome<Chosen> {
    match kind {
        Kind::Docker => docker(store, tag),
        Kind::Oci => {
            let index: Index = parse(store, "index.json", None)?;
            let manifest = manifest(store, index, tag)?;
            let config = blob(&manifest.config.digest)?;
            let layers = manifest.layers.iter().map(|layer| blob(&layer.digest));
            image(store, &config, layers.collect::<Outcome<_>>()?)
        }
    }
}

fn docker(store: &mut Store, tag: Option<&str>) -> Outcome<Chosen> {
    let images: Vec<DockerImage> = parse(store, "manifest.json", None)?;
    let named = images.into_iter().map(|image| (image.tags.clone().unwrap_or_default(), image));
    let chosen = pick(named.collect(), tag)?;
    image(store, &chosen.config, chosen.layers)
}

/// Goes through indexes to the manifest of one image.
fn manifest(store: &mut Store, mut index: Index, tag: Option<&str>) -> Outcome<ImageManifest> {
    /// An index in an index is how images for several architectures come.
    const MAX_DEPTH: usize = 4;
    let mut tag = tag;
    for _ in 0..MAX_DEPTH {
        let fitting: Vec<_> = index.manifests.into_iter().filter(fits).collect();
        if fitting.is_empty() {
            return bad(format!("there is no image for {SYSTEM}/{ARCHITECTURE} in it"));
        }
        let named = fitting.into_iter().map(|descriptor| (names(&descriptor), descriptor));
        let chosen = pick(named.collect(), tag)?;
        // The parts of an image for several architectures have no tags of their own.
        tag = None;
        let path = blob(&chosen.digest)?;
        if !chosen.media_type.contains("index") && !chosen.media_type.contains("manifest.list") {
            return parse(store, &path, Some(&chosen.digest));
        }
        index = parse(store, &path, Some(&chosen.digest))?;
    }
    bad("its indexes are nested too deep")
}

/// Signatures and the like have a platform that nobody has.
fn fits(descriptor: &Descriptor) -> bool {
    let platform = descriptor.platform.as_ref();
    platform.is_none_or(|p| p.os == SYSTEM && p.architecture == ARCHITECTURE)
}

fn names(descriptor: &Descriptor) -> Vec<String> {
    const KEYS: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];
    let annotations = descriptor.annotations.iter();
    annotations.flat_map(|all| KEYS.iter().filter_map(|key| all.get(*key)).cloned()).collect()
}

/// The one with a name, or the only one. `latest` finds `alpine:latest`.
fn pick<T>(named: Vec<(Vec<String>, T)>, tag: Option<&str>) -> Outcome<T> {
    let known: Vec<String> =
        named.iter().flat_map(|(names, _)| names).map(|name| shown(name.as_bytes())).collect();
    let count = named.len();
    let asks = |name: &String| {
        tag.is_none_or(|tag| {
            name == tag || name.strip_suffix(tag).is_some_and(|n| n.ends_with(':'))
        })
    };
    let mut fitting: Vec<T> = named
        .into_iter()
        .filter(|(names, _)| tag.is_none() || names.iter().any(asks))
        .map(|(_, value)| value)
        .collect();
    match (fitting.pop(), fitting.is_empty()) {
        (Some(only), true) => Ok(only),
        (None, _) if count == 0 => bad("it is an archive of images, and there is none in it"),
        _ => Err(Problem::Tag { wanted: tag.map(str::to_owned), known }),
    }
}

/// The image with this configuration and these layers.
fn image(store: &mut Store, config: &str, layers: Vec<String>) -> Outcome<Chosen> {
    let digest = digest_in(config);
    let config: Config = parse(store, config, digest.as_deref())?;
    let (diff_ids, config) = checked(config, layers.len())?;
    let layers = layers.into_iter().zip(diff_ids);
    let layers = layers.map(|(path, diff_id)| Layer { path, diff_id }).collect();
    Ok(Chosen { layers, config })
}

/// Reads the configuration of an image with so many layers: their digests, uncompressed, and
/// how it is run.
pub fn configuration(bytes: &[u8], layers: usize) -> Outcome<(Vec<String>, ImageConfig)> {
    let config = serde_json::from_slice(bytes).map_err(|e| {
        let place = format!("line {}, column {}", e.line(), e.column());
        Problem::Bad(format!("its configuration is none: {place}"))
    })?;
    checked(config, layers)
}

/// An image is its layers with the digests that its configuration has for them.
fn checked(config: Config, layers: usize) -> Outcome<(Vec<String>, ImageConfig)> {
    if config.os != SYSTEM || config.architecture != ARCHITECTURE {
        let (os, architecture) =
            (shown(config.os.as_bytes()), shown(config.architecture.as_bytes()));
        return bad(format!("it is for {os}/{architecture}; VMs here are {SYSTEM}/{ARCHITECTURE}"));
    }
    let diff_ids = config.rootfs.diff_ids;
    if layers > MAX_LAYERS || layers == 0 || layers != diff_ids.len() {
        let digests = diff_ids.len();
        return bad(format!(
            "it has {layers} layers and {digests} digests for them; 1 to {MAX_LAYERS} are read"
        ));
    }
    let diff_ids = diff_ids.iter().map(|diff_id| Ok(sha256(diff_id)?.to_owned()));
    Ok((diff_ids.collect::<Outcome<_>>()?, config.config.unwrap_or_default().into()))
}

/// Docker names configurations after their digest: `blobs/sha256/<digest>`, or in older
/// versions `<digest>.json`.
fn digest_in(path: &str) -> Option<String> {
    let name = path.rsplit('/').next()?;
    let digest = format!("sha256:{}", name.strip_suffix(".json").unwrap_or(name));
    sha256(&digest).is_ok().then_some(digest)
}

/// The hexadecimal digits of a digest. Only they may become part of a path.
fn sha256(digest: &str) -> Outcome<&str> {
    match digest.strip_prefix("sha256:") {
        Some(hex) if hex.len() == 64 && hex.bytes().all(|b| b"0123456789abcdef".contains(&b)) => {
            Ok(hex)
        }
        _ => bad(format!("{} is no SHA-256", shown(digest.as_bytes()))),
    }
}

fn blob(digest: &str) -> Outcome<String> {
    Ok(format!("blobs/sha256/{}", sha256(digest)?))
}

/// Reads a description, which must have the digest if there is one.
fn parse<T: DeserializeOwned>(store: &mut Store, path: &str, digest: Option<&str>) -> Outcome<T> {
    let (bytes, found) = store.description(path)?;
    if let Some(digest) = digest
        && sha256(digest)? != found
    {
        return bad(format!("{}: its SHA-256 is {found}", shown(path.as_bytes())));
    }
    serde_json::from_slice(&bytes).map_err(|e| {
        let place = format!("line {}, column {}", e.line(), e.column());
        Problem::Bad(format!("{} is no description of images: {place}", shown(path.as_bytes())))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_of_several_is_found_by_name_or_tag() {
        let images = || {
            vec![
                (vec!["alpine:3".to_owned(), "alpine:latest".to_owned()], 1),
                (vec!["debian:12".to_owned()], 2),
                (vec![], 3),
            ]
        };
        assert_eq!(pick(images(), Some("alpine:3")).unwrap(), 1);
        assert_eq!(pick(images(), Some("12")).unwrap(), 2);
        assert_eq!(pick(images()[2..].to_vec(), None).unwrap(), 3);
        for wanted in [None, Some("2"), Some("latest2"), Some("")] {
            let Err(Problem::Tag { known, .. }) = pick(images(), wanted) else {
                panic!("{wanted:?}")
            };
            assert_eq!(known, ["alpine:3", "alpine:latest", "debian:12"]);
        }
    }

    #[test]
    fn digests_cannot_name_other_files() {
        let good = format!("sha256:{}", "0a".repeat(32));
        assert_eq!(blob(&good).unwrap(), format!("blobs/sha256/{}", "0a".repeat(32)));
        for bad in ["", "sha256:", "sha256:../../etc/passwd", "sha512:00", &good.to_uppercase()] {
            assert!(blob(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_digest_leads_elsewhere(digest in "(sha256:)?[0-9a-f./]{60,70}") {
            if let Ok(path) = blob(&digest) {
                prop_assert!(!path["blobs/sha256/".len()..].contains(['/', '.']));
            }
        }
    }
}
