//! `fireclaw agent exec`: commands in the VM of an agent that lives.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;

use crate::harness::{Done, alone, finish, finish_child, signal, timeout, wait, wait_until};
use crate::overseer::Overseer;

/// The command, not started yet.
fn command(overseer: &Overseer, words: &[&str]) -> Command {
    let mut command = overseer.home.fireclaw(["agent", "exec", "puppet"]);
    command.args(words);
    command
}

/// The command to its end.
fn exec(overseer: &Overseer, input: &[u8], words: &[&str]) -> Done {
    finish(command(overseer, words), input.to_vec(), timeout())
}

/// The command once it has said `ready`.
fn started(
    overseer: &Overseer,
    stdin: Stdio,
    line: &str,
) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut command = command(overseer, &["--", "sh", "-c", line]);
    command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut ready = String::new();
    output.read_line(&mut ready).unwrap();
    assert_eq!(ready, "ready\n");
    (child, output)
}

/// A request on the daemon's socket, as any program makes it.
fn post(overseer: &Overseer, headers: &str, body: &str) -> UnixStream {
    let mut socket = UnixStream::connect(overseer.home.path().join("daemon.sock")).unwrap();
    let length = body.len();
    write!(
        socket,
        "POST /v1/agents/puppet/exec HTTP/1.1\r\nHost: fireclaw\r\n{headers}\
         Content-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    socket
}

/// Waits until no such program runs in the VM any more.
fn is_gone(overseer: &Overseer, program: &str) {
    let find = format!("grep -qx {program} /proc/[0-9]*/comm");
    wait_until("the command to be gone", || {
        exec(overseer, b"", &["--", "sh", "-c", &find]).code() == 1
    });
}

#[test]
fn a_command_of_an_agents_machine_has_our_streams() {
    let _alone = alone();
    let overseer = Overseer::start(&[]);
    overseer.fireclaw(&["agent", "start", "puppet"]).exits(0);
    overseer.ready("puppet");

    // Streams apart, and its own status.
    let both = ["--", "sh", "-c", "id -un; echo oops >&2; exit 4"];
    let done = exec(&overseer, b"", &both).exits(4);
    assert_eq!((done.stdout().as_str(), done.stderr().as_str()), ("agent\n", "oops\n"));
    let root = exec(&overseer, b"", &["--user", "root", "--", "id", "-un"]).exits(0);
    assert_eq!(root.stdout(), "root\n");
    let here = exec(&overseer, b"", &["-w", "/tmp", "-e", "A=b c", "sh", "-c", "pwd; echo $A"]);
    assert_eq!(here.exits(0).stdout(), "/tmp\nb c\n");
    exec(&overseer, b"", &["--", "sh", "-c", "kill -9 $$"]).exits(137);
    exec(&overseer, b"", &["--", "no-such"]).exits(127).says(&["no-such"]);
    exec(&overseer, b"", &["--", "/etc/passwd"]).exits(126);
    exec(&overseer, b"", &["--user", "nobody-here", "--", "true"]).exits(125);
    exec(&overseer, b"", &["-t", "0.5", "--", "sleep", "1000"]).exits(124).says(&["timed out"]);

    // Any bytes, more than any buffer on the way holds.
    let bytes: Vec<u8> =
        (0..3_000_000u32).map(|n| (n.wrapping_mul(2654435761) >> 24) as u8).collect();
    let echoed = exec(&overseer, &bytes, &["--", "cat"]).exits(0);
    assert!(echoed.stdout == bytes, "{} of {} bytes", echoed.stdout.len(), bytes.len());
    // One that reads none of it ends all the same.
    exec(&overseer, &bytes, &["--", "true"]).exits(0);
    assert_eq!(exec(&overseer, &bytes, &["-n", "--", "cat"]).exits(0).stdout, b"");

    // Both ways while it runs.
    let line = "echo ready; while read x; do echo \"got $x\"; done";
    let (mut child, mut output) = started(&overseer, Stdio::piped(), line);
    let mut stdin = child.stdin.take().unwrap();
    for word in ["one", "two"] {
        writeln!(stdin, "{word}").unwrap();
        let mut answer = String::new();
        output.read_line(&mut answer).unwrap();
        assert_eq!(answer, format!("got {word}\n"));
    }
    drop(stdin);
    assert!(wait(&mut child, timeout()).success());

    // Who reads no more has enough.
    let (mut child, output) = started(&overseer, Stdio::null(), "echo ready; exec yes");
    drop(output);
    assert_eq!(wait(&mut child, timeout()).code(), Some(141));
    is_gone(&overseer, "yes");
    overseer.fireclaw(&["agent", "stop", "puppet"]).exits(0);
    overseer.end();
}

#[test]
fn many_commands_at_once_wait_for_their_turn() {
    let _alone = alone();
    let overseer = Overseer::start(&[]);
    let mut ann = overseer.person("ann");
    ann.command("!invoke puppet", "is starting");
    let machine = overseer.ready("puppet");
    // More than a session has channels for, each held until nobody holds the lock: a guest in
    // which all of them looked again and again would have no time left to answer.
    let lock = "setsid flock /workspace/lock sh -c 'echo $$ >/workspace/holder; exec sleep 1000' \
                >/workspace/log 2>&1 & until [ -s /workspace/holder ]; do sleep 0.1; done";
    ann.say("puppet", &format!("run {lock}"));
    ann.hears("puppet", "me", "0:");
    let hold = "touch /workspace/held.$$; flock -s /workspace/lock echo went";
    let children: Vec<Child> = (0..40)
        .map(|_| {
            let mut command = command(&overseer, &["-n", "--", "sh", "-c", hold]);
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            command.spawn().unwrap()
        })
        .collect();
    wait_until("all channels to be taken", || {
        ann.say("puppet", "run ls /workspace | grep -c held");
        let said = ann.hears("puppet", "me", ": ");
        said.split(": ").nth(1).is_some_and(|held| held.parse::<u32>().unwrap() >= 8)
    });
    ann.say("puppet", "run kill $(cat /workspace/holder)");
    for child in children {
        assert_eq!(finish_child(child, timeout()).exits(0).stdout(), "went\n");
    }
    assert_eq!(overseer.ready("puppet"), machine, "it is the same machine");
    overseer.end();
}

#[test]
fn a_command_of_an_agents_machine_ends_with_who_asked() {
    let _alone = alone();
    let overseer = Overseer::start(&[]);
    overseer.fireclaw(&["agent", "start", "puppet"]).exits(0);
    overseer.ready("puppet");

    // Ctrl-C, also while more input waits than the command takes.
    let zero = || Stdio::from(std::fs::File::open("/dev/zero").unwrap());
    let sleeps = "echo ready; exec sleep 1000";
    let (mut child, _output) = started(&overseer, zero(), sleeps);
    signal(&child, Signal::INT);
    assert_eq!(wait(&mut child, timeout()).code(), Some(130));
    is_gone(&overseer, "sleep");
    // It may have its own way of ending.
    let own = "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.1; done";
    let (mut child, mut output) = started(&overseer, Stdio::null(), own);
    signal(&child, Signal::TERM);
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert_eq!((rest.as_str(), wait(&mut child, timeout()).code()), ("bye\n", Some(7)));
    // A second signal is not asked about.
    let stubborn = "trap '' INT; echo ready; exec sleep 1000";
    let (mut child, _output) = started(&overseer, Stdio::null(), stubborn);
    signal(&child, Signal::INT);
    signal(&child, Signal::TERM);
    assert!(matches!(wait(&mut child, timeout()).code(), Some(130 | 143)));
    is_gone(&overseer, "sleep");
    // Nor is kill -9.
    let (mut child, _output) = started(&overseer, zero(), sleeps);
    signal(&child, Signal::KILL);
    wait(&mut child, timeout());
    is_gone(&overseer, "sleep");

    // Nor is nonsense on the connection.
    let upgrade = "Connection: upgrade\r\nUpgrade: fireclaw-exec\r\n";
    let mut socket = post(&overseer, upgrade, r#"{"argv":["sleep","1000"]}"#);
    let mut output = BufReader::new(socket.try_clone().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert!(line.starts_with("HTTP/1.1 101"), "{line}");
    socket.write_all(&[9, 255, 255, 255, 255]).unwrap();
    output.read_to_end(&mut Vec::new()).unwrap();
    is_gone(&overseer, "sleep");
    // Nor is who no longer waits for the whole of it in one answer.
    let socket = post(&overseer, "", r#"{"argv":["sleep","1000"],"seconds":900}"#);
    wait_until("the command to run", || {
        let find = "grep -qx sleep /proc/[0-9]*/comm";
        exec(&overseer, b"", &["--", "sh", "-c", find]).code() == 0
    });
    drop(socket);
    is_gone(&overseer, "sleep");
    // The whole of it in one answer, for programs that want no streams.
    for (body, answer) in [
        (
            r#"{"argv":["sh","-c","echo b >&2; echo a; exit 3"]}"#,
            r#"{"output":"a\nb\n","status":3}"#,
        ),
        (r#"{"argv":["sleep","1000"],"seconds":0.2}"#, r#"{"output":"","status":null}"#),
        (r#"{"argv":[]}"#, r#"{"error":"argv is empty","kind":"bad-request"}"#),
        (
            r#"{"argv":["true"],"seconds":-1}"#,
            r#"{"error":"seconds is no time","kind":"bad-request"}"#,
        ),
    ] {
        let mut said = String::new();
        post(&overseer, "Connection: close\r\n", body).read_to_string(&mut said).unwrap();
        assert!(said.ends_with(answer), "{said}");
    }

    // What cannot be is said.
    let mut ann = overseer.person("ann");
    ann.command("!pause puppet", "paused");
    let paused = exec(&overseer, b"", &["--", "true"]).exits(125);
    // What can be done is said in the words of who asked.
    paused.says(&["puppet is paused", "fireclaw agent resume"]);
    overseer.fireclaw(&["agent", "resume", "puppet"]).exits(0);
    overseer.until("puppet", "ready");
    overseer.fireclaw(&["agent", "pause", "puppet"]).exits(0);
    overseer.until("puppet", "paused");
    ann.command("!resume puppet", "resumed");
    let (child, _output) = started(&overseer, Stdio::null(), sleeps);
    overseer.fireclaw(&["agent", "stop", "puppet"]).exits(0);
    // Who ends the VM has its processes end first.
    finish_child(child, timeout()).exits(143);
    overseer.end();
}
