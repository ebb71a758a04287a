//! What happened to an agent: its last lines in memory and in a file, and an event of the
//! daemon's own log each.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::time::{Duration, Instant, SystemTime};
use std::{fs, io, thread};

use fireclaw_log::Few;
use tokio::task::spawn_blocking;
use tracing::{debug, info};

/// How many lines are kept in memory.
const LINES: usize = 1000;

/// How many lines in a minute are events of the daemon's log too: a guest has a part in how
/// many there are, and that log is everybody's.
const MOST_EVENTS: u32 = 60;

/// How large the file grows before it is set aside, in bytes. There is one set
/// aside at most.
const MAX_BYTES: u64 = 1024 * 1024;

/// How many lines wait for their files. More are lost there: a disk that far behind has
/// stopped.
const WAITING: usize = 4096;

/// How long the last lines of all may take to be written.
const LAST: Duration = Duration::from_secs(2);

/// Writes the files of all logs, on a thread of its own: nobody else waits for their disk.
/// Clones are the same; the last one waits until what it was given is written.
#[derive(Debug, Clone)]
pub struct Writer(Arc<Jobs>);

#[derive(Debug)]
struct Jobs(SyncSender<Job>);

#[derive(Debug)]
enum Job {
    Add { path: PathBuf, text: String, max_bytes: u64 },
    Flush(mpsc::Sender<()>),
}

impl Writer {
    /// Starts the thread. It ends with the last clone.
    ///
    /// # Errors
    /// Those of the system.
    pub fn start() -> io::Result<Self> {
        Self::with_room(WAITING)
    }

    /// The same for texts of which so many wait: they may be long.
    ///
    /// # Errors
    /// Those of the system.
    pub fn with_room(waiting: usize) -> io::Result<Self> {
        let (to, jobs) = mpsc::sync_channel(waiting);
        thread::Builder::new().name("logs".into()).spawn(move || {
            for job in jobs {
                match job {
                    // A file that cannot be written is no reason to stop an agent.
                    Job::Add { path, text, max_bytes } => {
                        let _ = fireclaw_log::file::append(&path, &text, max_bytes);
                    }
                    Job::Flush(done) => {
                        let _ = done.send(());
                    }
                }
            }
        })?;
        Ok(Self(Arc::new(Jobs(to))))
    }

    /// Appends lines to a file, which is set aside when it has so many bytes. They come back
    /// if the disk is too far behind.
    pub fn try_add(&self, path: &Path, text: String, max_bytes: u64) -> Option<String> {
        let job = Job::Add { path: path.to_owned(), text, max_bytes };
        match self.0.0.try_send(job) {
            Err(TrySendError::Full(Job::Add { text, .. })) => Some(text),
            _ => None,
        }
    }

    /// Waits until what came before is written. It blocks.
    pub fn flush(&self) {
        let (done, is_done) = mpsc::channel();
        if self.0.0.send(Job::Flush(done)).is_ok() {
            let _ = is_done.recv();
        }
    }
}

impl Drop for Jobs {
    fn drop(&mut self) {
        let (done, is_done) = mpsc::channel();
        if self.0.try_send(Job::Flush(done)).is_ok() {
            let _ = is_done.recv_timeout(LAST);
        }
    }
}

/// The log of one agent.
#[derive(Debug)]
pub struct Log {
    lines: VecDeque<String>,
    path: PathBuf,
    writer: Writer,
    events: Few,
}

impl Log {
    /// The log in this file of a directory that may not be there yet. It begins with the last
    /// lines that were written before.
    pub async fn open(path: PathBuf, writer: Writer) -> Self {
        let (file, before) = (path.clone(), writer.clone());
        let read = spawn_blocking(move || {
            // What is still to be written was said by who had this name before, and is lost
            // with their directory if that is gone.
            before.flush();
            if let Some(directory) = file.parent() {
                let _ = fs::create_dir_all(directory);
            }
            let text = fs::read(&file).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let skip = text.lines().count().saturating_sub(LINES);
            text.lines().skip(skip).map(str::to_owned).collect()
        });
        let lines = read.await.unwrap_or_default();
        Self { lines, path, writer, events: Few::new(MOST_EVENTS, Instant::now()) }
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

    /// Keeps a line, with the time.
    fn keep(&mut self, text: &str) {
        let line = stamped(text);
        self.lines.push_back(line.trim_end_matches('\n').to_owned());
        let _ = self.writer.try_add(&self.path, line, MAX_BYTES);
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

/// A line with its end, after the time.
pub fn stamped(text: &str) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("{} {text}\n", stamp(now.as_secs()))
}

/// The date and the time of day in UTC, as in `2026-07-04 12:30:05Z`.
fn stamp(seconds: u64) -> String {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    humantime::format_rfc3339_seconds(time).to_string().replacen('T', " ", 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_bounded_and_read_again() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("worker/agent.log");
        let writer = Writer::start().unwrap();
        let mut log = Log::open(path.clone(), writer.clone()).await;
        let long = "x".repeat(10_000);
        for n in 0..300 {
            log.add(&format!("{n} {long}"));
        }
        let again = Log::open(path.clone(), writer.clone()).await;
        assert_eq!(again.last(1), log.last(1));
        assert!(log.last(1)[0].contains(" 299 x"));
        log.add("last words");
        drop((log, again, writer));
        assert!(fs::read_to_string(&path).unwrap().ends_with(" last words\n"));
        assert!(fs::metadata(&path).unwrap().len() < 2 * MAX_BYTES);
        assert!(path.with_file_name("agent.log.1").exists());
        assert_eq!(stamp(86_400 + 3661), "1970-01-02 01:01:01Z");
    }

    #[tokio::test]
    async fn a_disk_that_stands_still_holds_nobody_up() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("agent.log");
        let (to, jobs) = mpsc::sync_channel(WAITING);
        let mut log = Log {
            lines: VecDeque::new(),
            path,
            writer: Writer(Arc::new(Jobs(to))),
            events: Few::new(MOST_EVENTS, Instant::now()),
        };
        for n in 0..WAITING * 2 {
            log.add_of_guest(&n.to_string());
        }
        assert_eq!(log.last(LINES).len(), LINES);
        assert_eq!(jobs.try_iter().count(), WAITING);
        drop(jobs);
    }
}
