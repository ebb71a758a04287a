//! Images in layers, from archives as they come.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::Error;
use crate::ext4::read_back::{self, Node};
use crate::files::digest_of;
use crate::import::from_tar;
use crate::plain::tests::{gzip, zstd};

type Files = std::collections::BTreeMap<Vec<u8>, Node>;

fn imported(archive: &[u8], tag: Option<&str>) -> crate::Result<Files> {
    let directory = tempfile::tempdir().unwrap();
    let path: PathBuf = directory.path().join("image");
    from_tar(archive, "test", &path, tag)?;
    let check = Command::new("e2fsck").arg("-fn").arg(&path).output().unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
    // The parts are gone: one file is left.
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    Ok(read_back::read(&path))
}

fn names(files: &Files) -> Vec<String> {
    let names = files.keys().map(|name| String::from_utf8_lossy(name).into_owned());
    names.filter(|name| !name.is_empty()).collect()
}

/// An archive of files; a name that ends with a slash is a folder, one with `->` a link.
fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_size(bytes.len() as u64);
        if let Some((name, target)) = name.split_once("->") {
            header.set_entry_type(tar::EntryType::Symlink);
            builder.append_link(&mut header, name, target).unwrap();
        } else {
            let is_folder = name.ends_with('/');
            let kind = if is_folder { tar::EntryType::Directory } else { tar::EntryType::Regular };
            header.set_entry_type(kind);
            builder.append_data(&mut header, name, *bytes).unwrap();
        }
    }
    builder.into_inner().unwrap()
}

/// The three layers that the tests put over each other.
fn layers() -> Vec<Vec<u8>> {
    vec![
        tar(&[
            ("usr/bin/", b""),
            ("bin->usr/bin", b""),
            ("etc/old", b"old"),
            ("etc/kept", b"kept"),
            ("opt/a/x", b"x"),
            ("opt/b", b"b"),
            ("var/file", b"f"),
        ]),
        tar(&[
            ("bin/tool", b"below a link of the layer before"),
            ("etc/.wh.old", b""),
            ("opt/new", b"new"),
            ("opt/.wh..wh..opq", b""),
            ("opt/.wh..wh.plnk", b""),
        ]),
        tar(&[("etc/kept", b"changed"), ("var/file/", b""), ("var/file/now", b"a folder")]),
    ]
}

const EXPECTED: [&str; 12] = [
    "/bin",
    "/etc",
    "/etc/kept",
    "/opt",
    "/opt/new",
    "/usr",
    "/usr/bin",
    "/usr/bin/tool",
    "/var",
    "/var/file",
    "/var/file/now",
    "",
];

fn is_expected(files: &Files) {
    assert_eq!(names(files), EXPECTED[..11]);
    assert_eq!(files[&b"/etc/kept"[..]].bytes, b"changed");
}

/// Blobs by digest.
#[derive(Default, Clone)]
struct Blobs(Vec<(String, Vec<u8>)>);

impl Blobs {
    fn add(&mut self, bytes: Vec<u8>) -> String {
        let digest = digest_of(&bytes);
        self.0.push((format!("blobs/sha256/{digest}"), bytes));
        format!("sha256:{digest}")
    }

    fn add_json(&mut self, value: &Value) -> String {
        self.add(value.to_string().into_bytes())
    }

    fn archive(&self, more: &[(&str, Value)]) -> Vec<u8> {
        let more: Vec<_> = more.iter().map(|(n, v)| (*n, v.to_string().into_bytes())).collect();
        let blobs = self.0.iter().map(|(name, bytes)| (&name[..], &bytes[..]));
        tar(&blobs.chain(more.iter().map(|(n, v)| (*n, &v[..]))).collect::<Vec<_>>())
    }
}

fn config(layers: &[Vec<u8>], architecture: &str) -> Value {
    let diff_ids: Vec<_> =
        layers.iter().map(|layer| format!("sha256:{}", digest_of(layer))).collect();
    json!({ "os": "linux", "architecture": architecture, "rootfs": { "type": "layers", "diff_ids": diff_ids } })
}

/// A manifest with layers plain, gzip and zstd; its digest.
fn manifest(blobs: &mut Blobs, layers: &[Vec<u8>], architecture: &str) -> String {
    let config = config(layers, architecture);
    let config = json!({ "digest": blobs.add_json(&config) });
    let packed: Vec<_> = layers
        .iter()
        .enumerate()
        .map(|(n, layer)| json!({ "digest": blobs.add([Vec::clone, |l: &Vec<u8>| gzip(l), |l: &Vec<u8>| zstd(l)][n % 3](layer)) }))
        .collect();
    blobs.add_json(&json!({ "schemaVersion": 2, "config": config, "layers": packed }))
}

fn oci(blobs: &Blobs, manifests: &[Value]) -> Vec<u8> {
    let index = json!({ "schemaVersion": 2, "manifests": manifests });
    blobs
        .archive(&[("oci-layout", json!({ "imageLayoutVersion": "1.0.0" })), ("index.json", index)])
}

#[test]
fn layers_of_an_oci_layout_lie_over_each_other() {
    let mut blobs = Blobs::default();
    let digest = manifest(&mut blobs, &layers(), "amd64");
    is_expected(&imported(&oci(&blobs, &[json!({ "digest": digest })]), None).unwrap());
}

