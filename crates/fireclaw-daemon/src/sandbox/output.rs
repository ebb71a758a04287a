//! What the program of a sandbox writes, as lines of a log.

use std::path::PathBuf;
use std::time::Duration;

use fireclaw_protocol::message::OutputStream;

use crate::log::{Writer, stamped};

/// How large the file grows before it is set aside, in bytes.
const MAX_BYTES: u64 = 10 * 1024 * 1024;

/// The longest line, in bytes; what is longer goes on in the next.
const MAX_LINE: usize = 16 * 1024;

/// How long it waits for a disk that is behind.
const PAUSE: Duration = Duration::from_millis(20);

/// How long the last lines may take to be written.
const LAST: Duration = Duration::from_secs(2);

/// A log of what a program writes.
#[derive(Debug)]
pub struct Output {
    writer: Writer,
    path: PathBuf,
    lines: [Lines; 2],
}

impl Output {
    /// In this file.
    pub fn new(writer: Writer, path: PathBuf) -> Self {
        Self { writer, path, lines: Default::default() }
    }

    /// Adds what was written. Waits while the disk is behind: so does the program.
    ///
    /// How many bytes it was as lines: what those cost is for the guest to decide.
    pub async fn add(&mut self, stream: OutputStream, bytes: &[u8]) -> usize {
        let lines = match stream {
            OutputStream::Stdout => &mut self.lines[0],
            OutputStream::Stderr => &mut self.lines[1],
        };
        let text = lines.add(bytes);
        let length = text.len();
        self.write(text).await;
        length
    }

    /// Adds a line of the daemon's own.
    pub async fn note(&mut self, text: &str) {
        self.write(stamped(text)).await;
    }

    /// Adds what has no end yet, and waits until all of it is in the file, as far as the disk
    /// lets it.
    pub async fn finish(&mut self) {
        let rest: String = self.lines.iter_mut().map(Lines::rest).collect();
        self.write(rest).await;
        let writer = self.writer.clone();
        let written = tokio::task::spawn_blocking(move || writer.flush());
        let _ = tokio::time::timeout(LAST, written).await;
    }

    async fn write(&self, text: String) {
        if text.is_empty() {
            return;
        }
        let mut text = Some(text);
        while let Some(left) = text {
            text = self.writer.try_add(&self.path, left, MAX_BYTES);
            if text.is_some() {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Makes lines of bytes as they come.
#[derive(Debug, Default)]
struct Lines {
    /// One whose end has not come.
    part: Vec<u8>,
}

impl Lines {
    /// The lines that end here, escaped and with the time.
    fn add(&mut self, bytes: &[u8]) -> String {
        let mut text = String::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            for piece in piece.chunks(MAX_LINE) {
                if self.part.len() + piece.len() > MAX_LINE + 1 {
                    text.push_str(&self.rest());
                }
                self.part.extend_from_slice(piece);
            }
            if piece.ends_with(b"\n") {
                self.part.pop();
                text.push_str(&self.line());
            }
        }
        text
    }

    fn rest(&mut self) -> String {
        if self.part.is_empty() { String::new() } else { self.line() }
    }

    fn line(&mut self) -> String {
        let part = std::mem::take(&mut self.part);
        // A terminal's lines end so.
        let part = part.strip_suffix(b"\r").unwrap_or(&part);
        stamped(&escaped(&String::from_utf8_lossy(part)))
    }
}

/// Text that is harmless wherever it is shown. Unlike [`fireclaw_host::escape`] it keeps tabs,
/// and all of a line.
fn escaped(line: &str) -> String {
    let mut safe = String::with_capacity(line.len());
    for c in line.chars() {
        if c != '\t' && (c.is_control() || fireclaw_host::is_hidden(c)) {
            safe.extend(c.escape_unicode());
        } else {
            safe.push(c);
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<&str> {
        text.lines().map(|line| line.split_once("Z ").unwrap().1).collect()
    }

    #[test]
    fn lines_are_put_together_escaped_and_bounded() {
        let mut lines = Lines::default();
        assert_eq!(lines.add(b"one\r\ntw"), stamped("one"));
        assert_eq!(
            texts(&lines.add(b"o\n\n\x1b[31m\tred\xff\nrest")),
            ["two", "", "\\u{1b}[31m\tred\u{fffd}"]
        );
        assert_eq!(texts(&lines.rest()), ["rest"]);
        assert_eq!(lines.rest(), "");
        let long = vec![b'x'; 3 * MAX_LINE + 10];
        let mut text = lines.add(&long);
        text += &lines.add(b"\n");
        let lengths: Vec<_> = texts(&text).iter().map(|line| line.len()).collect();
        assert_eq!(lengths.iter().sum::<usize>(), long.len());
        assert!(lengths.iter().all(|length| *length <= MAX_LINE + 1), "{lengths:?}");
    }
}
