//! The guest's serial console: kept short, shown only when something failed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::watch;

/// How much of the end of a stream is kept, in bytes.
const KEEP: usize = 64 * 1024;

/// The end of an untrusted byte stream, bounded and escaped for a terminal.
#[derive(Debug, Clone, Default)]
pub struct ConsoleTail {
    bytes: Arc<Mutex<VecDeque<u8>>>,
    /// Closes when everything has been read.
    reading: Option<watch::Receiver<()>>,
}

impl ConsoleTail {
    /// Keeps the end of `from`, read in the background until it closes.
    ///
    /// Reading never stops, so a guest that floods its console is neither
    /// blocked nor able to fill the host's memory or disk.
    pub fn follow(mut from: impl AsyncRead + Unpin + Send + 'static) -> Self {
        let (open, reading) = watch::channel(());
        let tail = Self { reading: Some(reading), ..Self::default() };
        let kept = tail.clone();
        tokio::spawn(async move {
            let _open = open;
            let mut buffer = vec![0; 16 * 1024];
            while let Ok(n @ 1..) = from.read(&mut buffer).await {
                kept.push(&buffer[..n]);
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

    /// Waits until all that the ended writer wrote has been read.
    ///
    /// Bounded: something else may still hold the other end open.
    pub async fn drain(&self) {
        const LIMIT: Duration = Duration::from_millis(500);
        if let Some(mut reading) = self.reading.clone() {
            let _ = tokio::time::timeout(LIMIT, reading.changed()).await;
        }
    }

    /// The lines that say most of what went wrong, with everything but plain
    /// text escaped: a kernel panic from its first line on, else the last ones.
    pub fn last_lines(&self, lines: usize) -> String {
        const PANIC: &str = "Kernel panic";
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(bytes.make_contiguous()).into_owned();
        let all: Vec<String> = text
            .lines()
            .map(|line| line.trim_end_matches('\r'))
            .filter(|line| !line.trim().is_empty())
            .map(escape)
            .collect();
        let from = match all.iter().position(|line| line.contains(PANIC)) {
            Some(panic) => panic,
            None => all.len().saturating_sub(lines),
        };
        let to = all.len().min(from + lines);
        all[from..to].join("\n")
    }
}

/// Makes one line of guest text safe for a terminal: control characters are
/// shown, not obeyed, and a line is at most 400 characters long.
pub fn escape(line: &str) -> String {
    const MAX: usize = 400;
    let mut safe = String::new();
    for c in line.chars().take(MAX) {
        match c {
            '\t' => safe.push(' '),
            c if c.is_control() || is_format(c) => safe.extend(c.escape_unicode()),
            c => safe.push(c),
        }
    }
    if line.chars().nth(MAX).is_some() {
        safe.push('…');
    }
    safe
}

/// Characters that reorder or hide text (Unicode UTR #36).
fn is_format(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_the_end_is_kept() {
        let tail = ConsoleTail::default();
        for n in 0..20_000 {
            tail.push(format!("line {n}\r\n").as_bytes());
        }
        assert_eq!(tail.bytes.lock().unwrap().len(), KEEP);
        assert_eq!(tail.last_lines(2), "line 19998\nline 19999");
    }

    #[test]
    fn a_panic_is_shown_from_its_first_line() {
        let tail = ConsoleTail::default();
        tail.push(b"booting\nKernel panic - not syncing: why\n");
        (0..90).for_each(|n| tail.push(format!("trace {n}\n").as_bytes()));
        assert_eq!(tail.last_lines(2), "Kernel panic - not syncing: why\ntrace 0");
    }

    proptest! {
        #[test]
        fn nothing_reaches_the_terminal_unescaped(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            let tail = ConsoleTail::default();
            tail.push(&bytes);
            for line in tail.last_lines(50).lines() {
                prop_assert!(line.chars().all(|c| !c.is_control() && !is_format(c)));
                prop_assert!(line.chars().count() <= 401 * 10);
            }
        }
    }
}