#[test]
fn what_docker_saves_is_an_image_in_both_of_its_forms() {
    // Before version 25: a folder for each layer, links where two are the same.
    let (layers, mut files) = (layers(), Vec::new());
    let config = config(&layers, "amd64").to_string().into_bytes();
    let name = format!("{}.json", digest_of(&config));
    for (n, layer) in layers.iter().enumerate() {
        files.push((format!("{n}/layer.tar"), layer.clone()));
    }
    files.push(("3/layer.tar->../2/layer.tar".to_owned(), Vec::new()));
    files.push((name.clone(), config));
    let listed = ["0/layer.tar", "1/layer.tar", "3/layer.tar"];
    let list = json!([{ "Config": name, "RepoTags": ["a:1"], "Layers": listed }]);
    files.push(("manifest.json".to_owned(), list.to_string().into_bytes()));
    let files: Vec<_> = files.iter().map(|(name, bytes)| (&name[..], &bytes[..])).collect();
    is_expected(&imported(&tar(&files), None).unwrap());
    is_expected(&imported(&gzip(&tar(&files)), Some("a:1")).unwrap());
}

#[test]
fn one_of_several_images_is_named_by_its_tag() {
    let mut blobs = Blobs::default();
    let named = |blobs: &mut Blobs, name: &str, file: &str| {
        let digest = manifest(blobs, &[tar(&[(file, b"")])], "amd64");
        json!({ "digest": digest, "annotations": { "org.opencontainers.image.ref.name": name } })
    };
    let both = [named(&mut blobs, "one:1", "bin/one"), named(&mut blobs, "two:2", "bin/two")];
    let archive = oci(&blobs, &both);
    assert_eq!(names(&imported(&archive, Some("2")).unwrap()), ["/bin", "/bin/two"]);
    for tag in [None, Some("three")] {
        let Err(Error::WhichImage { known, .. }) = imported(&archive, tag) else { panic!() };
        assert_eq!(known, ["one:1", "two:2"]);
    }
}

#[test]
fn the_image_for_this_kind_of_machine_is_taken() {
    let mut blobs = Blobs::default();
    let of = |blobs: &mut Blobs, architecture: &str| {
        let layers = [tar(&[(&format!("bin/{architecture}"), b"")])];
        let digest = manifest(blobs, &layers, architecture);
        json!({ "digest": digest, "platform": { "os": "linux", "architecture": architecture } })
    };
    let all = [of(&mut blobs, "arm64"), of(&mut blobs, "amd64"), of(&mut blobs, "unknown")];
    let inner = blobs.add_json(&json!({ "manifests": all }));
    let outer = json!({ "mediaType": "application/vnd.oci.image.index.v1+json", "digest": inner });
    assert_eq!(names(&imported(&oci(&blobs, &[outer]), None).unwrap())[1], "/bin/amd64");
    let error = imported(&oci(&blobs, &all[..1]), None).unwrap_err().to_string();
    assert!(error.contains("no image for linux/amd64"), "{error}");
    let unsaid = json!({ "digest": all[0]["digest"] });
    let error = imported(&oci(&blobs, &[unsaid]), None).unwrap_err().to_string();
    assert!(error.contains("it is for linux/arm64"), "{error}");
}

#[test]
fn parts_that_are_not_what_their_digest_says_are_refused() {
    let mut blobs = Blobs::default();
    let digest = manifest(&mut blobs, &layers(), "amd64");
    let index = [json!({ "digest": digest })];
    for n in 0..blobs.0.len() {
        let mut changed = blobs.clone();
        // Still a layer or a description, but another.
        changed.0[n].1 = match changed.0[n].1.starts_with(b"{") {
            true => [&changed.0[n].1[..], b"\n"].concat(),
            false => tar(&[("bin/evil", b"")]),
        };
        let error = imported(&oci(&changed, &index), None).unwrap_err().to_string();
        assert!(error.contains("SHA-256 is"), "{n}: {error}");
        let mut missing = blobs.clone();
        missing.0.remove(n);
        let error = imported(&oci(&missing, &index), None).unwrap_err().to_string();
        assert!(error.contains("is missing"), "{n}: {error}");
    }
}

#[test]
fn what_describes_no_image_is_refused_in_one_line() {
    let garbage = |files: &[(&str, &[u8])]| imported(&tar(files), None).unwrap_err().to_string();
    let empty = garbage(&[("manifest.json", b"[]"), ("blobs/sha256/aa", b"x")]);
    assert!(empty.contains("there is none in it"), "{empty}");
    let none = garbage(&[("oci-layout", b"{}"), ("index.json", br#"{"manifests": []}"#)]);
    assert!(none.contains("no image for"), "{none}");
    for text in ["{}", "", "[[[[", r#"[{"Config": "../x", "Layers": []}]"#] {
        let error = garbage(&[("manifest.json", text.as_bytes())]);
        assert!(error.contains("cannot import test"), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
    let large = vec![b' '; 5 << 20];
    assert!(garbage(&[("manifest.json", &large)]).contains("more than 4194304 bytes"));
    let away = json!({ "manifests": [{ "digest": "sha256:../../../../etc/passwd" }] }).to_string();
    let away = garbage(&[("oci-layout", b"{}"), ("index.json", away.as_bytes())]);
    assert!(away.contains("is no SHA-256"), "{away}");
    let own = digest_of(br#"{"manifests":[]}"#);
    let circle =
        json!({ "manifests": [{ "mediaType": "index", "digest": format!("sha256:{own}") }] });
    let mut blobs = Blobs::default();
    let mut digest = blobs.add_json(&circle);
    for _ in 0..5 {
        digest =
            blobs.add_json(&json!({ "manifests": [{ "mediaType": "index", "digest": digest }] }));
    }
    let deep = oci(&blobs, &[json!({ "mediaType": "index", "digest": digest })]);
    assert!(imported(&deep, None).unwrap_err().to_string().contains("nested too deep"));
}

#[test]
fn a_root_file_system_may_have_files_of_these_names() {
    let files = imported(&tar(&[("manifest.json", b"x"), ("bin/sh", b"x")]), None).unwrap();
    assert_eq!(names(&files), ["/bin", "/bin/sh", "/manifest.json"]);
}
