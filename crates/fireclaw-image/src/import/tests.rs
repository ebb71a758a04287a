//! Images of archives, checked by e2fsck and read back.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::process::Command;

use tar::EntryType;

use super::against_tar::gnu_tar;
use super::*;
use crate::ext4::read_back::{self, Node};

/// An image in a folder of its own, checked by e2fsck.
pub struct Made {
    _directory: tempfile::TempDir,
    path: PathBuf,
    pub files: BTreeMap<Vec<u8>, Node>,
}

pub fn made_with(tar: &[u8], tag: Option<&str>) -> Result<Made> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image");
    from_tar(tar, "test", &path, tag)?;
    let files = checked(&path);
    Ok(Made { _directory: directory, path, files })
}

/// What is in an image that e2fsck finds to be sound.
pub fn checked(path: &Path) -> BTreeMap<Vec<u8>, Node> {
    let check = Command::new("e2fsck").arg("-fn").arg(path).output().unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
    read_back::read(path)
}

pub fn made(tar: &[u8]) -> Made {
    made_with(tar, None).unwrap()
}

fn refused(tar: &[u8]) -> String {
    made_with(tar, None).map(|made| made.files).unwrap_err().to_string()
}

impl Made {
    fn get(&self, path: &str) -> &Node {
        self.files
            .get(path.as_bytes())
            .unwrap_or_else(|| panic!("{path} is missing: {:?}", self.names()))
    }

    fn names(&self) -> Vec<String> {
        self.files.keys().map(|path| String::from_utf8_lossy(path).into_owned()).collect()
    }
}

/// An archive in the making.
pub struct Tar(tar::Builder<Vec<u8>>);

impl Tar {
    pub fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    pub fn add(mut self, kind: EntryType, name: &str, link: &str, bytes: &[u8]) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        header.set_size(bytes.len() as u64);
        // Not through the builder, which refuses names that people send all the same.
        let raw = header.as_mut_bytes();
        raw[..name.len()].copy_from_slice(name.as_bytes());
        raw[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        self.0.append(&header, bytes).unwrap();
        self
    }

    pub fn dir(self, name: &str) -> Self {
        self.add(EntryType::Directory, name, "", b"")
    }

    pub fn file(self, name: &str, bytes: &[u8]) -> Self {
        self.add(EntryType::Regular, name, "", bytes)
    }

    pub fn symlink(self, name: &str, to: &str) -> Self {
        self.add(EntryType::Symlink, name, to, b"")
    }

    pub fn link(self, name: &str, to: &str) -> Self {
        self.add(EntryType::Link, name, to, b"")
    }

    pub fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    files.iter().fold(Tar::new(), |tar, (name, bytes)| tar.file(name, bytes)).bytes()
}

#[test]
fn entries_below_linked_folders_lie_where_the_link_points() {
    let base = || Tar::new().dir("usr").dir("usr/bin").dir("usr/lib");
    let relative = made(&base().symlink("bin", "usr/bin").file("bin/hello", b"hi").bytes());
    assert_eq!(relative.get("/usr/bin/hello").bytes, b"hi");
    assert_eq!(relative.get("/bin").bytes, b"usr/bin");
    let absolute = made(&base().symlink("lib", "/usr/lib").file("lib/x", b"x").bytes());
    assert_eq!(absolute.get("/usr/lib/x").bytes, b"x");
    let folder = base().symlink("bin", "usr/bin").dir("bin").file("bin/hello", b"hi");
    let folder = made(&folder.bytes());
    assert_eq!(folder.get("/usr/bin/hello").bytes, b"hi");
    let out = base().symlink("out", "../../../etc").file("out/y", b"y").file("../up", b"u");
    let out = made(&out.bytes());
    assert_eq!(out.get("/etc/y").bytes, b"y");
    assert_eq!(out.get("/up").bytes, b"u");
    let circle = Tar::new().symlink("a", "b").symlink("b", "a").file("a/z", b"z");
    assert!(refused(&circle.bytes()).contains("circle"));
    assert!(refused(&Tar::new().file("f", b"").file("f/x", b"").bytes()).contains("not a folder"));
}

#[test]
fn hard_links_are_names_of_one_file() {
    let made = made(
        &Tar::new()
            .link("early", "usr/bin/one")
            .file("usr/bin/one", b"1")
            .link("a/b/two", "usr/bin/one")
            .link("usr/bin/three", "a/b/two")
            .link("usr/bin/four", "./usr/bin/one")
            .link("usr/bin/five", "/usr/bin/one")
            .link("usr/bin/one", "usr/bin/one")
            .symlink("usr/sl", "bin/one")
            .link("usr/sl2", "usr/sl")
            .symlink("bin", "usr/bin")
            .link("six", "bin/one")
            .bytes(),
    );
    let one = made.get("/usr/bin/one");
    assert_eq!((one.links, &one.bytes[..]), (7, &b"1"[..]));
    for path in ["/early", "/a/b/two", "/usr/bin/three", "/usr/bin/four", "/usr/bin/five", "/six"] {
        assert_eq!(made.get(path).inode, one.inode, "{path}");
    }
    let soft = made.get("/usr/sl2");
    assert_eq!((soft.links, &soft.bytes[..]), (2, &b"bin/one"[..]));
}

