//! An overseer of a test's own, and people on its private IRC server.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Instant;

use rustix::process::Signal;

use crate::harness::{Done, Home, finish, is_alive, patience, signal, wait, wait_until};

/// An agent program of the tests' own: it does what it is told, in JSON lines,
/// so that what is tested is everything around it.
const PUPPET: &str = r##"
import json, os, subprocess, sys
def act(**action):
    print(json.dumps(action), flush=True)
waiting = {}
for line in sys.stdin:
    event = json.loads(line)
    kind = event["event"]
    if kind == "configure":
        config = event
        act(action="ready")
    elif kind == "approval":
        message = waiting.pop(event["ask"])
        act(action="say", message=message, text="granted" if event["granted"] else "refused: " + event["reason"])
        act(action="done", message=message)
    elif kind == "stop":
        act(action="done", message=event["message"])
    elif kind == "message":
        number, text = event["id"], event["text"]
        word, _, rest = text.partition(" ")
        say = lambda what: act(action="say", message=number, text=what)
        if word == "echo":
            say(rest)
        elif word == "who":
            say("%s in %s%s after %d" % (event["from"], event["place"], " alone" if event["private"] else "", len(event["recent"])))
        elif word == "keep":
            open("/workspace/kept", "w").write(rest)
            os.sync()
            say("kept")
        elif word == "kept":
            say(open("/workspace/kept").read())
        elif word == "run":
            done = subprocess.run(rest, shell=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            say("%d: %s" % (done.returncode, " | ".join(done.stdout.split("\n")).strip(" |")[-350:]))
        elif word == "persona":
            say(config["persona"])
        elif word == "lines":
            say("\n".join("line %d" % n for n in range(int(rest))))
        elif word == "big":
            say("\n".join("%05d " % n + "x" * 93 for n in range(int(rest) // 100)))
        elif word == "evil":
            say("one\r\nQUIT :gone\r\nPRIVMSG #agents :forged\x01\x02\x0304red\x1b[2J\x00\u202eend")
            print("this is no action")
            print('{"action": "say", "message": 999999, "text": "not mine"}', flush=True)
            print("x" * 1000000, flush=True)
            say("still here")
        elif word == "flood":
            for n in range(2000):
                say("flood %d" % n)
        elif word == "ask":
            waiting[number] = number
            act(action="approve", ask=number, message=number, tool="run_command", what=rest)
            continue
        elif word == "hang":
            continue
        elif word == "die":
            os._exit(3)
        elif word == "to":
            say(rest)
        else:
            say("what?")
        act(action="done", message=number)
"##;

/// A home with an overseer that listens on a port of its own.
pub struct Overseer {
    pub home: Home,
    pub port: u16,
    options: Vec<String>,
    child: Child,
}

impl Overseer {
    /// Starts one with further options.
    pub fn start(options: &[&str]) -> Self {
        let home = Home::new();
        puppet(&home, "puppet", "");
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        let child = begin(&home, port, &options);
        Self { home, port, options, child }
    }

    /// Another template with the tests' own program, and further lines.
    pub fn puppet(&self, name: &str, lines: &str) {
        puppet(&self.home, name, lines);
    }

    /// Kills it as nothing can be prepared for.
    pub fn kill(&mut self) {
        signal(&self.child, Signal::KILL);
        wait(&mut self.child, patience());
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Has it killed at the n-th call of this kind that it makes from now on.
    pub fn kill_at(&self, call: &str, n: usize) -> Killer {
        let mut strace = std::process::Command::new("strace");
        strace.args(["-o", "/dev/null", "-e", &format!("trace={call}")]);
        strace.args(["-e", &format!("inject={call}:signal=KILL:when={n}")]);
        strace.args(["-p", &self.child.id().to_string()]).stderr(Stdio::piped());
        let mut child = strace.spawn().unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
        let attached = said.next().unwrap().unwrap();
        assert!(attached.contains("attached"), "{attached}");
        thread::spawn(move || said.for_each(drop));
        Killer(child)
    }

    /// Starts it again in the same home.
    pub fn again(&mut self) {
        self.child = begin(&self.home, self.port, &self.options);
    }

    /// `fireclaw` with these words, to its end.
    pub fn fireclaw(&self, words: &[&str]) -> Done {
        finish(self.home.fireclaw(words), Vec::new(), patience())
    }

    /// All agents, as `agent list --json` has them.
    pub fn agents(&self) -> Vec<serde_json::Value> {
        let done = self.fireclaw(&["agent", "list", "--json"]).exits(0);
        serde_json::from_slice(&done.stdout).unwrap()
    }

    /// The process id of an agent's monitor, once it is ready.
    pub fn ready(&self, name: &str) -> i32 {
        let mut pid = None;
        wait_until("an agent to be ready", || {
            let agents = self.agents();
            let agent = agents.iter().find(|agent| agent["name"] == name);
            pid = agent
                .filter(|agent| agent["condition"] == "ready")
                .and_then(|agent| agent["pid"].as_i64());
            pid.is_some()
        });
        i32::try_from(pid.unwrap()).unwrap()
    }

    /// Whether an agent is ready; it is not if nobody can say.
    pub fn is_ready(&self, name: &str) -> bool {
        let done = self.fireclaw(&["agent", "list", "--json"]);
        let agents: Vec<serde_json::Value> =
            serde_json::from_slice(&done.stdout).unwrap_or_default();
        agents.iter().any(|agent| agent["name"] == name && agent["condition"] == "ready")
    }

    /// The processes that it started with this on their command lines.
    pub fn children(&self, mark: &str) -> Vec<i32> {
        crate::harness::processes_of(&self.child, mark)
    }

    /// The same of one that may work on something.
    pub fn ready_or_busy(&self, name: &str) -> i32 {
        let mut pid = None;
        wait_until("an agent to be up", || {
            let agents = self.agents();
            let agent = agents.iter().find(|agent| agent["name"] == name);
            let is_up = |agent: &&serde_json::Value| {
                agent["condition"] == "ready" || agent["condition"] == "busy"
            };
            pid = agent.filter(is_up).and_then(|agent| agent["pid"].as_i64());
            pid.is_some()
        });
        i32::try_from(pid.unwrap()).unwrap()
    }

    /// Whether it started this process.
    pub fn has_child(&self, pid: i32) -> bool {
        crate::harness::processes_of(&self.child, "").contains(&pid)
    }

    /// Somebody in both channels, if there is a server.
    pub fn try_person(&self, nick: &str) -> Option<Person> {
        TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        Some(Person::join(self.port, nick))
    }

    /// Somebody in both channels.
    pub fn person(&self, nick: &str) -> Person {
        Person::join(self.port, nick)
    }

    /// Ends every agent and the overseer, and asserts that nothing is left.
    pub fn end(mut self) {
        for agent in self.agents() {
            self.fireclaw(&["agent", "stop", agent["name"].as_str().unwrap()]).exits(0);
        }
        signal(&self.child, Signal::TERM);
        assert!(wait(&mut self.child, patience()).success());
        let machines = self.home.path().join("machines");
        let left: Vec<_> = fs::read_dir(machines).into_iter().flatten().flatten().collect();
        assert!(left.is_empty(), "{left:?}");
        self.home.is_clean();
    }
}

impl Drop for Overseer {
    /// A failed test must not leave machines that outlive their overseer.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        for entry in fs::read_dir(self.home.path().join("machines")).into_iter().flatten().flatten()
        {
            let id = entry.file_name().into_string().unwrap();
            for line in crate::harness::processes_mentioning(&id) {
                let pid = line.split(' ').next().and_then(|pid| pid.parse().ok());
                if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
                    let _ = rustix::process::kill_process(pid, Signal::KILL);
                }
            }
        }
    }
}

/// What waits for an overseer to make a call. Without it the overseer is spared.
pub struct Killer(Child);

impl Drop for Killer {
    fn drop(&mut self) {
        // It lets go of what it traces.
        signal(&self.0, Signal::TERM);
        let _ = self.0.wait();
    }
}

fn puppet(home: &Home, name: &str, lines: &str) {
    let templates = home.path().join("templates");
    fs::create_dir_all(&templates).unwrap();
    // JSON's strings are TOML's.
    let program = serde_json::to_string(&["python3", "-c", PUPPET]).unwrap();
    let text = format!("description = \"for tests\"\ncommand = {program}\nmemory = 192\n{lines}");
    fs::write(templates.join(format!("{name}.toml")), text).unwrap();
}

fn begin(home: &Home, port: u16, options: &[String]) -> Child {
    let mut command = home.fireclaw(["overseer", "--port", &port.to_string()]);
    command.args(options).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut said = Vec::new();
    loop {
        let Some(line) = lines.next() else { panic!("the overseer ended: {said:?}") };
        said.push(line.unwrap());
        if said.last().unwrap().contains("listens in") {
            break;
        }
    }
    thread::spawn(move || lines.for_each(drop));
    child
}

/// Somebody with a plain socket.
pub struct Person {
    nick: String,
    socket: TcpStream,
    lines: Receiver<String>,
}

impl Person {
    fn join(port: u16, nick: &str) -> Self {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (tell, lines) = channel();
        let mut reader = BufReader::new(socket.try_clone().unwrap());
        let mut pong = socket.try_clone().unwrap();
        thread::spawn(move || {
            let mut line = Vec::new();
            while matches!(reader.read_until(b'\n', &mut line), Ok(1..)) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                line.clear();
                if let Some(rest) = text.strip_prefix("PING") {
                    let _ = pong.write_all(format!("PONG{rest}\r\n").as_bytes());
                } else if tell.send(text).is_err() {
                    return;
                }
            }
        });
        write!(socket, "NICK {nick}\r\nUSER {nick} 0 * :{nick}\r\n").unwrap();
        let mut person = Self { nick: nick.to_owned(), socket, lines };
        person.until(" 376 ");
        person.send("JOIN #control,#agents");
        person.until("366 ");
        person.until("366 ");
        person
    }

    /// Sends a line of IRC.
    pub fn send(&mut self, line: &str) {
        self.socket.write_all(format!("{line}\r\n").as_bytes()).unwrap();
    }

    /// Says something.
    pub fn say(&mut self, place: &str, text: &str) {
        self.send(&format!("PRIVMSG {place} :{text}"));
    }

    /// Gives a command in the control channel and waits for what must be answered.
    #[track_caller]
    pub fn command(&mut self, command: &str, answer: &str) -> String {
        self.say("#control", command);
        self.hears("overseer", "#control", answer)
    }

    /// Waits until somebody says something with these words, and gives all of it.
    #[track_caller]
    pub fn hears(&mut self, from: &str, place: &str, words: &str) -> String {
        let place = if place == "me" { self.nick.clone() } else { place.to_owned() };
        let (start, middle) = (format!(":{from}!"), format!(" PRIVMSG {place} :"));
        let mut seen = Vec::new();
        let deadline = Instant::now() + patience();
        loop {
            let line = self.next(deadline, words, &seen);
            if line.starts_with(&start)
                && let Some((_, said)) = line.split_once(&middle)
                && said.contains(words)
            {
                return said.to_owned();
            }
            seen.push(line);
        }
    }

    /// Waits for a line of IRC with these words.
    #[track_caller]
    pub fn until(&mut self, words: &str) -> String {
        let deadline = Instant::now() + patience();
        let mut seen = Vec::new();
        loop {
            let line = self.next(deadline, words, &seen);
            if line.contains(words) {
                return line;
            }
            seen.push(line);
        }
    }

    #[track_caller]
    fn next(&mut self, deadline: Instant, wanted: &str, seen: &[String]) -> String {
        match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => panic!("no {wanted:?} in {seen:#?}"),
            Err(RecvTimeoutError::Disconnected) => panic!("the server ended: {seen:#?}"),
        }
    }

    /// Waits until somebody is in a channel that this person is in.
    #[track_caller]
    pub fn sees(&mut self, channel: &str, nick: &str) {
        wait_until("somebody to join", || {
            self.send(&format!("NAMES {channel}"));
            let names = self.until(" 353 ");
            self.until(" 366 ");
            names.split([' ', ':', '@', '+']).any(|name| name == nick)
        });
    }

    /// All lines that have come so far.
    pub fn all(&mut self) -> Vec<String> {
        self.lines.try_iter().collect()
    }
}

/// Waits until a process is gone.
pub fn is_gone(pid: i32) {
    wait_until("a process to be gone", || !is_alive(pid));
}
