//! Standard error at its worst: a full disk, a reader that has gone, one that does not read.
//! Each case is this very program, started again. (The test harness itself needs its standard
//! output; what becomes of `out!` is tested with the whole command.)

#![allow(missing_docs, clippy::unwrap_used)]

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::process::{Command, Stdio};

use fireclaw_say::say;

/// What the started program is to do; absent in the one that starts it.
const CASE: &str = "FIRECLAW_SAY_CASE";

/// Its exit status, if it came to its end.
const LIVED: i32 = 42;

fn started(case: &str, test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(CASE, case);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn case() -> Option<String> {
    std::env::var(CASE).ok()
}

fn full() -> File {
    OpenOptions::new().write(true).open("/dev/full").unwrap()
}

/// A pipe that nobody can read any more.
fn gone() -> std::io::PipeWriter {
    std::io::pipe().unwrap().1
}

#[test]
fn a_full_or_lost_standard_error_ends_nobody() {
    if case().is_some() {
        say!("a line");
        fireclaw_say::never_wait();
        say!("another");
        fireclaw_say::flush();
        std::process::exit(LIVED);
    }
    let name = "a_full_or_lost_standard_error_ends_nobody";
    let status = started("full", name).stderr(full()).status().unwrap();
    assert_eq!(status.code(), Some(LIVED));
    let status = started("gone", name).stderr(gone()).status().unwrap();
    assert_eq!(status.code(), Some(LIVED));
}

#[test]
fn who_serves_does_not_wait_for_a_reader() {
    if case().is_some() {
        fireclaw_say::never_wait();
        // More than any pipe and the queue hold.
        for _ in 0..64 {
            say!("{}", "x".repeat(64 * 1024));
            say!("{}", "x".repeat(1024));
        }
        fireclaw_say::flush();
        std::process::exit(LIVED);
    }
    let (mut reader, writer) = std::io::pipe().unwrap();
    let status =
        started("stopped", "who_serves_does_not_wait_for_a_reader").stderr(writer).status();
    assert_eq!(status.unwrap().code(), Some(LIVED));
    let mut what = String::new();
    let _ = reader.read_to_string(&mut what);
    assert!(what.contains("xxxx"));
}
