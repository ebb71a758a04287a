//! Writes a tree as an ext4 image that is only ever read.
//!
//! There is no journal and no room to grow. Content lies in front, in the order of the
//! archive; inodes, bitmaps and all that describes it lie behind, in one piece, which the
//! flexible block groups of ext4 allow.

mod blocks;
mod directory;
mod inode;
mod layout;
#[cfg(test)]
pub mod read_back;
mod xattr;

use std::collections::VecDeque;

pub use blocks::{Blocks, Writer};
use directory::Names;
use inode::{BODY, Body, Type};
use layout::FIRST_INODE;
pub use xattr::kept as keeps_xattr;

use crate::problem::Outcome;
use crate::tree::{Extent, Id, Inode, Kind, MAX_NAME, ROOT, Tree};

/// The size of a block, in bytes.
pub const BLOCK: usize = 4096;

/// The size of an inode, in bytes.
const INODE: usize = 256;

/// What of it fields take: 128 bytes, and 32 more for finer and later times.
const FIELDS: usize = 160;

/// The blocks of one group: what a bitmap of one block has bits for.
const GROUP: u32 = 8 * BLOCK as u32;

/// Groups at most: images have up to 256 GiB.
const MAX_GROUPS: u32 = 2048;

/// The blocks of the largest image. What comes behind the content has room above it.
const MAX_BLOCKS: u32 = MAX_GROUPS * GROUP;

/// In front of all content: the superblock and room for the descriptors of all groups. What
/// of it is not used is marked free.
const RESERVED_BLOCKS: u32 = 1 + MAX_GROUPS * layout::DESCRIPTOR as u32 / BLOCK as u32;

/// Writes everything about `tree`, whose content is already in `blocks`.
pub fn write(tree: &Tree, blocks: &mut Blocks) -> Outcome<()> {
    let numbered = Numbered::new(tree);
    let mut table = layout::Table::new(numbered.order.len() as u32);
    for id in &numbered.order {
        let inode = tree.inode(*id);
        let raw = numbered.encode(*id, inode, blocks)?;
        table.push(&raw, inode.entries().is_some());
    }
    for extent in tree.dead() {
        blocks.punch(*extent);
    }
    layout::write(&table, tree.dead(), blocks)
}

/// The inodes that have names, with their numbers on disk.
struct Numbered<'a> {
    tree: &'a Tree,
    order: Vec<Id>,
    numbers: Vec<u32>,
    /// A name of each, for messages.
    names: Vec<&'a [u8]>,
}

impl<'a> Numbered<'a> {
    /// Directory by directory, so that what is looked at together lies together.
    fn new(tree: &'a Tree) -> Self {
        let mut numbers = vec![0; tree.count()];
        let mut names = vec![&b"/"[..]; tree.count()];
        let mut order = vec![ROOT];
        let mut directories = VecDeque::from([ROOT]);
        numbers[ROOT as usize] = layout::ROOT_INODE;
        while let Some(directory) = directories.pop_front() {
            for (name, entry) in tree.inode(directory).entries().into_iter().flatten() {
                let number = &mut numbers[entry.id as usize];
                if *number != 0 {
                    continue;
                }
                // The root comes first and has a number of its own.
                *number = FIRST_INODE + order.len() as u32 - 1;
                names[entry.id as usize] = name;
                order.push(entry.id);
                if tree.inode(entry.id).entries().is_some() {
                    directories.push_back(entry.id);
                }
            }
        }
        Self { tree, order, numbers, names }
    }

    fn number(&self, id: Id) -> u32 {
        self.numbers[id as usize]
    }

    fn encode(&self, id: Id, inode: &Inode, blocks: &mut Blocks) -> Outcome<[u8; INODE]> {
        let mut links = inode.links;
        let body = match &inode.kind {
            Kind::File { size, extents } => Body::Extents { size: *size, extents: extents.clone() },
            Kind::Link(target) if target.len() < BODY => {
                Body::Inline { size: target.len() as u64, bytes: target.to_vec() }
            }
            Kind::Link(target) => {
                let mut block = target.to_vec();
                block.resize(BLOCK, 0);
                let extents = whole(blocks, &block)?;
                Body::Extents { size: target.len() as u64, extents }
            }
            Kind::Directory { parent, entries } => {
                let mut names = Names::new(self.number(id), self.number(*parent));
                links = 2;
                for (name, entry) in entries {
                    let kind = kind(self.tree.inode(entry.id));
                    links += u32::from(kind == Type::Directory);
                    names.push(self.number(entry.id), name, kind);
                }
                // With more, ext4 does not count (`dir_nlink`).
                if links > crate::tree::MAX_LINKS {
                    links = 1;
                }
                let bytes = names.finish();
                let extents = whole(blocks, &bytes)?;
                Body::Extents { size: bytes.len() as u64, extents }
            }
            Kind::Character(major, minor) | Kind::Block(major, minor) => {
                Body::Inline { size: 0, bytes: device(*major, *minor) }
            }
            Kind::Fifo => Body::Inline { size: 0, bytes: Vec::new() },
        };
        let name = self.names[id as usize];
        let xattrs = xattr::store(name, &inode.meta.xattrs, xattr::ROOM)?;
        inode::encode(blocks, kind(inode), links, &inode.meta, body, xattrs)
    }
}

fn kind(inode: &Inode) -> Type {
    match inode.kind {
        Kind::Directory { .. } => Type::Directory,
        Kind::File { .. } => Type::File,
        Kind::Link(_) => Type::Link,
        Kind::Character(..) => Type::Character,
        Kind::Block(..) => Type::Block,
        Kind::Fifo => Type::Fifo,
    }
}

fn whole(blocks: &mut Blocks, bytes: &[u8]) -> Outcome<Vec<Extent>> {
    let length = (bytes.len() / BLOCK) as u32;
    let physical = blocks.append(bytes)?;
    Ok(vec![Extent { logical: 0, physical, length }])
}

/// The number of a device in the form that has room for it: 8 bits each, or 12 and 20.
fn device(major: u32, minor: u32) -> Vec<u8> {
    if major < 256 && minor < 256 {
        ((major << 8) | minor).to_le_bytes().to_vec()
    } else {
        let new = (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12);
        [[0; 4], new.to_le_bytes()].concat()
    }
}

/// Whether a device's number can be stored.
pub fn device_fits(major: u32, minor: u32) -> bool {
    major < 1 << 12 && minor < 1 << 20
}
