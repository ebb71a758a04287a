//! The guest's serial console: kept short, shown only when something failed.

use fireclaw_host::Tail;
use tokio::io::AsyncRead;

/// The end of what a guest writes to its console, or a VMM to its standard error.
#[derive(Debug, Clone, Default)]
pub struct ConsoleTail(Tail);

impl ConsoleTail {
    /// Keeps the end of `from`, as [`Tail::follow`] does.
    pub fn follow(from: impl AsyncRead + Unpin + Send + 'static) -> Self {
        Self(Tail::follow(from))
    }

    /// Waits until all that the ended writer wrote has been read, for a bounded time.
    pub async fn drain(&self) {
        self.0.drain().await;
    }

    /// The lines that say most of what went wrong, with everything but plain
    /// text escaped: a kernel panic from its first line on, else the last ones.
    pub fn last_lines(&self, most: usize) -> String {
        let lines = self.0.lines();
        let from = match lines.iter().position(|line| line.contains("Kernel panic")) {
            Some(panic) => panic,
            None => lines.len().saturating_sub(most),
        };
        let to = lines.len().min(from + most);
        lines[from..to].join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_shown_from_its_first_line() {
        let mut text = "booting\nKernel panic - not syncing: why\n".to_owned();
        (0..90).for_each(|n| text.push_str(&format!("trace {n}\n")));
        let tail = ConsoleTail::follow(std::io::Cursor::new(text));
        tail.drain().await;
        assert_eq!(tail.last_lines(2), "Kernel panic - not syncing: why\ntrace 0");
    }
}
