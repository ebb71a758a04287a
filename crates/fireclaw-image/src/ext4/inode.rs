//! Inodes as they lie on disk (Documentation/filesystems/ext4/inodes.rst, ifork.rst).

use super::blocks::Blocks;
use super::xattr::Stored;
use super::{BLOCK, FIELDS, INODE};
use crate::archive::Time;
use crate::problem::Outcome;
use crate::tree::{Extent, Meta};

/// Types of files in the mode of an inode, with those that directories repeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    File,
    Directory,
    Character,
    Block,
    Fifo,
    Link,
}

impl Type {
    fn bits(self) -> u16 {
        match self {
            Self::Fifo => 0o010_000,
            Self::Character => 0o020_000,
            Self::Directory => 0o040_000,
            Self::Block => 0o060_000,
            Self::File => 0o100_000,
            Self::Link => 0o120_000,
        }
    }

    /// As directories have it (`EXT4_FT_…`).
    pub fn in_directory(self) -> u8 {
        match self {
            Self::File => 1,
            Self::Directory => 2,
            Self::Character => 3,
            Self::Block => 4,
            Self::Fifo => 5,
            Self::Link => 7,
        }
    }
}

/// What the 60 bytes of an inode hold that are otherwise for the places of its content.
pub enum Body {
    /// The places of content of this length.
    Extents { size: u64, extents: Vec<Extent> },
    /// A short target, or the number of a device.
    Inline { size: u64, bytes: Vec<u8> },
}

/// Room for a body.
pub const BODY: usize = 60;

/// An inode's 256 bytes. Blocks for its attributes and places are written.
pub fn encode(
    blocks: &mut Blocks,
    kind: Type,
    links: u32,
    meta: &Meta,
    body: Body,
    xattrs: Stored,
) -> Outcome<[u8; INODE]> {
    const FLAG_EXTENTS: u32 = 0x8_0000;
    let mut raw = [0; INODE];
    let mut sectors = 0;
    let attributes = match xattrs.block {
        Some(block) => {
            sectors += BLOCK as u64 / 512;
            blocks.append(&block[..])?
        }
        None => 0,
    };
    let (size, flags) = match body {
        Body::Extents { size, extents } => {
            let content: u64 = extents.iter().map(|extent| u64::from(extent.length)).sum();
            let (root, tree) = extent_tree(blocks, &extents)?;
            raw[0x28..0x28 + BODY].copy_from_slice(&root);
            sectors += (content + tree) * (BLOCK as u64 / 512);
            (size, FLAG_EXTENTS)
        }
        Body::Inline { size, bytes } => {
            raw[0x28..0x28 + bytes.len()].copy_from_slice(&bytes);
            (size, 0)
        }
    };
    let mut put = |at: usize, bytes: &[u8]| raw[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x00, &(kind.bits() | meta.mode).to_le_bytes());
    put(0x02, &(meta.uid as u16).to_le_bytes());
    put(0x04, &(size as u32).to_le_bytes());
    let (seconds, extra) = time(meta.mtime);
    for field in [0x08, 0x0c, 0x10, 0x90] {
        put(field, &seconds.to_le_bytes());
    }
    for field in [0x84, 0x88, 0x8c, 0x94] {
        put(field, &extra.to_le_bytes());
    }
    put(0x18, &(meta.gid as u16).to_le_bytes());
    put(0x1a, &(links as u16).to_le_bytes());
    put(0x1c, &(sectors as u32).to_le_bytes());
    put(0x20, &flags.to_le_bytes());
    put(0x68, &attributes.to_le_bytes());
    put(0x6c, &((size >> 32) as u32).to_le_bytes());
    put(0x74, &((sectors >> 32) as u16).to_le_bytes());
    put(0x78, &((meta.uid >> 16) as u16).to_le_bytes());
    put(0x7a, &((meta.gid >> 16) as u16).to_le_bytes());
    put(0x80, &((FIELDS - 128) as u16).to_le_bytes());
    put(FIELDS, &xattrs.behind);
    Ok(raw)
}

