//! What comes out of layers, compared with what umoci takes out of them.

use std::process::Command;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::against_tar::{Planned, comparable, gnu_tar, host_tree, make, planned};
use super::tests::checked;
use super::*;
use crate::ext4::read_back::Node;
use crate::files::digest_of;
use crate::plain::tests::gzip;

/// What `make test-packages` unpacked, or an installed one.
fn umoci() -> Command {
    let named = std::env::var_os("FIRECLAW_UMOCI").map(PathBuf::from).filter(|path| path.exists());
    Command::new(named.unwrap_or_else(|| "umoci".into()))
}

/// An OCI layout in a folder, with one image of these layers; its configuration and the
/// layers' files.
fn layout(at: &Path, layers: &[Vec<u8>]) -> (Vec<u8>, Vec<PathBuf>) {
    let blobs = at.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let add = |kind: &str, bytes: &[u8]| -> Value {
        let digest = digest_of(bytes);
        fs::write(blobs.join(&digest), bytes).unwrap();
        json!({ "mediaType": kind, "digest": format!("sha256:{digest}"), "size": bytes.len() })
    };
    let diff_ids: Vec<_> = layers.iter().map(|it| format!("sha256:{}", digest_of(it))).collect();
    let config = json!({
        "os": "linux", "architecture": "amd64", "config": {},
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    })
    .to_string()
    .into_bytes();
    let packed: Vec<_> = layers.iter().map(|layer| gzip(layer)).collect();
    let kind = "application/vnd.oci.image.layer.v1.tar+gzip";
    let manifest = json!({
        "schemaVersion": 2,
        "config": add("application/vnd.oci.image.config.v1+json", &config),
        "layers": packed.iter().map(|layer| add(kind, layer)).collect::<Vec<_>>(),
    })
    .to_string();
    let mut image = add("application/vnd.oci.image.manifest.v1+json", manifest.as_bytes());
    image["annotations"] = json!({ "org.opencontainers.image.ref.name": "image" });
    let index = json!({ "schemaVersion": 2, "manifests": [image] });
    fs::write(at.join("index.json"), index.to_string()).unwrap();
    fs::write(at.join("oci-layout"), json!({ "imageLayoutVersion": "1.0.0" }).to_string()).unwrap();
    (config, packed.iter().map(|layer| blobs.join(digest_of(layer))).collect())
}

/// What umoci unpacks of a layout, and what is in an image of it.
fn both(layers: &[Vec<u8>]) -> [Vec<(String, Node)>; 2] {
    let directory = tempfile::tempdir().unwrap();
    let (layout_at, bundle) = (directory.path().join("layout"), directory.path().join("bundle"));
    let (config, files) = layout(&layout_at, layers);
    let mut unpack = umoci();
    unpack.args(["unpack", "--image"]).arg(format!("{}:image", layout_at.display()));
    if !rustix::process::geteuid().is_root() {
        unpack.arg("--rootless");
    }
    let unpacked = unpack.arg(&bundle).output().expect("umoci: run `make test-packages`");
    assert!(unpacked.status.success(), "{}", String::from_utf8_lossy(&unpacked.stderr));
    let image = directory.path().join("image");
    from_layers(&config, &files, "test", &image).unwrap();
    let ours = comparable(&checked(&image), true);
    [comparable(&host_tree(&bundle.join("rootfs")), true), ours]
}

/// A layer with what was planned, and marks that remove these names.
fn layer(plan: &[Planned], removed: &[Vec<u8>]) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("root");
    fs::create_dir(&root).unwrap();
    make(&root, plan);
    for name in removed {
        use std::os::unix::ffi::OsStrExt;
        let mark = [b".wh.", &name[..]].concat();
        // One that is there and removed at once would mean nothing.
        if !root.join(std::ffi::OsStr::from_bytes(name)).exists() && mark.len() < 255 {
            fs::write(root.join(std::ffi::OsStr::from_bytes(&mark)), "").unwrap();
        }
    }
    let mut pack = gnu_tar();
    pack.args(["--format=posix", "-cf", "-", "-C"]).arg(&root).arg(".");
    let packed = pack.output().unwrap();
    assert!(packed.status.success());
    packed.stdout
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// Files of any kind with odd names, owners, modes, times, holes and attributes, replaced
    /// and removed by layers above them.
    #[test]
    fn an_image_of_layers_is_what_umoci_unpacks(
        first in prop::collection::vec(planned(), 1..20),
        second in prop::collection::vec(planned(), 0..12),
        removed in prop::sample::subsequence((0..20).collect::<Vec<usize>>(), 0..4),
    ) {
        let removed: Vec<_> =
            removed.iter().filter_map(|n| first.get(*n)).map(|it| it.name.clone()).collect();
        let [theirs, ours] = both(&[layer(&first, &[]), layer(&second, &removed)]);
        prop_assert_eq!(ours, theirs);
    }
}
