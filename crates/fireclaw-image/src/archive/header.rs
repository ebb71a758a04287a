//! One header block of a tar archive: POSIX ustar, GNU, or the old one of version 7.

use crate::problem::{Outcome, bad, shown};

/// The unit of tar archives, in bytes.
pub const BLOCK: usize = 512;

/// What a header block says, before extended headers change it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    pub path: Vec<u8>,
    pub link: Vec<u8>,
    pub kind: u8,
    pub mode: u16,
    pub uid: i64,
    pub gid: i64,
    pub size: u64,
    pub mtime: i64,
    pub device: (u32, u32),
}

impl Header {
    /// Reads a header; `None` for the block of zeros that ends an archive.
    pub fn parse(block: &[u8; BLOCK]) -> Outcome<Option<Self>> {
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        check_sum(block)?;
        let posix = block[257..263] == *b"ustar\0";
        let mut path = text(&block[..100]).to_vec();
        // The old GNU format has other things where POSIX has the start of the path.
        let prefix = text(&block[345..500]);
        if posix && !prefix.is_empty() {
            path = [prefix, b"/", &path].concat();
        }
        let field = |name, from: usize, to: usize| {
            number(&block[from..to])
                .map_or_else(|| bad(format!("{}: its {name} is no number", shown(&path))), Ok)
        };
        let kind = block[156];
        let is_device = matches!(kind, b'3' | b'4');
        let device = |name, from, to| match is_device {
            true => field(name, from, to).map(|number| u32::try_from(number).unwrap_or(u32::MAX)),
            false => Ok(0),
        };
        let Ok(size) = u64::try_from(field("size", 124, 136)?) else {
            return bad(format!("{}: its size is negative", shown(&path)));
        };
        Ok(Some(Self {
            kind,
            mode: (field("mode", 100, 108)? & 0o7777) as u16,
            uid: field("owner", 108, 116)?,
            gid: field("group", 116, 124)?,
            size,
            mtime: field("time", 136, 148)?,
            device: (device("device", 329, 337)?, device("device", 337, 345)?),
            link: text(&block[157..257]).to_vec(),
            path,
        }))
    }
}

/// The sum of all bytes with the field of the sum itself as spaces. Some old archivers
/// took bytes as signed.
fn check_sum(block: &[u8; BLOCK]) -> Outcome<()> {
    let bytes = || block[..148].iter().chain(b"        ").chain(&block[156..]);
    let unsigned: i64 = bytes().map(|byte| i64::from(*byte)).sum();
    let signed: i64 = bytes().map(|byte| i64::from(byte.cast_signed())).sum();
    match number(&block[148..156]) {
        Some(sum) if sum == unsigned || sum == signed => Ok(()),
        _ => bad("it is no tar archive, or damaged: a header's sum does not match"),
    }
}

/// A field up to its first zero byte.
fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A number in octal, or in base 256 if the first bit is set. An empty field is how some
/// archivers write zero.
pub fn number(field: &[u8]) -> Option<i64> {
    let (first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        // Two's complement over the whole field without its first bit.
        let start = if first & 0x40 != 0 { -1 } else { 0 };
        let start: i64 = (start << 6) | i64::from(first & 0x3f);
        return rest
            .iter()
            .try_fold(start, |sum, byte| sum.checked_mul(256)?.checked_add(i64::from(*byte)));
    }
    let digits = text(field).trim_ascii();
    digits.iter().try_fold(0i64, |sum, digit| match digit {
        b'0'..=b'7' => sum.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_in_both_bases() {
        assert_eq!(number(b"0000755\0"), Some(0o755));
        assert_eq!(number(b"  755 \0\0"), Some(0o755));
        assert_eq!(number(&[0; 8]), Some(0));
        assert_eq!(number(b"\x80\0\0\0\0\0\x01\0"), Some(256));
        assert_eq!(number(&[0xff; 12]), Some(-1));
        assert_eq!(number(b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), None);
        assert_eq!(number(b"0000789\0"), None);
        assert_eq!(number(b"-1\0\0\0\0\0\0"), None);
    }

    proptest! {
        #[test]
        fn a_header_is_read_as_it_was_written(
            name in "[a-z/]{1,99}", mode in 0u32..0o10000, uid in 0u64..1 << 40,
            size in 0u64..1 << 50, mtime in 0u64..1 << 33,
        ) {
            let mut header = tar::Header::new_gnu();
            header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(tar::EntryType::Regular);
            header.set_mode(mode);
            header.set_uid(uid);
            header.set_gid(7);
            header.set_size(size);
            header.set_mtime(mtime);
            header.set_cksum();
            let read = Header::parse(header.as_bytes()).unwrap().unwrap();
            prop_assert_eq!(read.path, name.into_bytes());
            prop_assert_eq!(u32::from(read.mode), mode);
            prop_assert_eq!(read.uid.cast_unsigned(), uid);
            prop_assert_eq!((read.size, read.mtime.cast_unsigned()), (size, mtime));
        }

        #[test]
        fn any_block_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), BLOCK), fix in any::<bool>()) {
            let mut header = tar::Header::new_old();
            header.as_mut_bytes().copy_from_slice(&bytes);
            if fix {
                header.set_cksum();
            }
            let _ = Header::parse(header.as_bytes());
        }
    }
}
