//! Directories as they lie on disk: a list of names in blocks
//! (Documentation/filesystems/ext4/directory.rst, "Linear (Classic) Directories").

use super::BLOCK;
use super::inode::Type;

/// A list that grows by names.
pub struct Names {
    bytes: Vec<u8>,
    /// Where the last entry begins.
    last: usize,
}

impl Names {
    /// A list with the directory itself and the one above it.
    pub fn new(own: u32, parent: u32) -> Self {
        let mut names = Self { bytes: Vec::with_capacity(BLOCK), last: 0 };
        names.push(own, b".", Type::Directory);
        names.push(parent, b"..", Type::Directory);
        names
    }

    /// Adds a name of at most 255 bytes.
    pub fn push(&mut self, inode: u32, name: &[u8], kind: Type) {
        let length = (8 + name.len()).next_multiple_of(4);
        let within = self.bytes.len() % BLOCK;
        // No entry crosses the end of a block: the last one before it is stretched.
        if within + length > BLOCK {
            self.stretch();
        }
        self.last = self.bytes.len();
        self.bytes.extend(inode.to_le_bytes());
        self.bytes.extend((length as u16).to_le_bytes());
        self.bytes.push(name.len() as u8);
        self.bytes.push(kind.in_directory());
        self.bytes.extend(name);
        self.bytes.resize(self.last + length, 0);
    }

    /// The whole blocks.
    pub fn finish(mut self) -> Vec<u8> {
        self.stretch();
        self.bytes
    }

    fn stretch(&mut self) {
        let end = self.bytes.len().next_multiple_of(BLOCK);
        let length = (end - self.last) as u16;
        self.bytes[self.last + 4..self.last + 6].copy_from_slice(&length.to_le_bytes());
        self.bytes.resize(end, 0);
    }
}
