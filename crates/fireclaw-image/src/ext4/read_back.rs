//! Reads images for tests, from the bytes alone.

use std::collections::BTreeMap;
use std::path::Path;

/// A file as it was found. `inode` tells hard links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub inode: u32,
    /// Type and permissions, as `stat` gives them.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub links: u32,
    pub mtime: (i64, u32),
    pub size: u64,
    /// Content, a link's target, or nothing.
    pub bytes: Vec<u8>,
    pub device: (u32, u32),
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// 512-byte units on disk.
    pub sectors: u64,
}

struct Image(Vec<u8>);

fn u16_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// Everything in an image by path; the root is empty.
pub fn read(path: &Path) -> BTreeMap<Vec<u8>, Node> {
    let image = Image(std::fs::read(path).unwrap());
    let mut found = BTreeMap::new();
    let mut rest = vec![(Vec::new(), 2)];
    while let Some((path, number)) = rest.pop() {
        let node = image.node(number);
        if node.mode & 0o170_000 == 0o040_000 {
            for (name, child) in names(&node.bytes) {
                if name != b"." && name != b".." {
                    rest.push(([&path[..], b"/", &name].concat(), child));
                }
            }
        }
        assert!(found.insert(path, node).is_none(), "two files of one name");
    }
    found
}

fn names(bytes: &[u8]) -> Vec<(Vec<u8>, u32)> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let length = u16_at(bytes, at + 4) as usize;
        let name = usize::from(bytes[at + 6]);
        if u32_at(bytes, at) != 0 {
            found.push((bytes[at + 8..at + 8 + name].to_vec(), u32_at(bytes, at)));
        }
        at += length;
    }
    found
}

impl Image {
    fn block(&self, number: u32) -> &[u8] {
        &self.0[number as usize * 4096..][..4096]
    }

    fn node(&self, number: u32) -> Node {
        let per_group = u32_at(&self.0, 1024 + 0x28);
        let (group, index) = ((number - 1) / per_group, (number - 1) % per_group);
        let table = u32_at(&self.0, 4096 + group as usize * 32 + 8);
        let raw = &self.0[table as usize * 4096 + index as usize * 256..][..256];
        let mode = u16_at(raw, 0);
        let size = u64::from(u32_at(raw, 4)) | (u64::from(u32_at(raw, 0x6c)) << 32);
        let body = &raw[0x28..0x64];
        let bytes = match mode & 0o170_000 {
            0o020_000 | 0o060_000 | 0o010_000 => Vec::new(),
            _ if u32_at(raw, 0x20) & 0x8_0000 == 0 => body[..size as usize].to_vec(),
            _ => {
                let mut bytes = vec![0; size.next_multiple_of(4096) as usize];
                self.extents(body, &mut bytes);
                bytes.truncate(size as usize);
                bytes
            }
        };
        let device = match (u32_at(body, 0), u32_at(body, 4)) {
            (0, new) => ((new >> 8) & 0xfff, (new & 0xff) | ((new >> 12) & 0xfff00)),
            (old, _) => (old >> 8, old & 0xff),
        };
        let is_device = matches!(mode & 0o170_000, 0o020_000 | 0o060_000);
        let extra = u32_at(raw, 0x88);
        let seconds = i64::from(u32_at(raw, 0x10).cast_signed()) + (i64::from(extra & 3) << 32);
        let mut xattrs = BTreeMap::new();
        if u32_at(raw, 160) == 0xea02_0000 {
            attributes(&raw[164..], 0, &mut xattrs);
        }
        if u32_at(raw, 0x68) != 0 {
            attributes(self.block(u32_at(raw, 0x68)), 32, &mut xattrs);
        }
        Node {
            inode: number,
            mode,
            uid: u16_at(raw, 2) | (u16_at(raw, 0x78) << 16),
            gid: u16_at(raw, 0x18) | (u16_at(raw, 0x7a) << 16),
            links: u16_at(raw, 0x1a),
            mtime: (seconds, extra >> 2),
            size,
            bytes,
            device: if is_device { device } else { (0, 0) },
            xattrs,
            sectors: u64::from(u32_at(raw, 0x1c)),
        }
    }

    fn extents(&self, node: &[u8], into: &mut [u8]) {
        assert_eq!(u16_at(node, 0), 0xf30a);
        let depth = u16_at(node, 6);
        for entry in node[12..].chunks_exact(12).take(u16_at(node, 2) as usize) {
            if depth > 0 {
                self.extents(self.block(u32_at(entry, 4)), into);
                continue;
            }
            let (to, from) = (u32_at(entry, 0) as usize, u32_at(entry, 8));
            for n in 0..u16_at(entry, 4) {
                let block = self.block(from + n);
                into[(to + n as usize) * 4096..][..4096].copy_from_slice(block);
            }
        }
    }
}

fn attributes(area: &[u8], start: usize, into: &mut BTreeMap<Vec<u8>, Vec<u8>>) {
    let prefixes: [&[u8]; 8] = [
        b"",
        b"user.",
        b"system.posix_acl_access",
        b"system.posix_acl_default",
        b"trusted.",
        b"",
        b"security.",
        b"system.",
    ];
    let mut at = start;
    while u32_at(area, at) != 0 {
        let length = usize::from(area[at]);
        let (value, size) = (u16_at(area, at + 2) as usize, u32_at(area, at + 8) as usize);
        let name = &area[at + 16..at + 16 + length];
        let name = [prefixes[usize::from(area[at + 1])], name].concat();
        into.insert(name, area[value..value + size].to_vec());
        at += (16 + length).next_multiple_of(4);
    }
}
