//! What comes out of archives, compared with what GNU tar takes out of them.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use proptest::prelude::*;
use tar::EntryType;

use super::tests::{Tar, made, made_with};
use super::*;
use crate::ext4::read_back::Node;

/// GNU tar in the shape that the comparison needs.
pub fn gnu_tar() -> Command {
    let mut command = Command::new("tar");
    command.args(["--numeric-owner", "--xattrs", "--xattrs-include=*"]).env("LC_ALL", "C");
    command.env("TZ", "UTC").stderr(Stdio::null());
    command
}

/// A tree on the host in the same terms as an image.
pub fn host_tree(root: &Path) -> BTreeMap<Vec<u8>, Node> {
    let mut found = BTreeMap::new();
    let mut rest = vec![Vec::new()];
    while let Some(path) = rest.pop() {
        let file = root.join(OsStr::from_bytes(path.strip_prefix(b"/").unwrap_or(&path)));
        let metadata = fs::symlink_metadata(&file).unwrap();
        let kind = metadata.file_type();
        let mut bytes = Vec::new();
        if kind.is_dir() {
            for entry in fs::read_dir(&file).unwrap() {
                rest.push([&path[..], b"/", entry.unwrap().file_name().as_bytes()].concat());
            }
        } else if kind.is_symlink() {
            bytes = fs::read_link(&file).unwrap().into_os_string().into_vec();
        } else if kind.is_file() {
            bytes = fs::read(&file).unwrap();
        }
        let mut xattrs = BTreeMap::new();
        let mut names = [0u8; 4096];
        let length = rustix::fs::llistxattr(&file, &mut names[..]).unwrap_or(0);
        for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            let mut value = [0u8; 4096];
            let n = rustix::fs::lgetxattr(&file, OsStr::from_bytes(name), &mut value[..]).unwrap();
            xattrs.insert(name.to_vec(), value[..n].to_vec());
        }
        let node = Node {
            inode: metadata.ino() as u32,
            mode: metadata.mode(),
            uid: metadata.uid(),
            gid: metadata.gid(),
            links: if kind.is_dir() { 0 } else { metadata.nlink() as u32 },
            mtime: (metadata.mtime(), metadata.mtime_nsec() as u32),
            size: metadata.len(),
            bytes,
            device: (0, 0),
            xattrs,
            sectors: 0,
        };
        found.insert(path, node);
    }
    found
}

/// What is compared: directories' sizes and link counts are each file system's own, and
/// inodes are compared by which names share one.
pub fn comparable(files: &BTreeMap<Vec<u8>, Node>, exact_times: bool) -> Vec<(String, Node)> {
    let mut first_name = BTreeMap::new();
    for (n, node) in files.values().enumerate() {
        first_name.entry(node.inode).or_insert(n as u32);
    }
    let nodes = files.iter().map(|(path, node)| {
        let is_directory = node.mode & 0o170_000 == 0o040_000;
        let mut node = node.clone();
        node.inode = first_name[&node.inode];
        node.sectors = 0;
        if is_directory {
            (node.links, node.size, node.bytes) = (0, 0, Vec::new());
        }
        if !exact_times {
            node.mtime.1 = 0;
        }
        if !rustix::process::geteuid().is_root() {
            (node.uid, node.gid) = (0, 0);
        }
        (String::from_utf8_lossy(path).into_owned(), node)
    });
    // Times of folders change while tar works in them, and of the root nobody spoke.
    let times = |(path, mut node): (String, Node)| {
        if node.mode & 0o170_000 == 0o040_000 {
            node.mtime = (0, 0);
        }
        (path, node)
    };
    nodes.map(times).collect()
}

#[derive(Debug, Clone)]
pub enum Content {
    File(Vec<(u32, u8, u16)>, u32),
    Folder,
    Link(Vec<u8>),
    HardLink(usize),
    Pipe,
}

#[derive(Debug, Clone)]
pub struct Planned {
    pub name: Vec<u8>,
    content: Content,
    mode: u32,
    owner: (u32, u32),
    mtime: i64,
    xattr: Option<Vec<u8>>,
}

