//! Undoes the compressions that archives, kernels and modules come in.

use std::io::{self, BufReader, Cursor, ErrorKind, Read};

use ruzstd::decoding::FrameDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};

/// Memory for unpacking xz, in KiB: four times what `xz -9` needs.
const XZ_MEMORY_KIB: u32 = 256 * 1024;

/// Reads `from` uncompressed, whether it is gzip, xz, zstd or plain. What is cut off,
/// damaged, or followed by something else is an error.
pub fn plain<'a>(mut from: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut start = [0; 6];
    let have = fill(&mut from, &mut start)?;
    let all = Cursor::new(start).take(have as u64).chain(from);
    Ok(match &start[..have] {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(all)),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => {
            Box::new(lzma_rust2::XzReader::new_mem_limit(all, true, XZ_MEMORY_KIB))
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
            Box::new(Zstd::new(all))
        }
        [b'B', b'Z', b'h', ..] => {
            return Err(invalid("bzip2 is not among the compressions that are read"));
        }
        _ => Box::new(all),
    })
}

/// Reads until `into` is full or the input ends; returns how much there was.
pub fn fill(from: &mut impl Read, into: &mut [u8]) -> io::Result<usize> {
    let mut have = 0;
    while have < into.len() {
        match from.read(&mut into[have..]) {
            Ok(0) => break,
            Ok(n) => have += n,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(have)
}

/// All frames of a zstd stream (RFC 8878, section 3): parallel compressors write many, and
/// some put tables of contents into frames that are to be skipped.
struct Zstd<R: Read> {
    from: BufReader<R>,
    decoder: FrameDecoder,
    in_frame: bool,
}

impl<R: Read> Zstd<R> {
    fn new(from: R) -> Self {
        Self { from: BufReader::new(from), decoder: FrameDecoder::new(), in_frame: false }
    }

    /// Begins the next frame that has content. False at the end of the stream.
    fn next_frame(&mut self) -> io::Result<bool> {
        loop {
            let mut magic = [0; 4];
            match fill(&mut self.from, &mut magic)? {
                0 => return Ok(false),
                4 => {}
                _ => return Err(ErrorKind::UnexpectedEof.into()),
            }
            let mut frame = Cursor::new(magic).chain(&mut self.from);
            match self.decoder.init(&mut frame) {
                Ok(()) => {
                    self.in_frame = true;
                    return Ok(true);
                }
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let length = u64::from(length);
                    let skipped = io::copy(&mut (&mut self.from).take(length), &mut io::sink())?;
                    if skipped < length {
                        return Err(ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(e) => return Err(failed(&e)),
            }
        }
    }

    fn end_frame(&mut self) -> io::Result<()> {
        self.in_frame = false;
        let written = self.decoder.get_checksum_from_data();
        if written.is_some() && written != self.decoder.get_calculated_checksum() {
            return Err(invalid("zstd: the checksum is another"));
        }
        Ok(())
    }
}

impl<R: Read> Read for Zstd<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        use ruzstd::decoding::BlockDecodingStrategy::UptoBlocks;
        loop {
            if !self.in_frame && !self.next_frame()? {
                return Ok(0);
            }
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                self.decoder
                    .decode_blocks(&mut self.from, UptoBlocks(1))
                    .map_err(|e| failed(&e))?;
            }
            match self.decoder.read(into)? {
                0 if into.is_empty() => return Ok(0),
                0 if self.decoder.is_finished() => self.end_frame()?,
                n => return Ok(n),
            }
        }
    }
}

/// What the decoder ran into: the end of its input, or something that is no zstd.
fn failed(error: &FrameDecoderError) -> io::Error {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(e) = error.downcast_ref::<io::Error>() {
            return e.kind().into();
        }
        cause = error.source();
    }
    invalid(&format!("zstd: {error}"))
}

fn invalid(problem: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, problem)
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    fn read(input: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        plain(input)?.read_to_end(&mut out)?;
        Ok(out)
    }

    pub fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(bytes).unwrap();
        packer.finish().unwrap()
    }

    pub fn zstd(bytes: &[u8]) -> Vec<u8> {
        ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
    }

    #[test]
    fn gzip_and_plain_come_out_the_same() {
        for input in [gzip(b"root file system"), b"root file system".to_vec()] {
            assert_eq!(read(&input).unwrap(), b"root file system");
        }
    }

    #[test]
    fn every_frame_of_zstd_is_read_and_skippable_ones_are_skipped() {
        let skippable = b"\x5a\x2a\x4d\x18\x04\0\0\0abcd".to_vec();
        let (one, two) = (vec![1; 300_000], b"two".to_vec());
        let whole = [&skippable[..], &zstd(&one), &skippable, &zstd(&two), &skippable].concat();
        assert_eq!(read(&whole).unwrap(), [one, two].concat());
    }

    #[test]
    fn what_is_cut_off_is_an_error_at_every_byte() {
        for packed in [gzip(b"abc"), [zstd(b"abc"), zstd(b"defg")].concat()] {
            let border = zstd(b"abc").len();
            for length in 7..packed.len() {
                let frame_border = packed[0] == 0x28 && length == border;
                let error = read(&packed[..length]).err().map(|e| e.kind());
                let expected = (!frame_border).then_some(ErrorKind::UnexpectedEof);
                assert_eq!(error, expected, "{length}");
            }
        }
    }

    #[test]
    fn a_dictionary_larger_than_the_bound_is_refused() {
        // A block header (xz-file-format 1.2.1, section 3.1) that asks for 4 GiB - 1.
        let header = [&[0x02, 0x00, 0x21, 0x01, 40][..], &[0; 3]].concat();
        let mut crc = flate2::Crc::new();
        crc.update(&header);
        let stream = b"\xfd7zXZ\0\0\x01\x69\x22\xde\x36";
        let input = [&stream[..], &header, &crc.sum().to_le_bytes(), &[0; 64]].concat();
        let error = read(&input).unwrap_err();
        assert!(error.to_string().contains("memory"), "{error}");
    }

    proptest! {
        #[test]
        fn any_bytes_unpack_or_fail(bytes in prop::collection::vec(any::<u8>(), 0..300), magic in 0usize..5) {
            let magics: [&[u8]; 5] =
                [&[], &[0x1f, 0x8b], b"\xfd7zXZ\0", &[0x28, 0xb5, 0x2f, 0xfd], b"\x50\x2a\x4d\x18"];
            let _ = read(&[magics[magic], &bytes].concat());
        }

        #[test]
        fn frames_come_out_as_they_went_in(frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..5000), 1..5)) {
            let packed: Vec<u8> = frames.iter().flat_map(|frame| zstd(frame)).collect();
            prop_assert_eq!(read(&packed).unwrap(), frames.concat());
        }
    }
}
