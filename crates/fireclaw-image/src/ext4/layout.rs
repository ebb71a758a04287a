//! What lies around the content: the table of inodes, bitmaps, descriptors of groups, and
//! the superblock (Documentation/filesystems/ext4/super.rst, group_descr.rst).

use sha2::{Digest, Sha256};

use super::blocks::Blocks;
use super::{BLOCK, FIELDS, GROUP, INODE, MAX_GROUPS, RESERVED_BLOCKS};
use crate::problem::{Outcome, bad};
use crate::tree::Extent;

/// The size of a group's descriptor, in bytes.
pub const DESCRIPTOR: usize = 32;

/// The number of the root directory.
pub const ROOT_INODE: u32 = 2;

/// The first number that is not reserved.
pub const FIRST_INODE: u32 = 11;

const INODES_PER_BLOCK: u32 = (BLOCK / INODE) as u32;

/// The inodes in the order of their numbers. Those that are reserved are empty.
pub struct Table {
    raw: Vec<u8>,
    directories: Vec<u32>,
    used: u32,
}

impl Table {
    /// Room for so many.
    pub fn new(inodes: u32) -> Self {
        let mut raw = Vec::with_capacity((inodes + FIRST_INODE) as usize * INODE);
        raw.resize((FIRST_INODE - 1) as usize * INODE, 0);
        Self { raw, directories: Vec::new(), used: FIRST_INODE - 1 }
    }

    /// Adds the next one: first the root, then those that are not reserved.
    pub fn push(&mut self, inode: &[u8; INODE], is_directory: bool) {
        let is_root = self.directories.is_empty();
        let number = if is_root { ROOT_INODE } else { self.used + 1 };
        if is_directory {
            self.directories.push(number);
        }
        if is_root {
            let at = (ROOT_INODE - 1) as usize * INODE;
            self.raw[at..at + INODE].copy_from_slice(inode);
        } else {
            self.raw.extend_from_slice(inode);
            self.used += 1;
        }
    }
}

/// How the image is divided.
struct Plan {
    groups: u32,
    inodes_per_group: u32,
    /// The first block of the table of inodes; the bitmaps follow it.
    table: u32,
    /// All blocks of the image.
    total: u32,
}

impl Plan {
    /// Everything in groups, of which each has as many inodes. `next` is the first free
    /// block: what is written here needs groups too.
    fn new(next: u32, inodes: u32) -> Outcome<Self> {
        let mut groups = inodes.div_ceil(GROUP).max(1);
        while groups <= MAX_GROUPS {
            let inodes_per_group = inodes.div_ceil(groups).next_multiple_of(INODES_PER_BLOCK);
            let table_blocks = inodes_per_group / INODES_PER_BLOCK;
            let end = next + groups * (table_blocks + 2);
            if end.div_ceil(GROUP) <= groups {
                // Many empty files: more groups for inodes than for content.
                let total = if end > (groups - 1) * GROUP { end } else { groups * GROUP };
                return Ok(Self { groups, inodes_per_group, table: next, total });
            }
            groups += 1;
        }
        let most = u64::from(MAX_GROUPS) * u64::from(GROUP) * BLOCK as u64;
        bad(format!("its files take more than {} GiB", most >> 30))
    }

    fn table_blocks(&self) -> u32 {
        self.inodes_per_group / INODES_PER_BLOCK
    }

    fn block_bitmap(&self, group: u32) -> u32 {
        self.table + self.groups * self.table_blocks() + group
    }

    fn inode_bitmap(&self, group: u32) -> u32 {
        self.block_bitmap(group) + self.groups
    }

    fn end(&self) -> u32 {
        self.inode_bitmap(self.groups)
    }
}

