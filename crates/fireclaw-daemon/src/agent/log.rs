//! What happened to an agent: its last lines in memory and in a file, and an event of the
//! daemon's own log each.

use std::collections::VecDeque;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use fireclaw_log::Few;
use tracing::{debug, info};

/// How many lines are kept in memory.
const LINES: usize = 1000;

/// How many lines in a minute are events of the daemon's log too: a guest has a part in how
/// many there are, and that log is everybody's.
const MOST_EVENTS: u32 = 60;

/// How large the file grows before it is set aside, in bytes. There is one set
/// aside at most.
const MAX_BYTES: u64 = 1024 * 1024;

/// The log of one agent.
#[derive(Debug)]
pub struct Log {
    lines: VecDeque<String>,
    path: PathBuf,
    events: Few,
}

impl Log {
    /// The log in a file, whose last lines are read.
    pub fn open(path: PathBuf) -> Self {
        let text = fs::read(&path).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let skip = text.lines().count().saturating_sub(LINES);
        let lines = text.lines().skip(skip).map(str::to_owned).collect();
        Self { lines, path, events: Few::new(MOST_EVENTS, Instant::now()) }
    }

    /// Adds what happened.
    pub fn add(&mut self, text: &str) {
        let now = Instant::now();
        if let Some(count) = self.events.left_out(now) {
            info!("{count} more lines are in the agent's own log");
        }
        if self.events.take(now) {
            info!("{text}");
        }
        self.keep(text);
    }

    /// Adds what its program says of itself, escaped: that is what agents do, not the daemon.
    pub fn add_of_guest(&mut self, text: &str) {
        debug!(target: "fireclaw_daemon::guest", "{text}");
        self.keep(text);
    }

    /// Keeps a line, with the time. A file that cannot be written is no reason to stop an
    /// agent.
    fn keep(&mut self, text: &str) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let line = format!("{} {text}", stamp(now.as_secs()));
        let _ = fireclaw_log::file::append(&self.path, &format!("{line}\n"), MAX_BYTES);
        self.lines.push_back(line);
        if self.lines.len() > LINES {
            self.lines.pop_front();
        }
    }

    /// The last lines, oldest first.
    pub fn last(&self, lines: usize) -> Vec<String> {
        let skip = self.lines.len().saturating_sub(lines);
        self.lines.iter().skip(skip).cloned().collect()
    }
}

/// The date and the time of day in UTC, as in `2026-07-04 12:30:05Z`.
fn stamp(seconds: u64) -> String {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    humantime::format_rfc3339_seconds(time).to_string().replacen('T', " ", 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded_and_read_again() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("log");
        let mut log = Log::open(path.clone());
        let long = "x".repeat(10_000);
        for n in 0..300 {
            log.add(&format!("{n} {long}"));
        }
        assert!(fs::metadata(&path).unwrap().len() < 2 * MAX_BYTES);
        assert!(path.with_file_name("log.1").exists());
        let again = Log::open(path);
        assert_eq!(again.last(1), log.last(1));
        assert!(log.last(1)[0].contains(" 299 x"));
        assert_eq!(stamp(86_400 + 3661), "1970-01-02 01:01:01Z");
    }
}