#[test]
fn a_replaced_file_keeps_its_content_under_its_other_names() {
    let made = made(&Tar::new().file("one", b"old").link("two", "one").file("one", b"new").bytes());
    assert_eq!((made.get("/one").links, &made.get("/one").bytes[..]), (1, &b"new"[..]));
    assert_eq!((made.get("/two").links, &made.get("/two").bytes[..]), (1, &b"old"[..]));
}

#[test]
fn links_that_cannot_be_are_refused_by_name() {
    let missing = refused(&Tar::new().link("a", "none").bytes());
    assert!(missing.contains("a: it is a hard link to none"), "{missing}");
    let gone = Tar::new().link("c/a", "a").link("c", "a").file("a", b"").symlink("a", "b");
    assert!(made_with(&gone.file("a", b"").bytes(), None).is_ok());
    assert!(refused(&Tar::new().link("one", "one").bytes()).contains("hard link to one"));
    assert!(refused(&Tar::new().dir("d").link("e", "d").bytes()).contains("to a folder"));
    let many =
        (0..65_001).fold(Tar::new().file("one", b""), |t, n| t.link(&format!("d/{n}"), "one"));
    assert!(refused(&many.bytes()).contains("65000 names"));
}

#[test]
fn what_was_replaced_takes_no_room() {
    let big: Vec<u8> = (0..3_000_000u32).map(|n| n as u8 | 1).collect();
    let once = made(&tar(&[("f", &big)]));
    let often = made(&tar(&[("f", &big), ("f", &big), ("f", &big)]));
    assert_eq!(often.get("/f").bytes, big);
    let on_disk = |made: &Made| fs::metadata(&made.path).unwrap().blocks() * 512;
    assert!(on_disk(&often) < on_disk(&once) + 1_000_000);
}

#[test]
fn devices_and_pipes_arrive() {
    let numbered = |kind, name: &str, major, minor| {
        let mut header = tar::Header::new_gnu();
        header.set_path(name).unwrap();
        header.set_entry_type(kind);
        header.set_mode(0o600);
        header.set_uid(7);
        header.set_gid(8);
        header.set_size(0);
        header.set_device_major(major).unwrap();
        header.set_device_minor(minor).unwrap();
        header.set_cksum();
        header.as_bytes().to_vec()
    };
    let archive = [
        numbered(EntryType::Char, "null", 1, 3),
        numbered(EntryType::Block, "disk", 259, 70_000),
        numbered(EntryType::Fifo, "pipe", 0, 0),
        vec![0; 1024],
    ];
    let made = made(&archive.concat());
    assert_eq!((made.get("/null").mode, made.get("/null").device), (0o020_600, (1, 3)));
    assert_eq!((made.get("/disk").mode, made.get("/disk").device), (0o060_600, (259, 70_000)));
    assert_eq!((made.get("/pipe").mode, made.get("/pipe").uid), (0o010_600, 7));
}

#[test]
fn many_files_and_folders_make_more_groups() {
    let files = (0..40_000).fold(Tar::new(), |tar, n| tar.file(&format!("d/file-{n:0>60}"), b""));
    let files = (0..65_000).fold(files, |tar, n| tar.dir(&format!("e/{n}")));
    let made = made(&files.bytes());
    assert_eq!(made.files.len(), 40_000 + 65_000 + 3);
    assert_eq!((made.get("/d").links, made.get("/e").links), (2, 1));
}

#[test]
fn deep_trees_and_long_names_arrive() {
    let deep = "a/".repeat(2000) + "x";
    let long = format!("{}/{}", "n".repeat(255), "m".repeat(255));
    let target = "t".repeat(4000);
    let mut builder = tar::Builder::new(Vec::new());
    for name in [&deep, &long] {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(1);
        builder.append_data(&mut header, name, &b"y"[..]).unwrap();
    }
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(EntryType::Symlink);
    header.set_size(0);
    builder.append_link(&mut header, "link", &target).unwrap();
    let made = made(&builder.into_inner().unwrap());
    assert_eq!(made.get(&format!("/{deep}")).bytes, b"y");
    assert_eq!(made.get(&format!("/{long}")).bytes, b"y");
    assert_eq!(made.get("/link").bytes, target.as_bytes());
    assert!(refused(&tar_with_long_name(256)).contains("255 bytes"));
    assert!(refused(&tar_with_long_name(5000)).contains("more than 4096"));
}

