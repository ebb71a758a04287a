//! Lines out of a stream of bytes, with a bound on what is kept.

use std::io;

use fireclaw_protocol::agent::MAX_LINE;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

/// A line of the input.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// Without its end.
    Whole(Vec<u8>),
    /// Longer than [`MAX_LINE`], and thrown away.
    TooLong,
}

/// Reads lines.
pub struct Lines<R> {
    input: BufReader<R>,
    part: Vec<u8>,
    skipping: bool,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub fn new(input: R) -> Self {
        Self { input: BufReader::new(input), part: Vec::new(), skipping: false }
    }

    /// The next line, or nothing at the end. What comes after the last line's end is torn
    /// and thrown away. Cancelling this loses nothing.
    pub async fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            let bytes = self.input.fill_buf().await?;
            if bytes.is_empty() {
                return Ok(None);
            }
            let end = bytes.iter().position(|b| *b == b'\n');
            let piece = &bytes[..end.unwrap_or(bytes.len())];
            if self.skipping || self.part.len() + piece.len() > MAX_LINE {
                self.skipping = true;
                self.part.clear();
            } else {
                self.part.extend_from_slice(piece);
            }
            let used = piece.len() + usize::from(end.is_some());
            self.input.consume(used);
            if end.is_some() {
                let line = std::mem::take(&mut self.part);
                let too_long = std::mem::take(&mut self.skipping);
                return Ok(Some(if too_long { Line::TooLong } else { Line::Whole(line) }));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(input: &[u8]) -> Vec<Line> {
        let mut lines = Lines::new(input);
        let mut all = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            all.push(line);
        }
        all
    }

    #[tokio::test]
    async fn lines_and_what_is_too_long() {
        let whole = |text: &str| Line::Whole(text.as_bytes().to_vec());
        assert_eq!(all(b"a\n\nb c\ntorn").await, [whole("a"), whole(""), whole("b c")]);
        let most = "x".repeat(MAX_LINE);
        let input = format!("{most}\n{most}y\n{most}{most}{most}\nz\n");
        assert_eq!(
            all(input.as_bytes()).await,
            [whole(&most), Line::TooLong, Line::TooLong, whole("z")]
        );
    }

    #[test]
    fn work_per_byte_does_not_grow_with_the_text() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let work = |text: &str| drop(runtime.block_on(all(text.as_bytes())));
        fireclaw_testkit::cost::assert_linear("lines", &work);
    }
}
