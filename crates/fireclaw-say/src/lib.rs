//! Lines for whoever started us, which cannot end us.
//!
//! `eprintln!` panics when standard error is a full disk, a pipe whose reader has gone or
//! a terminal that was closed, and `println!` does so for standard output; the release
//! build aborts on a panic. So clippy forbids them here, and everybody uses these:
//!
//! - [`say!`] writes a line to standard error. A line that cannot be written is lost:
//!   there is nobody to tell.
//! - [`out!`] writes a line to standard output and returns the error: output that a
//!   command is asked for must not be lost in silence.
//!
//! A program that serves others must not wait either for a reader who does not read.
//! After [`never_wait`], a thread writes what is said, and what does not fit into its
//! queue is dropped and counted.

mod queue;

use std::fmt::Arguments;
use std::io::{ErrorKind, Result, Write};
use std::sync::OnceLock;
use std::time::Duration;

pub use queue::Queue;

/// How long [`flush`] waits for a reader who does not read. A reader who reads takes what
/// the queue holds in milliseconds.
const LAST_WORDS: Duration = Duration::from_secs(1);

static QUEUE: OnceLock<Queue> = OnceLock::new();

static ROUTE: OnceLock<fn(&str)> = OnceLock::new();

/// Writes a line to standard error, formatted as by `format!`. Never fails.
#[macro_export]
macro_rules! say {
    ($($argument:tt)*) => { $crate::line_to_stderr(::std::format_args!($($argument)*)) };
}

/// Writes a line to standard output, formatted as by `format!`, and returns an
/// [`std::io::Result`]. A reader that has gone (`| head`) has enough: that is no error.
#[macro_export]
macro_rules! out {
    ($($argument:tt)*) => { $crate::line_to_stdout(::std::format_args!($($argument)*)) };
}

/// What [`say!`] does.
pub fn line_to_stderr(text: Arguments<'_>) {
    match ROUTE.get() {
        Some(log) => log(&text.to_string()),
        // In one piece, so that lines of several processes do not mix.
        None => raw_to_stderr(&format!("{text}\n")),
    }
}

/// From now on, what is said goes to a log, which writes lines with [`raw_to_stderr`].
pub fn route(log: fn(&str)) {
    let _ = ROUTE.set(log);
}

/// Writes a line with its end to standard error, as [`say!`] does without a log.
pub fn raw_to_stderr(line: &str) {
    match QUEUE.get() {
        Some(queue) => queue.add(line.to_owned()),
        None => write_to_stderr(line),
    }
}

/// What [`out!`] does.
///
/// # Errors
/// When standard output does not take the line, unless its reader has gone.
pub fn line_to_stdout(text: Arguments<'_>) -> Result<()> {
    match write_line(&mut std::io::stdout().lock(), &format!("{text}\n")) {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}

/// From now on, [`say!`] does not wait for whoever reads standard error.
pub fn never_wait() {
    // Without the thread, saying goes on as before: it may wait.
    if QUEUE.get().is_none()
        && let Some(queue) = Queue::start(write_to_stderr)
    {
        let _ = QUEUE.set(queue);
    }
}

/// Waits, not for long, until what was said is written. For the end of a program.
pub fn flush() {
    if let Some(queue) = QUEUE.get() {
        queue.flush(LAST_WORDS);
    }
}

fn write_to_stderr(line: &str) {
    let _ = write_line(&mut std::io::stderr().lock(), line);
}

fn write_line(to: &mut impl Write, line: &str) -> Result<()> {
    to.write_all(line.as_bytes())?;
    to.flush()
}
