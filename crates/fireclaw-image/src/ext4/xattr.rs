//! Extended attributes as ext4 stores them: behind the inode, or in a block of their own
//! (Documentation/filesystems/ext4/attributes.rst).

use super::{BLOCK, FIELDS, INODE};
use crate::problem::{Outcome, bad, shown};

const MAGIC: u32 = 0xea02_0000;

/// An attribute with its name's prefix as a number.
struct Attribute<'a> {
    index: u8,
    name: &'a [u8],
    value: Vec<u8>,
}

/// Prefixes of names that ext4 has numbers for, the longer ones first.
const PREFIXES: [(&[u8], u8); 6] = [
    (b"system.posix_acl_access", 2),
    (b"system.posix_acl_default", 3),
    (b"user.", 1),
    (b"trusted.", 4),
    (b"security.", 6),
    (b"system.", 7),
];

/// The attributes of an archive that an image keeps. Left out are those that Linux cannot
/// hold (other systems' name spaces), and those that the guest's own overlay would take for
/// its own.
pub fn kept(name: &[u8]) -> bool {
    split(name).is_some() && !name.starts_with(b"trusted.overlay.")
}

fn split(name: &[u8]) -> Option<(u8, &[u8])> {
    PREFIXES.iter().find_map(|(prefix, index)| {
        let rest = name.strip_prefix(*prefix)?;
        let whole = !prefix.ends_with(b".");
        // A prefix that is a whole name has nothing behind it, and every other has.
        (rest.is_empty() == whole && !rest.contains(&0)).then_some((*index, rest))
    })
}

/// The two places where attributes lie.
#[derive(Default)]
pub struct Stored {
    /// What comes behind the fields of the inode; empty if there is nothing.
    pub behind: Vec<u8>,
    /// A block of their own.
    pub block: Option<Box<[u8; BLOCK]>>,
}

/// Lays attributes out; `room` bytes are free behind the inode.
pub fn store(path: &[u8], xattrs: &[(Vec<u8>, Vec<u8>)], room: usize) -> Outcome<Stored> {
    let mut attributes = Vec::new();
    for (name, value) in xattrs {
        let Some((index, rest)) = split(name) else { continue };
        if rest.len() > super::MAX_NAME {
            return bad(format!("{}: the name of an extended attribute is too long", shown(path)));
        }
        let value = match index {
            2 | 3 => match access_list(value) {
                Some(list) => list,
                None => {
                    return bad(format!("{}: its access control list is malformed", shown(path)));
                }
            },
            _ => value.clone(),
        };
        attributes.push(Attribute { index, name: rest, value });
    }
    if attributes.is_empty() {
        return Ok(Stored::default());
    }
    // In this order the kernel looks for them.
    attributes.sort_by_key(|a| (a.index, a.name.len(), a.name));
    let mut behind = vec![0; room];
    if fill(&mut behind, 4, 4, &attributes).is_some() {
        behind[..4].copy_from_slice(&MAGIC.to_le_bytes());
        return Ok(Stored { behind, block: None });
    }
    let mut block = Box::new([0; BLOCK]);
    let Some(hash) = fill(&mut block[..], 32, 0, &attributes) else {
        return bad(format!(
            "{}: its extended attributes take more than {BLOCK} bytes",
            shown(path)
        ));
    };
    // Magic, reference count, number of blocks, hash.
    for (at, word) in [MAGIC, 1, 1, hash].into_iter().enumerate() {
        block[at * 4..at * 4 + 4].copy_from_slice(&word.to_le_bytes());
    }
    Ok(Stored { behind: Vec::new(), block: Some(block) })
}

/// Writes entries from `start` on and values from the end back; offsets of values count from
/// `base`. Returns the hash of all, or `None` if they do not fit.
fn fill(area: &mut [u8], start: usize, base: usize, attributes: &[Attribute]) -> Option<u32> {
    let (mut at, mut end, mut all) = (start, area.len() - area.len() % 4, 0u32);
    let mut unhashed = false;
    for Attribute { index, name, value } in attributes {
        let entry = (16 + name.len()).next_multiple_of(4);
        let room = value.len().next_multiple_of(4);
        // Four bytes of zeros end the list.
        if at + entry + 4 + room > end {
            return None;
        }
        end -= room;
        area[end..end + value.len()].copy_from_slice(value);
        let hash = hash(name, value);
        area[at] = name.len() as u8;
        area[at + 1] = *index;
        let offset = if value.is_empty() { 0 } else { (end - base) as u16 };
        area[at + 2..at + 4].copy_from_slice(&offset.to_le_bytes());
        area[at + 8..at + 12].copy_from_slice(&(value.len() as u32).to_le_bytes());
        area[at + 12..at + 16].copy_from_slice(&hash.to_le_bytes());
        area[at + 16..at + 16 + name.len()].copy_from_slice(name);
        at += entry;
        all = all.rotate_left(16) ^ hash;
        unhashed |= hash == 0;
    }
    Some(if unhashed { 0 } else { all })
}

