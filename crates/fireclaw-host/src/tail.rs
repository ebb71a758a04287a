//! The end of what a program writes: kept short, shown only when something failed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::watch;

use crate::is_hidden;

/// How much of the end of a stream is kept, in bytes.
const KEEP: usize = 64 * 1024;

/// The end of an untrusted byte stream, bounded and escaped for a terminal.
#[derive(Debug, Clone, Default)]
pub struct Tail {
    bytes: Arc<Mutex<VecDeque<u8>>>,
    /// Changes with what is kept, and closes when everything has been read.
    reading: Option<watch::Receiver<()>>,
}

impl Tail {
    /// Keeps the end of `from`, read in the background until it closes. Must be called in
    /// a tokio runtime.
    ///
    /// Reading never stops, so a program that writes without end is neither blocked nor
    /// able to fill the host's memory or disk.
    pub fn follow(mut from: impl AsyncRead + Unpin + Send + 'static) -> Self {
        let (more, reading) = watch::channel(());
        let tail = Self { reading: Some(reading), ..Self::default() };
        let kept = tail.clone();
        tokio::spawn(async move {
            let mut buffer = vec![0; 16 * 1024];
            while let Ok(n @ 1..) = from.read(&mut buffer).await {
                kept.push(&buffer[..n]);
                more.send_replace(());
            }
        });
        tail
    }

    fn push(&self, new: &[u8]) {
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        bytes.extend(new);
        let surplus = bytes.len().saturating_sub(KEEP);
        bytes.drain(..surplus);
    }

    fn text(&self) -> String {
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(bytes.make_contiguous()).into_owned()
    }

    /// Waits for a whole line of which `find` makes something; none if the writer ended
    /// without. It sees lines that are kept, as they were written, some more than once.
    pub async fn find<T>(&self, find: impl Fn(&str) -> Option<T>) -> Option<T> {
        let mut reading = self.reading.clone()?;
        loop {
            let open = reading.changed().await.is_ok();
            let text = self.text();
            let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
            let found = whole.lines().find_map(&find);
            if found.is_some() || !open {
                return found;
            }
        }
    }

    /// Waits until all that the ended writer wrote has been read.
    ///
    /// Bounded: something else may still hold the other end open.
    pub async fn drain(&self) {
        const LIMIT: Duration = Duration::from_millis(500);
        if let Some(mut reading) = self.reading.clone() {
            let closed = async { while reading.changed().await.is_ok() {} };
            let _ = tokio::time::timeout(LIMIT, closed).await;
        }
    }

    /// All lines that are kept and not empty, each escaped.
    pub fn lines(&self) -> Vec<String> {
        let text = self.text();
        let lines = text.lines().map(|line| line.trim_end_matches('\r'));
        lines.filter(|line| !line.trim().is_empty()).map(escape).collect()
    }

    /// The last of [`Tail::lines`], at most so many.
    pub fn last_lines(&self, most: usize) -> String {
        let lines = self.lines();
        lines[lines.len().saturating_sub(most)..].join("\n")
    }
}

/// Makes one line of somebody else's text safe for a terminal: control characters are
/// shown, not obeyed, and a line is at most 400 characters long.
pub fn escape(line: &str) -> String {
    const MAX: usize = 400;
    let mut safe = String::new();
    for c in line.chars().take(MAX) {
        match c {
            '\t' => safe.push(' '),
            c if c.is_control() || is_hidden(c) => safe.extend(c.escape_unicode()),
            c => safe.push(c),
        }
    }
    if line.chars().nth(MAX).is_some() {
        safe.push('…');
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_the_end_is_kept() {
        let tail = Tail::default();
        for n in 0..20_000 {
            tail.push(format!("line {n}\r\n").as_bytes());
        }
        assert_eq!(tail.bytes.lock().unwrap().len(), KEEP);
        assert_eq!(tail.last_lines(2), "line 19998\nline 19999");
    }

    #[tokio::test]
    async fn a_line_is_found_once_it_is_whole() {
        let (mut writer, reader) = tokio::io::duplex(64);
        let tail = Tail::follow(reader);
        let port = tail.find(|line| line.strip_prefix("port ")?.parse::<u16>().ok());
        let write = async {
            use tokio::io::AsyncWriteExt;
            for part in ["hello\npo", "rt 12", "34\n"] {
                writer.write_all(part.as_bytes()).await.unwrap();
                tokio::task::yield_now().await;
            }
            drop(writer);
        };
        assert_eq!(tokio::join!(port, write).0, Some(1234));
        tail.drain().await;
        assert_eq!(tail.find(|line| line.contains("no").then_some(())).await, None);
        assert_eq!(tail.lines(), ["hello", "port 1234"]);
    }

    proptest! {
        #[test]
        fn nothing_reaches_the_terminal_unescaped(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            let tail = Tail::default();
            tail.push(&bytes);
            for line in tail.last_lines(50).lines() {
                prop_assert!(line.chars().all(|c| !c.is_control() && !is_hidden(c)));
                prop_assert!(line.chars().count() <= 401 * 10);
            }
        }
    }

    #[test]
    fn work_per_byte_does_not_grow_with_the_text() {
        use fireclaw_testkit::cost::assert_linear;
        assert_linear("escape", &|text| drop(escape(text)));
        assert_linear("a tail", &|text| {
            let tail = Tail::default();
            text.as_bytes().chunks(7).for_each(|piece| tail.push(piece));
            drop(tail.last_lines(10));
        });
    }
}
