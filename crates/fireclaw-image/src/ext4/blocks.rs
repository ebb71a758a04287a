//! The blocks of an image, written one after the other as content comes.
//!
//! Content goes to its final place at once: nothing is copied twice, and nothing but a
//! buffer is held. What describes it (inodes, directories, bitmaps) is written behind it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::FallocateFlags;

use super::{BLOCK, MAX_BLOCKS, RESERVED_BLOCKS};
use crate::problem::{Outcome, Problem, bad};
use crate::tree::Extent;

/// Written at once, in bytes.
const BUFFER: usize = 1 << 20;

/// Separate parts of all files together: 96 MiB of memory. A file has a part for each of its
/// holes, and one for 128 MiB.
const MAX_EXTENTS: u32 = 8 << 20;

/// The largest file: ext4 numbers the blocks of a file with 32 bits.
const MAX_FILE: u64 = (u32::MAX as u64) * BLOCK as u64;

/// An image's file while its blocks are written.
pub struct Blocks {
    file: File,
    next: u32,
    buffer: Vec<u8>,
    extents: u32,
}

impl Blocks {
    /// Begins behind the blocks that describe the file system.
    pub fn new(file: File) -> Self {
        Self { file, next: RESERVED_BLOCKS, buffer: Vec::with_capacity(BUFFER), extents: 0 }
    }

    /// The number of the next block.
    pub fn next(&self) -> u32 {
        self.next
    }

    /// Writes whole blocks and returns the number of the first.
    pub fn append(&mut self, bytes: &[u8]) -> Outcome<u32> {
        debug_assert!(bytes.len().is_multiple_of(BLOCK));
        let first = self.next;
        let count = (bytes.len() / BLOCK) as u32;
        if MAX_BLOCKS - first < count {
            let most = (u64::from(MAX_BLOCKS) * BLOCK as u64) >> 30;
            return bad(format!("its files take more than {most} GiB"));
        }
        if self.buffer.len() + bytes.len() > BUFFER {
            self.flush()?;
        }
        self.next += count;
        if bytes.len() >= BUFFER {
            self.write_at(bytes, first)?;
        } else {
            self.buffer.extend_from_slice(bytes);
        }
        Ok(first)
    }

    /// Writes out what is buffered.
    pub fn flush(&mut self) -> Outcome<()> {
        let first = self.next - (self.buffer.len() / BLOCK) as u32;
        let buffer = std::mem::take(&mut self.buffer);
        let written = self.write_at(&buffer, first);
        self.buffer = buffer;
        self.buffer.clear();
        written
    }

    /// Writes at a block that is not the next one.
    pub fn write_at(&mut self, bytes: &[u8], block: u32) -> Outcome<()> {
        self.file.write_all_at(bytes, u64::from(block) * BLOCK as u64).map_err(Problem::Write)
    }

    /// Gives blocks back to the host. A host's file system that cannot do that keeps them.
    pub fn punch(&self, extent: Extent) {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let at = |blocks: u32| u64::from(blocks) * BLOCK as u64;
        let _ = rustix::fs::fallocate(&self.file, flags, at(extent.physical), at(extent.length));
    }

    /// Sets the length of the file: the image ends with this many blocks.
    pub fn finish(&mut self, blocks: u32) -> Outcome<()> {
        self.flush()?;
        self.file.set_len(u64::from(blocks) * BLOCK as u64).map_err(Problem::Write)
    }

    /// Reads content back. Everything must have been flushed.
    pub fn reader(&self, size: u64, extents: Vec<Extent>) -> io::Result<Content> {
        Ok(Content { file: self.file.try_clone()?, size, extents, at: 0, next: 0 })
    }
}

/// Content of one file as it is written: whole blocks of zeros become holes.
pub struct Writer {
    extents: Vec<Extent>,
    size: u64,
    block: Box<[u8; BLOCK]>,
    /// Which block of the file `block` is.
    logical: u32,
    dirty: bool,
}

impl Writer {
    /// A file of this length.
    pub fn new(size: u64) -> Outcome<Self> {
        if size > MAX_FILE {
            return bad(format!(
                "a file in it has {size} bytes, and ext4 has no more than {MAX_FILE}"
            ));
        }
        let block = Box::new([0; BLOCK]);
        Ok(Self { extents: Vec::new(), size, block, logical: 0, dirty: false })
    }

    /// Writes at an offset that is not before what has been written.
    pub fn write(&mut self, blocks: &mut Blocks, mut offset: u64, mut bytes: &[u8]) -> Outcome<()> {
        while !bytes.is_empty() {
            // The reader of the archive keeps offsets within the size, and that is bounded.
            let logical = (offset / BLOCK as u64) as u32;
            let within = (offset % BLOCK as u64) as usize;
            if logical != self.logical {
                self.flush(blocks)?;
                self.logical = logical;
            }
            let take = bytes.len().min(BLOCK - within);
            let (now, rest) = bytes.split_at(take);
            if take == BLOCK {
                // `flush` left nothing of this block behind.
                self.store(blocks, logical, now)?;
            } else {
                self.block[within..within + take].copy_from_slice(now);
                self.dirty = true;
            }
            offset += take as u64;
            bytes = rest;
        }
        Ok(())
    }