/// A name of any bytes that a file can have.
fn a_name() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![4 => prop::sample::select(b"abc.".to_vec()), 1 => 1u8..=255];
    let name = prop_oneof![
        9 => prop::collection::vec(byte, 1..6),
        1 => prop::collection::vec(Just(b'L'), 90..255),
    ];
    name.prop_filter("no name of a file", |name| {
        !name.contains(&b'/') && !name.starts_with(b".wh.") && name != b"." && name != b".."
    })
}

pub fn planned() -> impl Strategy<Value = Planned> {
    let content = prop_oneof![
        4 => (prop::collection::vec((0u32..30_000, any::<u8>(), 1u16..9000), 0..4), 0u32..20_000)
            .prop_map(|(parts, tail)| Content::File(parts, tail)),
        3 => Just(Content::Folder),
        2 => prop::collection::vec(1u8..=255, 1..150).prop_map(Content::Link),
        2 => (0usize..100).prop_map(Content::HardLink),
        1 => Just(Content::Pipe),
    ];
    let owner = (prop_oneof![0u32..2000, 0u32..2_000_000], 0u32..2000);
    let xattr = prop::option::weighted(0.3, prop::collection::vec(any::<u8>(), 1..300));
    (a_name(), content, 0u32..0o10000, owner, 0i64..5_000_000_000, xattr).prop_map(
        |(name, content, mode, owner, mtime, xattr)| Planned {
            name,
            content,
            mode,
            owner,
            mtime,
            xattr,
        },
    )
}

