//! Undoes the compressions that kernels come in.

use std::io::{self, Read};

use lz4_flex::block::decompress_into;

use crate::plain::plain;

/// The largest kernel that is unpacked, in bytes.
const MAX: u64 = 512 * 1024 * 1024;

/// The block size of the legacy LZ4 format (doc/lz4_Frame_format.md of lz4).
const LZ4_BLOCK: usize = 8 * 1024 * 1024;

/// Unpacks a kernel's payload, which may have bytes after its end.
pub fn payload(packed: &[u8]) -> io::Result<Vec<u8>> {
    if let Some(blocks) = packed.strip_prefix(&[0x02, 0x21, 0x4c, 0x18]) {
        return lz4_legacy(blocks);
    }
    let mut out = Vec::new();
    let mut from = plain(packed)?.take(MAX);
    match from.read_to_end(&mut out) {
        // The kernel's build appends the unpacked length, which a reader of
        // several streams takes for the start of another.
        Err(_) if out.starts_with(b"\x7fELF") => Ok(out),
        Err(e) => Err(e),
        Ok(_) => Ok(out),
    }
}

fn lz4_legacy(mut blocks: &[u8]) -> io::Result<Vec<u8>> {
    let bad = |e: &dyn std::fmt::Display| io::Error::new(io::ErrorKind::InvalidData, e.to_string());
    let mut out = Vec::new();
    let mut block = vec![0; LZ4_BLOCK];
    // The four bytes at the end are the unpacked length, not a block.
    while let Some((length, rest)) = blocks.split_first_chunk::<4>()
        && !rest.is_empty()
    {
        let length = u32::from_le_bytes(*length) as usize;
        let packed = rest.get(..length).ok_or_else(|| bad(&"an LZ4 block is cut off"))?;
        let n = decompress_into(packed, &mut block).map_err(|e| bad(&e))?;
        out.extend_from_slice(&block[..n]);
        if out.len() as u64 > MAX {
            return Err(bad(&"it is too large"));
        }
        blocks = &rest[length..];
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn legacy_lz4_with_its_trailer() {
        let data = vec![7; 100_000];
        let block = lz4_flex::block::compress(&data);
        let mut file = vec![0x02, 0x21, 0x4c, 0x18];
        file.extend(u32::try_from(block.len()).unwrap().to_le_bytes());
        file.extend(&block);
        file.extend(100_000u32.to_le_bytes());
        assert_eq!(payload(&file).unwrap(), data);
        assert!(payload(&file[..file.len() / 2]).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_unpack_or_fail(bytes in prop::collection::vec(any::<u8>(), 0..300), magic in 0usize..5) {
            let magics: [&[u8]; 5] = [&[], &[0x1f, 0x8b], b"\xfd7zXZ\0", &[0x28, 0xb5, 0x2f, 0xfd], &[2, 0x21, 0x4c, 0x18]];
            let _ = payload(&[magics[magic], &bytes].concat());
        }
    }
}
