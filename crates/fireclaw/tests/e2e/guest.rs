//! What the program inside a VM promises: to images, and to what agents keep.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::harness::{Done, Home, alone, finish, timeout, wait_until};
use crate::overseer::{Overseer, is_gone, kill};

/// The id of the VM that an image was made on.
const MAKERS_ID: &str = "0123456789abcdef0123456789abcdef\n";

/// Users with ids that no process can have. Such a command would stay root.
const PASSWD: &str = "x:x:4294967295:4294967295::/:/bin/sh\n\
                      y:x:1000:4294967295::/:/bin/sh\n\
                      z:x:1001:1001::/:/bin/sh\n";
const GROUP: &str = "g:x:4294967295:z\nh:x:7:z\n";

/// A root file system with files where programs expect them after a boot.
fn root() -> Vec<u8> {
    let busybox = fs::read("/bin/busybox").expect("Debian's busybox-static, see the Makefile");
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |name: &str, kind: tar::EntryType, mode: u32, owner: u64, data: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(owner);
        header.set_gid(owner);
        header.set_size(data.len() as u64);
        tar.append_data(&mut header, name, data).unwrap();
    };
    use tar::EntryType::{Directory, Regular};
    for directory in ["bin", "etc", "run", "var", "var/lib", "var/lib/dbus"] {
        add(directory, Directory, 0o755, 0, b"");
    }
    for applet in ["sh", "cat", "id", "stat"] {
        add(&format!("bin/{applet}"), Regular, 0o755, 0, &busybox);
    }
    add("etc/passwd", Regular, 0o644, 0, PASSWD.as_bytes());
    add("etc/group", Regular, 0o644, 0, GROUP.as_bytes());
    add("etc/machine-id", Regular, 0o444, 0, MAKERS_ID.as_bytes());
    add("var/lib/dbus/machine-id", Regular, 0o444, 0, MAKERS_ID.as_bytes());
    add("run/postgresql", Directory, 0o2775, 999, b"");
    add("tmp", Directory, 0o1777, 0, b"");
    add("tmp/app", Regular, 0o640, 999, b"app\n");
    tar.into_inner().unwrap()
}

#[test]
fn the_hosts_randomness_reaches_the_guests_kernel() {
    let home = Home::new();
    let done =
        home.run(["cat /sys/class/misc/hw_random/rng_current; head -c 16 /dev/hwrng | wc -c"]);
    assert_eq!(done.exits(0).stdout(), "virtio_rng.0\n16\n");
}

#[test]
fn an_image_has_its_own_places_and_no_id_of_its_maker() {
    let home = Home::with_images_of_its_own();
    finish(home.fireclaw(["image", "add", "own", "-"]), root(), timeout()).exits(0);

    let script = "stat -c '%a %u %n' /run /run/postgresql /tmp /tmp/app && : >/run/postgresql/s &&
        cat /tmp/app /etc/machine-id /var/lib/dbus/machine-id";
    let done = home.run(["--image", "own", "--user", "999", "--", "sh", "-c", script]).exits(0);
    let stdout = done.stdout();
    let lines: Vec<&str> = stdout.lines().collect();
    let places = ["755 0 /run", "2775 999 /run/postgresql", "1777 0 /tmp", "640 999 /tmp/app"];
    assert_eq!(lines[..5], [&places[..], &["app"]].concat());
    assert_eq!((lines[5].len(), lines[5]), (32, lines[6]));
    assert_ne!(lines[5], MAKERS_ID.trim());

    for user in ["x", "y", "1000"] {
        let done = home.run(["--image", "own", "--user", user, "id"]).exits(125);
        done.says(&[user, "0 to 4294967294"]);
    }
    let done = home.run(["--image", "own", "--user", "z", "id -u; id -g; id -G"]).exits(0);
    assert_eq!(done.stdout(), "1001\n1001\n1001 7\n");
    home.is_clean();
}