/// Writes all that is missing. `dead` are blocks of content that nothing uses.
pub fn write(table: &Table, dead: &[Extent], blocks: &mut Blocks) -> Outcome<()> {
    blocks.flush()?;
    let plan = Plan::new(blocks.next(), table.used)?;
    let used_blocks = block_bits(&plan, dead);
    let used_inodes = inode_bits(&plan, table.used);
    let mut directories = vec![0u16; plan.groups as usize];
    for number in &table.directories {
        directories[((number - 1) / plan.inodes_per_group) as usize] += 1;
    }

    let mut padded = table.raw.len();
    blocks.write_at(&table.raw, plan.table)?;
    padded = padded.next_multiple_of(BLOCK);
    debug_assert!(padded / BLOCK <= (plan.groups * plan.table_blocks()) as usize);
    blocks.write_at(&used_blocks, plan.block_bitmap(0))?;
    blocks.write_at(&used_inodes, plan.inode_bitmap(0))?;

    let mut descriptors = Vec::new();
    let (mut free_blocks, mut free_inodes) = (0, 0);
    for group in 0..plan.groups {
        let at = group as usize * BLOCK..(group as usize + 1) * BLOCK;
        let (blocks_free, inodes_free) = (zeros(&used_blocks[at.clone()]), zeros(&used_inodes[at]));
        free_blocks += blocks_free;
        free_inodes += inodes_free;
        let mut raw = [0; DESCRIPTOR];
        let inodes_at = plan.table + group * plan.table_blocks();
        let places = [plan.block_bitmap(group), plan.inode_bitmap(group), inodes_at];
        for (at, place) in places.into_iter().enumerate() {
            raw[at * 4..at * 4 + 4].copy_from_slice(&place.to_le_bytes());
        }
        let counts = [blocks_free as u16, inodes_free as u16, directories[group as usize]];
        for (at, count) in counts.into_iter().enumerate() {
            raw[12 + at * 2..14 + at * 2].copy_from_slice(&count.to_le_bytes());
        }
        descriptors.extend(raw);
    }
    blocks.write_at(&descriptors, 1)?;
    blocks.write_at(&superblock(&plan, free_blocks, free_inodes, &table.raw), 0)?;
    blocks.finish(plan.total)
}

/// Bitmaps of all groups: set is used, and what is behind the end of the image.
fn block_bits(plan: &Plan, dead: &[Extent]) -> Vec<u8> {
    let mut bits = Bits::new(plan.groups as usize * BLOCK);
    bits.set(0..plan.end());
    bits.set(plan.total..plan.groups * GROUP);
    let descriptors = (plan.groups as usize * DESCRIPTOR).div_ceil(BLOCK) as u32;
    bits.clear(1 + descriptors..RESERVED_BLOCKS);
    for extent in dead {
        bits.clear(extent.physical..extent.physical + extent.length);
    }
    bits.0
}

/// The same for inodes, of which each group has fewer than its bitmap has bits.
fn inode_bits(plan: &Plan, used: u32) -> Vec<u8> {
    let mut bits = Bits::new(plan.groups as usize * BLOCK);
    for group in 0..plan.groups {
        let first = group * plan.inodes_per_group;
        let here = used.saturating_sub(first).min(plan.inodes_per_group);
        bits.set(group * GROUP..group * GROUP + here);
        bits.set(group * GROUP + plan.inodes_per_group..(group + 1) * GROUP);
    }
    bits.0
}

struct Bits(Vec<u8>);

impl Bits {
    fn new(bytes: usize) -> Self {
        Self(vec![0; bytes])
    }

    fn set(&mut self, range: std::ops::Range<u32>) {
        self.each(range, |byte, mask| *byte |= mask);
    }

    fn clear(&mut self, range: std::ops::Range<u32>) {
        self.each(range, |byte, mask| *byte &= !mask);
    }

    fn each(&mut self, range: std::ops::Range<u32>, change: impl Fn(&mut u8, u8)) {
        let mut at = range.start;
        while at < range.end {
            let byte = &mut self.0[(at / 8) as usize];
            if at.is_multiple_of(8) && range.end - at >= 8 {
                change(byte, 0xff);
                at += 8;
            } else {
                change(byte, 1 << (at % 8));
                at += 1;
            }
        }
    }
}