/// Seconds in 34 bits from 1901 to 2446, the upper two with the nanoseconds.
fn time(time: Time) -> (u32, u32) {
    const FIRST: i64 = i32::MIN as i64;
    const LAST: i64 = FIRST + (1 << 34) - 1;
    let seconds = time.seconds.clamp(FIRST, LAST);
    let epoch = ((seconds - FIRST) >> 32) as u32;
    let nanoseconds = if seconds == time.seconds { time.nanoseconds } else { 0 };
    (seconds as u32, (nanoseconds << 2) | epoch)
}

/// One entry of a tree of extents: 12 bytes, and the block of the file that it begins with.
type Node = (u32, [u8; 12]);

/// Writes the tree of a file's extents. Returns the root, which lies in the inode, and how
/// many blocks the rest took.
fn extent_tree(blocks: &mut Blocks, extents: &[Extent]) -> Outcome<([u8; BODY], u64)> {
    const IN_INODE: usize = (BODY - 12) / 12;
    const IN_BLOCK: usize = (BLOCK - 12) / 12;
    let mut level: Vec<Node> = extents.iter().flat_map(|extent| leaves(*extent)).collect();
    let (mut depth, mut written) = (0, 0);
    while level.len() > IN_INODE {
        let mut upper = Vec::new();
        for nodes in level.chunks(IN_BLOCK) {
            let mut block = [0; BLOCK];
            node_list(&mut block, nodes, depth);
            let at = blocks.append(&block)?;
            written += 1;
            let first = nodes[0].0;
            let mut index = [0; 12];
            index[..4].copy_from_slice(&first.to_le_bytes());
            index[4..8].copy_from_slice(&at.to_le_bytes());
            upper.push((first, index));
        }
        level = upper;
        depth += 1;
    }
    let mut root = [0; BODY];
    node_list(&mut root, &level, depth);
    Ok((root, written))
}

/// An extent describes at most 32,768 blocks.
fn leaves(extent: Extent) -> impl Iterator<Item = Node> {
    const MOST: u32 = 32_768;
    (0..extent.length).step_by(MOST as usize).map(move |done| {
        let length = MOST.min(extent.length - done) as u16;
        let mut node = [0; 12];
        node[..4].copy_from_slice(&(extent.logical + done).to_le_bytes());
        node[4..6].copy_from_slice(&length.to_le_bytes());
        node[8..].copy_from_slice(&(extent.physical + done).to_le_bytes());
        (extent.logical + done, node)
    })
}

fn node_list(into: &mut [u8], nodes: &[Node], depth: u16) {
    const MAGIC: u16 = 0xf30a;
    let room = ((into.len() - 12) / 12) as u16;
    for (at, word) in [MAGIC, nodes.len() as u16, room, depth].into_iter().enumerate() {
        into[at * 2..at * 2 + 2].copy_from_slice(&word.to_le_bytes());
    }
    for (place, (_, node)) in into[12..].chunks_exact_mut(12).zip(nodes) {
        place.copy_from_slice(node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_from_1901_to_2446() {
        let of = |seconds, nanoseconds| time(Time { seconds, nanoseconds });
        assert_eq!(of(0, 5), (0, 20));
        assert_eq!(of(-1, 0), (u32::MAX, 0));
        assert_eq!(of(1 << 31, 1), (1 << 31, 5));
        assert_eq!(of(i64::MAX, 999), (0x7fff_ffff, 3));
        assert_eq!(of(i64::MIN, 999), (0x8000_0000, 0));
    }

    #[test]
    fn a_long_extent_is_several() {
        let nodes: Vec<_> = leaves(Extent { logical: 5, physical: 50, length: 70_000 }).collect();
        let firsts: Vec<_> = nodes.iter().map(|node| node.0).collect();
        assert_eq!(firsts, [5, 5 + 32_768, 5 + 65_536]);
    }
}