    /// The places of the content.
    pub fn finish(mut self, blocks: &mut Blocks) -> Outcome<(u64, Vec<Extent>)> {
        self.flush(blocks)?;
        self.extents.shrink_to_fit();
        Ok((self.size, self.extents))
    }

    fn flush(&mut self, blocks: &mut Blocks) -> Outcome<()> {
        if self.dirty {
            let block = std::mem::replace(&mut self.block, Box::new([0; BLOCK]));
            self.dirty = false;
            self.store(blocks, self.logical, &block[..])?;
        }
        Ok(())
    }

    fn store(&mut self, blocks: &mut Blocks, logical: u32, block: &[u8]) -> Outcome<()> {
        if is_zero(block) {
            return Ok(());
        }
        let physical = blocks.append(block)?;
        match self.extents.last_mut() {
            Some(last)
                if last.logical + last.length == logical
                    && last.physical + last.length == physical =>
            {
                last.length += 1;
            }
            _ => {
                blocks.extents += 1;
                if blocks.extents > MAX_EXTENTS {
                    return bad(format!(
                        "its files have more than {MAX_EXTENTS} parts between holes"
                    ));
                }
                self.extents.push(Extent { logical, physical, length: 1 });
            }
        }
        Ok(())
    }
}

fn is_zero(block: &[u8]) -> bool {
    // Most blocks differ in their first bytes.
    block[..16].iter().all(|byte| *byte == 0) && block.chunks_exact(8).all(|word| *word == [0; 8])
}

/// Content of a file that is read back.
pub struct Content {
    file: File,
    size: u64,
    extents: Vec<Extent>,
    at: u64,
    /// The extent that is at, or the next behind, the place that is read.
    next: usize,
}

impl io::Read for Content {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.size - self.at).unwrap_or(usize::MAX).min(into.len());
        if most == 0 {
            return Ok(0);
        }
        let at = |blocks: u32| u64::from(blocks) * BLOCK as u64;
        while self.extents.get(self.next).is_some_and(|e| at(e.logical + e.length) <= self.at) {
            self.next += 1;
        }
        let n = match self.extents.get(self.next) {
            Some(extent) if at(extent.logical) <= self.at => {
                let within = self.at - at(extent.logical);
                let left = at(extent.length) - within;
                let most = usize::try_from(left).unwrap_or(usize::MAX).min(most);
                self.file.read_at(&mut into[..most], at(extent.physical) + within)?
            }
            hole_before => {
                let left = hole_before.map_or(self.size, |e| at(e.logical)) - self.at;
                let most = usize::try_from(left).unwrap_or(usize::MAX).min(most);
                into[..most].fill(0);
                most
            }
        };
        self.at += n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Read;

    #[test]
    fn files_beyond_the_bounds_are_refused() {
        assert!(Writer::new(MAX_FILE).is_ok());
        assert!(Writer::new(MAX_FILE + 1).is_err());
        let mut blocks = Blocks::new(tempfile::tempfile().unwrap());
        blocks.next = MAX_BLOCKS - 1;
        blocks.append(&[1; BLOCK]).unwrap();
        let error = blocks.append(&[1; BLOCK]).unwrap_err().to_string();
        assert!(error.contains("GiB"), "{error}");
    }

    proptest! {
        /// What is written in pieces is read back whole, and no block of zeros is stored.
        #[test]
        fn content_comes_back_with_its_holes(
            parts in prop::collection::vec((0u64..20_000, 0u8..3, 1usize..9000), 0..12), tail in 0u64..9000,
        ) {
            let mut blocks = Blocks::new(tempfile::tempfile().unwrap());
            let mut expected = Vec::new();
            let mut pieces = Vec::new();
            for (gap, byte, length) in parts {
                expected.resize(expected.len() + gap as usize, 0);
                pieces.push((expected.len() as u64, vec![byte; length]));
                expected.resize(expected.len() + length, byte);
            }
            expected.resize(expected.len() + tail as usize, 0);
            let mut writer = Writer::new(expected.len() as u64).unwrap();
            for (offset, piece) in &pieces {
                writer.write(&mut blocks, *offset, piece).unwrap();
            }
            let (size, extents) = writer.finish(&mut blocks).unwrap();
            blocks.flush().unwrap();
            let stored = expected.chunks(BLOCK).filter(|block| block.iter().any(|b| *b != 0)).count();
            prop_assert_eq!(extents.iter().map(|e| e.length as usize).sum::<usize>(), stored);
            let mut read = Vec::new();
            blocks.reader(size, extents).unwrap().read_to_end(&mut read).unwrap();
            prop_assert!(read == expected);
        }
    }
}