fn zeros(bits: &[u8]) -> u32 {
    bits.iter().map(|byte| byte.count_zeros()).sum()
}

/// The first block, with the superblock at its byte 1024.
fn superblock(plan: &Plan, free_blocks: u32, free_inodes: u32, table: &[u8]) -> [u8; BLOCK] {
    const MAGIC: u16 = 0xef53;
    const CLEAN: u16 = 1;
    const DYNAMIC: u32 = 1;
    /// Extended attributes; backups of this block in two groups, or as here in none.
    const COMPATIBLE: u32 = 0x8 | 0x200;
    /// Types in directories, extents, flexible groups.
    const INCOMPATIBLE: u32 = 0x2 | 0x40 | 0x200;
    /// Large files, many subdirectories, larger inodes.
    const READ_COMPATIBLE: u32 = 0x2 | 0x20 | 0x40;
    let mut block = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| {
        block[1024 + at..1024 + at + bytes.len()].copy_from_slice(bytes);
    };
    // The same archive gives the same image: the identity is made of what is in it.
    let identity = Sha256::digest(table);
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&identity[..16]);
    // RFC 9562, version 8.
    uuid[6] = (uuid[6] & 0x0f) | 0x80;
    uuid[8] = (uuid[8] & 0x3f) | 0x80;
    let words = [
        (0x00, plan.groups * plan.inodes_per_group),
        (0x04, plan.total),
        (0x0c, free_blocks),
        (0x10, free_inodes),
        // The size of blocks and of clusters, as 1024 shifted left by this.
        (0x18, 2),
        (0x1c, 2),
        (0x20, GROUP),
        (0x24, GROUP),
        (0x28, plan.inodes_per_group),
        (0x4c, DYNAMIC),
        (0x54, FIRST_INODE),
        (0x5c, COMPATIBLE),
        (0x60, INCOMPATIBLE),
        (0x64, READ_COMPATIBLE),
    ];
    for (at, word) in words {
        put(at, &word.to_le_bytes());
    }
    let extra = (FIELDS - 128) as u16;
    let halves = [
        // Never checked for the number of mounts.
        (0x36, u16::MAX),
        (0x38, MAGIC),
        (0x3a, CLEAN),
        // On errors: carry on.
        (0x3c, 1),
        (0x58, INODE as u16),
        (0x15c, extra),
        (0x15e, extra),
    ];
    for (at, half) in halves {
        put(at, &half.to_le_bytes());
    }
    put(0x68, &uuid);
    put(0x78, b"fireclaw");
    put(0xec, &uuid);
    // Groups of one flexible group, as a power of two.
    put(0x174, &[4]);
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_have_room_for_inodes_and_blocks() {
        let small = Plan::new(RESERVED_BLOCKS, 11).unwrap();
        assert_eq!((small.groups, small.inodes_per_group), (1, 16));
        let many = Plan::new(RESERVED_BLOCKS, 70_000).unwrap();
        assert_eq!((many.groups, many.total), (3, 3 * GROUP));
        let border = Plan::new(GROUP - 3, 11).unwrap();
        assert_eq!((border.groups, border.total), (1, GROUP));
        let over = Plan::new(GROUP - 2, 11).unwrap();
        assert_eq!((over.groups, over.total > GROUP), (2, true));
        assert!(Plan::new(MAX_GROUPS * GROUP - 1, 11).is_err());
    }

    #[test]
    fn bits_are_set_within_their_range_only() {
        for (from, to) in [(0, 0), (3, 4), (0, 8), (7, 25), (8, 24), (5, 64)] {
            let mut bits = Bits::new(8);
            bits.set(from..to);
            assert_eq!(zeros(&bits.0), 64 - (to - from));
            bits.clear(from..to);
            assert_eq!(zeros(&bits.0), 64);
        }
    }
}
