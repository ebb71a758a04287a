//! Maps of sparse files: which parts of a file are in the archive, the rest being holes.

use super::header::{BLOCK, number};
use super::pax::{Records, decimal};
use crate::problem::{Outcome, bad};

/// A part of a file that is in the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    pub offset: u64,
    pub length: u64,
}

/// Parts of one file at most: a map of them takes 16 MiB of memory.
pub const MAX_SEGMENTS: usize = 1 << 20;

/// A map that is being read.
#[derive(Debug, Default)]
pub struct Map {
    segments: Vec<Segment>,
}

impl Map {
    /// The map of a whole file.
    pub fn whole(size: u64) -> Self {
        Self { segments: vec![Segment { offset: 0, length: size }] }
    }

    /// Adds a part, which must come after the last one.
    pub fn push(&mut self, offset: u64, length: u64) -> Outcome<()> {
        if self.segments.len() == MAX_SEGMENTS {
            return bad(format!("a sparse file has more than {MAX_SEGMENTS} parts"));
        }
        let free =
            self.segments.last().map_or(Some(0), |last| last.offset.checked_add(last.length));
        if free.is_none_or(|free| offset < free) || offset.checked_add(length).is_none() {
            return bad("the parts of a sparse file overlap");
        }
        self.segments.push(Segment { offset, length });
        Ok(())
    }

    /// The parts, if they lie within `size` and `stored` bytes are just enough for them.
    pub fn finish(self, size: u64, stored: u64) -> Outcome<Vec<Segment>> {
        let end = self.segments.last().map_or(0, |last| last.offset + last.length);
        // None overlaps another, so the sum is not larger than the end.
        let sum: u64 = self.segments.iter().map(|segment| segment.length).sum();
        if end > size || sum != stored {
            return bad("the map of a sparse file does not match its size");
        }
        Ok(self.segments)
    }

    /// Adds the entries of an old GNU header or of a block that continues it: pairs of 12
    /// bytes each. Returns whether another block follows.
    pub fn add_old_gnu(&mut self, entries: &[u8], follows: u8) -> Outcome<bool> {
        for entry in entries.chunks_exact(24) {
            if entry[0] == 0 && entry[12] == 0 {
                break;
            }
            match (number(&entry[..12]), number(&entry[12..])) {
                (Some(offset @ 0..), Some(length @ 0..)) => {
                    self.push(offset.cast_unsigned(), length.cast_unsigned())?;
                }
                _ => return bad("the map of a sparse file has something that is no number"),
            }
        }
        Ok(follows != 0)
    }

    /// The map of GNU's pax formats 0.0 and 0.1: `offset,length,offset,length…`.
    pub fn of_pax(records: &Records) -> Outcome<Option<Self>> {
        let Some(text) = records.get("GNU.sparse.map") else { return Ok(None) };
        let mut map = Self::default();
        let mut numbers = text.split(|byte| *byte == b',').map(decimal);
        while let Some(offset) = numbers.next() {
            match (offset, numbers.next().flatten()) {
                (Some(offset), Some(length)) => map.push(offset, length)?,
                _ => return bad("the map of a sparse file has something that is no number"),
            }
        }
        Ok(Some(map))
    }

    /// The map of GNU's pax format 1.0, which is in front of the content: lines of digits,
    /// padded to whole blocks. Returns how many bytes it took.
    pub fn of_content(mut block: impl FnMut() -> Outcome<[u8; BLOCK]>) -> Outcome<(Self, u64)> {
        const MAX_DIGITS: usize = 20;
        let mut map = Self::default();
        let (mut blocks, mut line, mut rest) = (0u64, Vec::new(), [0u8; BLOCK].into_iter());
        let _ = rest.by_ref().count();
        let mut number = || -> Outcome<u64> {
            line.clear();
            loop {
                let Some(byte) = rest.next() else {
                    rest = block()?.into_iter();
                    blocks += 1;
                    continue;
                };
                if byte == b'\n' {
                    break;
                }
                line.push(byte);
                if line.len() > MAX_DIGITS {
                    break;
                }
            }
            decimal(&line)
                .map_or_else(|| bad("the map of a sparse file has something that is no number"), Ok)
        };
        for _ in 0..number()? {
            let (offset, length) = (number()?, number()?);
            map.push(offset, length)?;
        }
        Ok((map, blocks * BLOCK as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of_content(text: &[u8]) -> Outcome<(Map, u64)> {
        let mut blocks = text.chunks(BLOCK).map(|chunk| {
            let mut block = [0; BLOCK];
            block[..chunk.len()].copy_from_slice(chunk);
            block
        });
        Map::of_content(|| blocks.next().map_or_else(|| bad("end"), Ok))
    }

    #[test]
    fn a_map_in_front_of_the_content() {
        let (map, took) = of_content(b"2\n0\n5\n4096\n7\n").unwrap();
        assert_eq!(took, 512);
        let segments = map.finish(5000, 12).unwrap();
        assert_eq!(segments[1], Segment { offset: 4096, length: 7 });
        for bad in [&b"2\n0\n5\n"[..], b"x\n", b"1\n-1\n5\n", &[b'1'; 600], b"2\n5\n5\n0\n1\n"] {
            assert!(of_content(bad).is_err());
        }
    }

    #[test]
    fn a_map_matches_its_size() {
        let map = || {
            let mut map = Map::default();
            map.push(10, 10).unwrap();
            map
        };
        map().finish(20, 10).unwrap();
        assert!(map().finish(19, 10).is_err());
        assert!(map().finish(20, 11).is_err());
        assert!(map().push(19, 1).is_err());
        assert!(map().push(u64::MAX, 1).is_err());
    }

    proptest! {
        #[test]
        fn any_map_is_in_order_or_refused(parts in prop::collection::vec((0u64..200, 0u64..50), 0..20)) {
            let mut map = Map::default();
            let accepted = parts.iter().try_for_each(|(offset, length)| map.push(*offset, *length)).is_ok();
            let ordered = parts.windows(2).all(|w| w[0].0 + w[0].1 <= w[1].0);
            prop_assert_eq!(accepted, ordered);
        }
    }
}