fn tar_with_long_name(length: usize) -> Vec<u8> {
    Tar::new()
        .add(EntryType::GNULongName, "././@LongLink", "", &vec![b'l'; length])
        .file("short", b"")
        .bytes()
}

#[test]
fn an_empty_or_broken_archive_is_refused() {
    for bytes in [&b""[..], &[0; 10240], &b"not a tar at all, but long enough".repeat(40)] {
        let problem = refused(bytes);
        assert!(problem.contains("cannot import test"), "{problem}");
    }
    assert!(refused(b"BZh91AY&SY").contains("bzip2"));
}

#[test]
fn what_is_no_root_file_system_is_refused_with_what_it_is() {
    let below = tar(&[("rootfs/bin/sh", b"x"), ("rootfs/etc/passwd", b"x")]);
    let Err(Error::BelowFolder { folder, .. }) = made_with(&below, None) else { panic!() };
    assert_eq!(folder, "rootfs");
    let layer = tar(&[("bin/sh", b"x"), ("etc/.wh.old", b"")]);
    let Err(Error::OneLayer { mark, .. }) = made_with(&layer, None) else { panic!() };
    assert_eq!(mark, "etc/.wh.old");
    let tagged = made_with(&tar(&[("bin/sh", b"x")]), Some("latest"));
    assert!(matches!(tagged, Err(Error::WhichImage { .. })));
    // A small one is none of these.
    made(&tar(&[("usr/bin/sh", b"x")]));
    made(&tar(&[("app", b"x")]));
}

#[test]
fn holes_stay_holes_in_each_sparse_format() {
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("f");
    let file = File::create(&source).unwrap();
    file.set_len(1 << 30).unwrap();
    file.write_all_at(b"end", (1 << 30) - 3).unwrap();
    let posix = |version: &str| ["--format=posix".into(), format!("--sparse-version={version}")];
    let gnu = ["--format=gnu".to_owned(), "--sparse".into()];
    for format in [gnu, posix("0.0"), posix("0.1"), posix("1.0")] {
        let mut pack = gnu_tar();
        pack.args(&format)
            .args(["--no-xattrs", "--sparse", "-cf", "-", "-C"])
            .arg(directory.path())
            .arg("f");
        let packed = pack.output().unwrap();
        assert!(packed.status.success() && packed.stdout.len() < 100_000);
        let path = directory.path().join("image");
        from_tar(&packed.stdout[..], "test", &path, None).unwrap();
        let stat = |path: &str| {
            let request = format!("stat {path}");
            let image = directory.path().join("image");
            let done = Command::new("debugfs").args(["-R", &request]).arg(image).output().unwrap();
            String::from_utf8_lossy(&done.stdout).into_owned()
        };
        let said = stat("/f");
        assert!(said.contains("Size: 1073741824") && said.contains("Blockcount: 8"), "{said}");
        assert!(fs::metadata(&path).unwrap().blocks() * 512 < 500_000, "{format:?}");
        fs::remove_file(&path).unwrap();
    }
}

/// Archivers without holes write zeros, such as of `lastlog`: they take no room either.
#[test]
fn zeros_take_no_room() {
    let made = made(&tar(&[("var/log/lastlog", &vec![0; 50 << 20]), ("x", b"x")]));
    let log = made.get("/var/log/lastlog");
    assert_eq!((log.size, log.sectors), (50 << 20, 0));
}

#[test]
fn the_same_archive_gives_the_same_image() {
    let archive = tar(&[("bin/sh", b"x"), ("etc/x", &[3; 9000])]);
    let (one, two) = (made(&archive), made(&archive));
    assert!(fs::read(&one.path).unwrap() == fs::read(&two.path).unwrap());
    assert_eq!(fs::metadata(&one.path).unwrap().mode() & 0o777, 0o444);
}

/// Time and memory grow with the archive, not with its square: ten times as many members
/// may take thirty times as long, not a hundred.
#[test]
fn members_cost_the_same_however_many_there_are() {
    let archive = |n: u32| {
        (0..n).fold(Tar::new(), |tar, n| tar.file(&format!("d{}/f{n}", n % 7), b"")).bytes()
    };
    let time = |bytes: &[u8]| {
        let directory = tempfile::tempdir().unwrap();
        let best = (0..3).map(|_| {
            let start = std::time::Instant::now();
            from_tar(bytes, "test", &directory.path().join("image"), None).unwrap();
            start.elapsed()
        });
        best.min().unwrap()
    };
    let (few, many) = (time(&archive(3_000)), time(&archive(30_000)));
    assert!(many < few * 30 + std::time::Duration::from_millis(200), "{few:?} {many:?}");
}
