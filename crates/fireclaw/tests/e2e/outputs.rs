//! Our own standard output and error at their worst: full, or with nobody behind them.

use std::fs::{File, OpenOptions};
use std::process::{Command, Stdio};

use crate::harness::{Home, finish, signal, timeout, wait, wait_until};
use crate::overseer::free_port;

fn full() -> File {
    OpenOptions::new().write(true).open("/dev/full").unwrap()
}

/// A pipe that nobody can read any more.
fn gone() -> std::io::PipeWriter {
    std::io::pipe().unwrap().1
}

fn code(mut command: Command, stderr: impl Into<Stdio>) -> Option<i32> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
    // A status that a signal ended has no code.
    wait(&mut command.spawn().unwrap(), timeout()).code()
}

#[test]
fn a_status_comes_through_whatever_standard_error_is() {
    let home = Home::new();
    assert_eq!(code(home.fireclaw(["run", "-n", "-v", "exit 3"]), full()), Some(3));
    assert_eq!(code(home.fireclaw(["run", "-n", "-v", "exit 3"]), gone()), Some(3));
    let mut emulated = home.fireclaw(["run", "-n", "--publish", "0:80", "exit 3"]);
    emulated.env_remove("FIRECLAW_QUIET");
    assert_eq!(code(emulated, full()), Some(3));
    assert_eq!(code(home.fireclaw(["run", "-n", "-t", "1", "sleep 60"]), full()), Some(124));
    assert_eq!(code(home.fireclaw(["run", "-n", "--user", "nosuch", "true"]), full()), Some(125));
    home.is_clean();
}

#[test]
fn output_that_is_lost_is_told_unless_its_reader_has_gone() {
    let home = Home::new();
    for words in [&["image", "ls"][..], &["images", "ls", "--json"], &["run", "--help"]] {
        let mut command = home.fireclaw(words);
        command.stdin(Stdio::null()).stdout(full()).stderr(Stdio::piped());
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{words:?}: {said}");
        assert!(said.contains("cannot write standard output: No space left"), "{said}");
        let mut command = home.fireclaw(words);
        command.stdin(Stdio::null()).stdout(gone()).stderr(Stdio::piped());
        let output = command.output().unwrap();
        assert_eq!((output.status.code(), &output.stderr[..]), (Some(0), &b""[..]), "{words:?}");
    }
    // An error that cannot be told either is a status still.
    let mut command = home.fireclaw(["image", "ls"]);
    command.stdin(Stdio::null()).stdout(full()).stderr(full());
    assert_eq!(command.status().unwrap().code(), Some(1));
}

#[test]
fn an_overseer_lives_whoever_reads_what_it_says() {
    let home = Home::new();
    // The last one is a pipe that stays full: nobody reads it.
    let (_reader, stopped) = std::io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&stopped, true).unwrap();
    while std::io::Write::write(&mut &stopped, &[b'x'; 4096]).is_ok() {}
    rustix::io::ioctl_fionbio(&stopped, false).unwrap();
    for stderr in [Stdio::from(full()), Stdio::from(gone()), Stdio::from(stopped)] {
        let mut command = home.fireclaw(["overseer", "--port", &free_port().to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        let mut overseer = command.spawn().unwrap();
        wait_until("the overseer to answer", || {
            assert_eq!(overseer.try_wait().unwrap(), None);
            let done = finish(home.fireclaw(["agent", "ls"]), Vec::new(), timeout());
            done.status.success()
        });
        signal(&overseer, rustix::process::Signal::TERM);
        assert_eq!(wait(&mut overseer, timeout()).code(), Some(0));
    }
    home.is_clean();
}