/// The built-in agent in the VM of another, with a test as its host.
struct Loop {
    child: std::process::Child,
    to: std::process::ChildStdin,
    from: BufReader<std::process::ChildStdout>,
}

impl Loop {
    fn start(overseer: &Overseer, agent: &str) -> Self {
        let words = ["agent", "exec", agent, "--", "/run/fireclaw/guest", "agent"];
        let mut command = overseer.home.fireclaw(words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let (to, from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut this = Self { child, to, from: BufReader::new(from) };
        this.tell(&json!({
            "event": "configure", "name": "worker", "nick": "worker", "persona": "A test.",
            "model": "scripted", "context_tokens": 8192, "tools": true, "max_rounds": 4,
            "command_seconds": 50, "max_lines": 5,
        }));
        this.until("ready");
        this
    }

    fn tell(&mut self, event: &Value) {
        writeln!(self.to, "{event}").unwrap();
    }

    fn until(&mut self, action: &str) -> Value {
        loop {
            let mut line = String::new();
            assert_ne!(self.from.read_line(&mut line).unwrap(), 0, "it ended before {action}");
            let said: Value = serde_json::from_str(&line).unwrap();
            if said["action"] == action {
                return said;
            }
        }
    }

    /// Has it remember something, up to the moment at which it tells the model that it did;
    /// the number of that question to the model.
    fn remember(&mut self, number: u64, text: &str) -> Value {
        self.tell(&json!({
            "event": "message", "id": number, "place": "ann", "private": true, "from": "ann",
            "text": format!("remember this: {text}"),
        }));
        let ask = self.until("think")["ask"].clone();
        let arguments = json!({ "name": format!("fact {number}"), "text": text });
        let call = json!({ "id": "1", "name": "save_memory", "arguments": arguments });
        self.tell(&json!({ "event": "thought", "ask": ask, "step": { "call": [call] } }));
        let think = self.until("think");
        let results = think["messages"].as_array().unwrap();
        let result = results.last().unwrap()["content"].as_str().unwrap();
        assert!(result.starts_with("Saved"), "{result}");
        think["ask"].clone()
    }

    /// Answers the question, which ends the message.
    fn answer(&mut self, ask: &Value) {
        self.tell(&json!({ "event": "thought", "ask": ask, "step": { "say": "I will." } }));
        self.until("done");
    }
}

fn exec(overseer: &Overseer, words: &[&str]) -> Done {
    overseer.fireclaw(&[&["agent", "exec", "puppet", "-n", "--"], words].concat())
}

#[test]
fn what_an_agent_was_told_is_saved_survives_its_machine() {
    let _alone = alone();
    let overseer = Overseer::start(&[]);
    overseer.fireclaw(&["agent", "start", "puppet"]).exits(0);
    let mut pid = overseer.ready("puppet");
    // Each round one more is saved, the last at the moment of the kill.
    for round in 1..=3_u64 {
        let mut agent = Loop::start(&overseer, "puppet");
        let words: Vec<String> = (1..=round).map(|n| format!("swordfish-{round}-{n}")).collect();
        for (n, word) in words.iter().enumerate() {
            let number = round * 10 + n as u64;
            let ask = agent.remember(number, &format!("the word is {word}"));
            if n + 1 < words.len() {
                agent.answer(&ask);
            }
        }
        kill(pid);
        is_gone(pid);
        let _ = agent.child.wait();
        let mut next = pid;
        wait_until("another machine", || {
            next = overseer.ready_or_busy("puppet");
            next != pid
        });
        pid = overseer.ready("puppet");
        for word in words {
            // Not all that is there can be read by the agent.
            let find = format!("find /workspace -type f 2>/dev/null | xargs grep -q {word}");
            exec(&overseer, &["sh", "-c", &find]).exits(0);
        }
        // No file is there but empty, and none is half done.
        let line = "find /workspace -name '.*.new' -o -type f -empty -name '*.md' 2>/dev/null; :";
        assert_eq!(exec(&overseer, &["sh", "-c", line]).exits(0).stdout(), "");
    }
    overseer.end();
}

#[test]
fn an_orderly_end_loses_nothing_that_was_written() {
    let _alone = alone();
    let overseer = Overseer::start(&[]);
    overseer.fireclaw(&["agent", "start", "puppet"]).exits(0);
    overseer.ready("puppet");

    // Memory that runs out is told, and the VM goes on.
    let hungry = "x = []\nwhile 1: x.append(b'a' * (1 << 20))";
    exec(&overseer, &["python3", "-c", hungry]).exits(137).says(&["ran out of memory"]);
    exec(&overseer, &["true"]).exits(0);

    // Words that are too long for the kernel: its limits are named.
    let said =
        ask(&overseer, &json!({ "argv": ["sh", "-c", ": ".to_owned() + &"0".repeat(200_000)] }));
    assert_eq!(said["status"], 126, "{said}");
    assert!(said["output"].as_str().unwrap().contains("131072"), "{said}");
    let words: Vec<String> =
        std::iter::once("true".into()).chain((0..30).map(|_| "0".repeat(100_000))).collect();
    let said = ask(&overseer, &json!({ "argv": words }));
    assert_eq!(said["status"], 126, "{said}");
    assert!(said["output"].as_str().unwrap().contains("2097152"), "{said}");
    let said = ask(&overseer, &json!({ "argv": ["true"], "user": "4294967295" }));
    assert!(said["error"].as_str().unwrap().contains("0 to 4294967294"), "{said}");

    // Written by a program that syncs nothing, and by one that does so when it is told to end.
    exec(&overseer, &["sh", "-c", "echo kept >/workspace/plain; seq 100000 >/workspace/long"])
        .exits(0);
    let line = "import os, signal, time
def save(*_):
    open('/workspace/late', 'w').write('kept'); os._exit(0)
signal.signal(signal.SIGTERM, save)
open('/workspace/waits', 'w').close()
while 1: time.sleep(100)";
    let mut late =
        overseer.home.fireclaw(["agent", "exec", "puppet", "-n", "--", "python3", "-c", line]);
    let mut late =
        late.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until("a program to wait", || {
        exec(&overseer, &["test", "-e", "/workspace/waits"]).code() == 0
    });
    overseer.fireclaw(&["agent", "stop", "puppet"]).exits(0);
    let _ = late.wait();
    overseer.fireclaw(&["agent", "start", "puppet"]).exits(0);
    overseer.ready("puppet");
    let line = "cat /workspace/plain /workspace/late; seq 100000 | cmp - /workspace/long";
    assert_eq!(exec(&overseer, &["sh", "-c", line]).exits(0).stdout(), "kept\nkept");

    // A paused one, too: what it wrote last is in its memory.
    exec(&overseer, &["sh", "-c", "echo paused >/workspace/plain"]).exits(0);
    let mut ann = overseer.person("ann");
    ann.command("!pause puppet", "is paused");
    overseer.until("puppet", "paused");
    overseer.fireclaw(&["agent", "stop", "puppet"]).exits(0);
    overseer.fireclaw(&["agent", "start", "puppet"]).exits(0);
    overseer.ready("puppet");
    assert_eq!(exec(&overseer, &["cat", "/workspace/plain"]).exits(0).stdout(), "paused\n");
    overseer.end();
}

/// A command by the daemon's socket, as any program asks for it; the answer's body.
fn ask(overseer: &Overseer, exec: &Value) -> Value {
    let mut socket = UnixStream::connect(overseer.home.path().join("daemon.sock")).unwrap();
    socket.set_read_timeout(Some(timeout())).unwrap();
    let body = exec.to_string();
    write!(
        socket,
        "POST /v1/agents/puppet/exec HTTP/1.1\r\nHost: fireclaw\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {answer}"))
}
