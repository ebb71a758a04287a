//! Guests whose root speaks to the host in the place of our program.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStderr, Stdio};

use crate::harness::{Home, finish_child, timeout};

/// Takes the stream to the host as PID 1 has it, and waits for its turn.
const TAKE: &str = r#"
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
init = libc.syscall(434, 1, 0)                       # pidfd_open(2)
ports = [n for n in os.listdir("/proc/1/fd") if "vport" in os.readlink("/proc/1/fd/" + n)]
stream = libc.syscall(438, init, int(ports[0]), 0)   # pidfd_getfd(2)
DATA, WINDOW, SYN = 0, 1, 1
def frame(kind, flags, channel, body=b""):
    return struct.pack(">BBHII", 0, kind, flags, channel, len(body)) + body
def send(data):
    while data:
        data = data[os.write(stream, data):]
def say(word):
    print(word, file=sys.stderr, flush=True)
say("ready")
sys.stdin.readline()
"#;

/// A run of this script once it is ready.
fn start(home: &Home, script: &str) -> (Child, BufReader<ChildStderr>) {
    let script = format!("{TAKE}{script}");
    let mut command = home.fireclaw(["run", "-q", "--vmm", "qemu", "--", "python3", "-c", &script]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    assert_eq!(line(&mut said), "ready\n");
    (child, said)
}

fn line(from: &mut impl BufRead) -> String {
    let mut line = String::new();
    from.read_line(&mut line).unwrap();
    line
}

/// The most memory that a process has had, in KiB.
fn peak_kib(child: &Child) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().strip_suffix(" kB").unwrap().parse().unwrap()
}

#[test]
fn a_guest_that_opens_a_channel_is_ended_and_that_is_said() {
    let home = Home::new();
    let (mut child, mut said) = start(&home, "send(frame(WINDOW, SYN, 2))\nsys.stdin.readline()\n");
    child.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    let told = line(&mut said);
    assert!(told.contains("the guest wants to open a channel"), "{told}");
    finish_child(child, timeout()).exits(125);
    home.is_clean();
}

#[test]
fn small_frames_cost_no_more_than_what_they_carry() {
    let home = Home::new();
    // As much as a channel's window lets through, a byte a frame, on the command's output.
    let script = "\
one = frame(DATA, 0, 5, b'x')
for _ in range(200 * 1024 // 1024):
    send(one * 1024)
say('done')
sys.stdin.readline()
os._exit(0)
";
    let (mut child, mut said) = start(&home, script);
    let before = peak_kib(&child);
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"go\n").unwrap();
    // Nobody reads the output meanwhile.
    assert_eq!(line(&mut said), "done\n");
    let more = peak_kib(&child) - before;
    assert!(more < 8 * 1024, "{more} KiB more for 200 KiB");
    stdin.write_all(b"end\n").unwrap();
    let done = finish_child(child, timeout()).exits(0);
    assert_eq!(done.stdout, vec![b'x'; 200 * 1024], "nothing is lost either");
    home.is_clean();
}