/// Makes what was planned below `root`: each thing in the folder that came last.
pub fn make(root: &Path, plan: &[Planned]) {
    let is_root = rustix::process::geteuid().is_root();
    let mut folder = root.to_owned();
    let mut files: Vec<PathBuf> = Vec::new();
    let mut attributes = Vec::new();
    for Planned { name, content, mode, owner, mtime, xattr } in plan {
        let path = folder.join(OsStr::from_bytes(name));
        if fs::symlink_metadata(&path).is_ok() {
            continue;
        }
        match content {
            Content::File(parts, tail) => {
                let file = File::create(&path).unwrap();
                let mut end = 0;
                for (gap, byte, length) in parts {
                    end += u64::from(*gap);
                    file.write_all_at(&vec![*byte; usize::from(*length)], end).unwrap();
                    end += u64::from(*length);
                }
                file.set_len(end + u64::from(*tail)).unwrap();
                files.push(path.clone());
            }
            Content::Folder => {
                fs::create_dir(&path).unwrap();
                folder = path.clone();
            }
            Content::Link(target) => {
                std::os::unix::fs::symlink(OsString::from_vec(target.clone()), &path).unwrap();
                if is_root {
                    std::os::unix::fs::lchown(&path, Some(owner.0), Some(owner.1)).unwrap();
                }
                continue;
            }
            Content::HardLink(n) => {
                if !files.is_empty() {
                    fs::hard_link(&files[n % files.len()], &path).unwrap();
                }
                continue;
            }
            Content::Pipe => {
                let mode = rustix::fs::Mode::from_raw_mode(0o600);
                rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0)
                    .unwrap();
            }
        }
        attributes.push((path, mode, owner, mtime, xattr));
    }
    // From the inside out: a folder that one may not enter comes last.
    for (path, mode, owner, mtime, xattr) in attributes.into_iter().rev() {
        if is_root {
            std::os::unix::fs::chown(&path, Some(owner.0), Some(owner.1)).unwrap();
        }
        let is_pipe = !fs::metadata(&path).unwrap().is_file() && !path.is_dir();
        if let Some(value) = xattr
            && !is_pipe
        {
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::lsetxattr(&path, "user.test", value, flags).unwrap();
            if is_root {
                let capability = [1, 0, 0, 2, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
                let _ = rustix::fs::lsetxattr(&path, "security.capability", &capability, flags);
            }
        }
        let mode = if is_root { *mode } else { mode | 0o700 };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let time = rustix::fs::Timespec { tv_sec: *mtime, tv_nsec: 123_456_789 };
        let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::utimensat(rustix::fs::CWD, &path, &times, flags).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// A tree goes through GNU tar in each of its formats and comes out as it was: type,
    /// bytes, mode, owner, links, times, attributes.
    #[test]
    fn an_archive_of_gnu_tar_is_the_tree_that_it_was_made_of(
        plan in prop::collection::vec(planned(), 1..25),
        format in prop::sample::select(vec!["gnu", "oldgnu", "posix", "posix"]),
        sparse in prop::sample::select(vec!["", "0.0", "0.1", "1.0"]),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        fs::create_dir(&root).unwrap();
        make(&root, &plan);
        let mut pack = gnu_tar();
        pack.arg(format!("--format={format}"));
        if !sparse.is_empty() {
            pack.arg("--sparse");
            if format == "posix" {
                pack.arg(format!("--sparse-version={sparse}"));
            }
        }
        if format != "posix" {
            pack.arg("--no-xattrs");
        }
        let packed = pack.args(["-cf", "-", "-C"]).arg(&root).arg(".").output().unwrap();
        prop_assert!(packed.status.success());
        let mut expected = host_tree(&root);
        if format != "posix" {
            expected.values_mut().for_each(|node| node.xattrs.clear());
        }
        let made = made(&packed.stdout);
        let exact = format == "posix";
        prop_assert_eq!(comparable(&made.files, exact), comparable(&expected, exact));
    }

    /// Entries that replace each other, links into what went before, folders that nobody
    /// named: what `tar -x` leaves is what the image has, wherever tar has an answer.
    #[test]
    fn entries_in_any_order_are_what_gnu_tar_extracts(
        entries in prop::collection::vec((0u8..4, "[abc](/[abc]){0,2}", "[abc](/[abc]){0,2}"), 1..14)
    ) {
        let archive = entries.iter().enumerate().fold(Tar::new(), |tar, (n, (kind, name, target))| {
            match kind {
                0 => tar.file(name, format!("content {n}").as_bytes()),
                1 => tar.dir(name),
                2 => tar.symlink(name, target),
                _ => tar.link(name, target),
            }
        });
        let archive = archive.bytes();
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        fs::create_dir(&root).unwrap();
        let mut unpack = gnu_tar();
        unpack.args(["--keep-directory-symlink", "-xpf", "-", "-C"]).arg(&root);
        let mut child = unpack.stdin(Stdio::piped()).spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), &archive).unwrap();
        let answered = child.wait().unwrap().success();
        match made_with(&archive, None) {
            Ok(made) if answered => {
                let strip = |files: &BTreeMap<Vec<u8>, Node>| {
                    let nodes = comparable(files, false).into_iter();
                    // Folders that the archive does not name have the mode of the umask.
                    nodes.map(|(path, mut node)| {
                        if node.mode & 0o170_000 == 0o040_000 { node.mode = 0 }
                        node.mtime = (0, 0);
                        (path, node)
                    }).collect::<Vec<_>>()
                };
                prop_assert_eq!(strip(&made.files), strip(&host_tree(&root)));
            }
            Ok(_) => {}
            Err(e) => prop_assert!(!answered, "tar takes it, and here: {e}"),
        }
    }

    /// Any archive that is damaged anywhere is refused or gives a sound file system.
    #[test]
    fn a_damaged_archive_is_refused_or_sound(at in 0usize..12_000, byte in any::<u8>()) {
        let mut archive = Tar::new().dir("usr").file("usr/f", &[7; 5000]).symlink("s", "usr")
            .link("s/g", "usr/f").add(EntryType::XHeader, "x", "", b"30 SCHILY.xattr.user.a=abcdefg\n")
            .file("s/h", b"h").bytes();
        let at = at % archive.len();
        archive[at] = byte;
        // The sums of headers would catch most: they are put right.
        let block = at / 512 * 512;
        if archive[block + 257..block + 262] == *b"ustar" {
            let mut header = tar::Header::new_gnu();
            header.as_mut_bytes().copy_from_slice(&archive[block..block + 512]);
            header.set_cksum();
            archive[block..block + 512].copy_from_slice(header.as_bytes());
        }
        let _ = made_with(&archive, None);
    }
}
