//! Lines out of a stream of bytes, with a bound on what waits.

use crate::message::{MAX_LINE_LEN, MAX_TAGS_LEN};

/// Collects bytes until a line is whole. A line longer than the protocol allows
/// is thrown away as it comes.
#[derive(Debug, Default)]
pub(super) struct LineBuffer {
    part: Vec<u8>,
    skipping: bool,
}

impl LineBuffer {
    /// The most that is kept, in bytes.
    const MAX: usize = MAX_TAGS_LEN + MAX_LINE_LEN;

    /// Takes what came and calls `each` for every line that is whole now,
    /// without CR and LF, but for empty ones.
    pub fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8])) {
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            if self.part.len() + piece.len() > Self::MAX {
                self.skipping = true;
                self.part.clear();
            }
            if !self.skipping {
                self.part.extend_from_slice(piece);
            }
            if piece.ends_with(b"\n") {
                while self.part.pop_if(|b| matches!(b, b'\r' | b'\n')).is_some() {}
                if !self.skipping && !self.part.is_empty() {
                    each(&self.part);
                }
                self.part.clear();
                self.skipping = false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(chunks: &[&[u8]]) -> Vec<String> {
        let mut buffer = LineBuffer::default();
        let mut lines = Vec::new();
        for chunk in chunks {
            buffer.feed(chunk, |line| lines.push(String::from_utf8_lossy(line).into_owned()));
            assert!(buffer.part.len() <= LineBuffer::MAX);
        }
        lines
    }

    #[test]
    fn lines_in_pieces() {
        assert_eq!(lines(&[b"PI", b"NG a\r", b"\nPONG b \n\r\n\nlast"]), ["PING a", "PONG b "]);
    }

    #[test]
    fn endless_lines_are_thrown_away() {
        let long = vec![b'x'; 100_000];
        assert_eq!(lines(&[&long, &long, b"x\nPING a\n"]), ["PING a"]);
        assert_eq!(lines(&[&[&long[..], b"\nPING a\n"].concat()]), ["PING a"]);
    }

    proptest! {
        #[test]
        fn the_pieces_do_not_matter(bytes in "[ab\r\n]{0,60}", cuts in prop::collection::vec(1_usize..9, 60)) {
            let mut rest = bytes.as_bytes();
            let mut chunks = Vec::new();
            for cut in cuts {
                let (chunk, after) = rest.split_at(cut.min(rest.len()));
                chunks.push(chunk);
                rest = after;
            }
            chunks.push(rest);
            prop_assert_eq!(lines(&chunks), lines(&[bytes.as_bytes()]));
        }
    }
}