/// `ext4_xattr_hash_entry`, with bytes signed as on x86.
fn hash(name: &[u8], value: &[u8]) -> u32 {
    let hash = name.iter().fold(0u32, |hash, byte| {
        hash.rotate_left(5) ^ i32::from(byte.cast_signed()).cast_unsigned()
    });
    value.chunks(4).fold(hash, |hash, chunk| {
        let mut word = [0; 4];
        word[..chunk.len()].copy_from_slice(chunk);
        hash.rotate_left(16) ^ u32::from_le_bytes(word)
    })
}

/// An access control list as the kernel shows it (version 2, ids for all) in ext4's own form
/// (version 1, ids only where there is somebody).
fn access_list(shown: &[u8]) -> Option<Vec<u8>> {
    const VERSION_SHOWN: [u8; 4] = 2u32.to_le_bytes();
    const USER: u16 = 0x02;
    const GROUP: u16 = 0x08;
    const OTHERS: [u16; 4] = [0x01, 0x04, 0x10, 0x20];
    let mut stored = 1u32.to_le_bytes().to_vec();
    let entries = shown.strip_prefix(&VERSION_SHOWN)?;
    if !entries.len().is_multiple_of(8) {
        return None;
    }
    for entry in entries.chunks_exact(8) {
        let tag = u16::from_le_bytes([entry[0], entry[1]]);
        stored.extend(&entry[..4]);
        match tag {
            USER | GROUP => stored.extend(&entry[4..8]),
            tag if OTHERS.contains(&tag) => {}
            _ => return None,
        }
    }
    Some(stored)
}

/// What is free behind an inode's fields.
pub const ROOM: usize = INODE - FIELDS;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_what_linux_holds_is_kept() {
        for name in ["user.a", "security.capability", "system.posix_acl_access", "trusted.x"] {
            assert!(kept(name.as_bytes()), "{name}");
        }
        for name in ["com.apple.x", "user.", "system.posix_acl_accessx\0", "trusted.overlay.opaque"]
        {
            assert!(!kept(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn a_capability_fits_behind_the_inode() {
        let xattrs = [(b"security.capability".to_vec(), vec![1; 20])];
        let stored = store(b"x", &xattrs, ROOM).unwrap();
        assert!(stored.block.is_none() && stored.behind.len() == ROOM);
        let large = [(b"user.large".to_vec(), vec![1; 3000])];
        assert!(store(b"x", &large, ROOM).unwrap().block.is_some());
        let larger = [(b"user.large".to_vec(), vec![1; 5000])];
        assert!(store(b"x", &larger, ROOM).is_err());
    }

    #[test]
    fn access_lists_lose_the_ids_of_nobody() {
        let nobody = [0xff; 4];
        let shown = [&[2, 0, 0, 0, 1, 0, 7, 0][..], &nobody, &[2, 0, 4, 0, 232, 3, 0, 0]].concat();
        assert_eq!(
            access_list(&shown).unwrap(),
            [1, 0, 0, 0, 1, 0, 7, 0, 2, 0, 4, 0, 232, 3, 0, 0]
        );
        assert!(access_list(&shown[..9]).is_none());
        assert!(access_list(b"").is_none());
    }

    proptest! {
        #[test]
        fn any_attributes_fit_or_are_refused(
            xattrs in prop::collection::vec(("(user|security|system|trusted)\\.[a-z_]{0,300}", prop::collection::vec(any::<u8>(), 0..2000)), 0..8)
        ) {
            let xattrs: Vec<_> = xattrs.into_iter().map(|(n, v)| (n.into_bytes(), v)).collect();
            let _ = store(b"x", &xattrs, ROOM);
        }
    }
}
