//! Standard input, output and error: bytes, apart, bounded, in time.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::{
    Home, alone, finish, finish_child, resident_kib, signal, slowdown, timeout, vmm_of, wait,
};

#[test]
fn bytes_pass_through_unchanged() {
    let home = Home::new();
    let input: Vec<u8> =
        (0..3_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut command = home.fireclaw(["run", "cat"]);
    command.stderr(Stdio::piped());
    let done = finish(command, input.clone(), timeout()).exits(0);
    assert!(done.stdout == input, "{} bytes came back", done.stdout.len());
}

#[test]
fn output_and_error_stay_apart() {
    let home = Home::new();
    let done = home.run(["printf out; printf err >&2; printf out"]).exits(0);
    assert_eq!((done.stdout(), done.stderr()), ("outout".into(), "err".into()));
}

#[test]
fn input_streams_while_the_command_runs() {
    let home = Home::new();
    let mut child = home
        .fireclaw(["run", "while read line; do echo \"got $line\"; done; echo end"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut answers = BufReader::new(child.stdout.take().unwrap()).lines();
    for word in ["one", "two"] {
        // The next word is sent only when the answer to this one has come.
        writeln!(stdin, "{word}").unwrap();
        assert_eq!(answers.next().unwrap().unwrap(), format!("got {word}"));
    }
    drop(stdin);
    assert_eq!(answers.next().unwrap().unwrap(), "end");
    assert!(wait(&mut child, timeout()).success());
}

#[test]
fn no_stdin_leaves_ours_alone() {
    let home = Home::new();
    let command = home.fireclaw(["run", "-n", "cat; echo end"]);
    let done = finish(command, b"not for the guest".to_vec(), timeout()).exits(0);
    assert_eq!(done.stdout(), "end\n");
}

#[test]
fn a_gibibyte_of_output_arrives() {
    let _alone = alone();
    let home = Home::new();
    let size = (1u64 << 30) / u64::from(slowdown()).pow(2);
    let mut child = home
        .fireclaw(["run", "-t", "170", &format!("head -c {size} /dev/zero")])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let pid = child.id();
    let (mut total, mut highest) = (0u64, 0);
    let mut buffer = vec![0; 1 << 20];
    while let n @ 1.. = stdout.read(&mut buffer).unwrap() {
        assert!(buffer[..n].iter().all(|byte| *byte == 0));
        total += n as u64;
        highest = highest.max(resident_kib(pid));
    }
    assert!(wait(&mut child, timeout()).success());
    assert_eq!(total, size);
    assert!(highest < 64 * 1024, "fireclaw grew to {highest} KiB");
}

/// `yes` writes into a reader that has stopped: neither the host nor the
/// guest may grow, and the command goes on when the reader does.
#[test]
fn a_stopped_reader_stops_the_command() {
    let _alone = alone();
    let home = Home::new();
    let script =
        "yes & sleep 3; free -k | awk '/^Mem/ {print $3}' >&2; kill $!; wait; echo done >&2";
    let mut child = home
        .fireclaw(["run", "-t", "120", script])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let vmm = u32::try_from(vmm_of(&child)).unwrap();
    // Nobody reads standard output until the guest has reported.
    let mut used = String::new();
    stderr.read_line(&mut used).unwrap();
    let used: u64 = used.trim().parse().unwrap();
    assert!(used < 120_000, "the guest uses {used} KiB");
    let grown = resident_kib(child.id());
    assert!(grown < 64 * 1024, "fireclaw grew to {grown} KiB");
    assert!(resident_kib(vmm) < 700 * 1024, "the VMM grew to {} KiB", resident_kib(vmm));
    // The reader goes on: everything that was held up arrives, then the end.
    let reader = thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        let mut total = 0;
        while let n @ 1.. = stdout.read(&mut buffer).unwrap() {
            total += n;
        }
        total
    });
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "done\n");
    assert!(wait(&mut child, timeout()).success());
    let total = reader.join().unwrap();
    // The pipe, both windows and the guest's pipe: everything in between.
    assert!((64 * 1024..4 << 20).contains(&total), "{total} bytes were in flight");
}

#[test]
fn a_reader_that_leaves_ends_the_command_like_any_pipe() {
    let home = Home::new();
    let mut child = home.fireclaw(["run", "yes"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut start = [0; 4];
    child.stdout.take().unwrap().read_exact(&mut start).unwrap();
    assert_eq!(&start, b"y\ny\n");
    let status = wait(&mut child, timeout());
    assert_eq!(status.code(), Some(128 + 13), "SIGPIPE");
    home.is_clean();
}

#[test]
fn output_that_cannot_be_written_is_an_error() {
    let home = Home::new();
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let child =
        home.fireclaw(["run", "echo x"]).stdout(full).stderr(Stdio::piped()).spawn().unwrap();
    finish_child(child, timeout()).exits(125).says(&["standard output", "No space left"]);
    home.is_clean();
}

fn running(
    home: &Home,
    script: &str,
) -> (std::process::Child, BufReader<std::process::ChildStdout>) {
    let mut child = home
        .fireclaw(["run", "-t", "170", script])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    (child, stdout)
}

#[test]
fn signals_reach_the_command() {
    for (number, name) in [(Signal::INT, "INT"), (Signal::TERM, "TERM"), (Signal::HUP, "HUP")] {
        let home = Home::new();
        let script = format!(
            "trap 'echo caught {name}; exit 3' {name}; echo ready; while :; do sleep 0.1; done"
        );
        let (mut child, mut stdout) = running(&home, &script);
        signal(&child, number);
        let mut rest = String::new();
        stdout.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, format!("caught {name}\n"));
        assert_eq!(wait(&mut child, timeout()).code(), Some(3));
        home.is_clean();
    }
}

#[test]
fn an_interrupted_command_gives_130() {
    let home = Home::new();
    let (mut child, _stdout) = running(&home, "echo ready; exec sleep 600");
    signal(&child, Signal::INT);
    assert_eq!(wait(&mut child, timeout()).code(), Some(130));
    home.is_clean();
}

#[test]
fn a_second_interrupt_does_not_wait() {
    let home = Home::new();
    let (mut child, mut stdout) =
        running(&home, "trap 'echo caught' INT TERM; echo ready; while :; do sleep 0.1; done");
    signal(&child, Signal::INT);
    let start = Instant::now();
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "caught\n");
    signal(&child, Signal::INT);
    assert_eq!(wait(&mut child, timeout()).code(), Some(130));
    assert!(start.elapsed() < Duration::from_secs(4), "it waited for the command");
    home.is_clean();
}

#[test]
fn an_interrupt_during_boot_leaves_nothing() {
    let home = Home::new();
    let mut child = home.fireclaw(["run", "--no-snapshot", "sleep 600"]).spawn().unwrap();
    let vmm = vmm_of(&child);
    signal(&child, Signal::INT);
    assert_eq!(wait(&mut child, timeout()).code(), Some(130));
    assert!(!crate::harness::is_alive(vmm));
    home.is_clean();
}
