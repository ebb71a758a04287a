//! An overseer of a test's own.

use std::cell::Cell;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::process::Signal;

use crate::harness::{Done, Home, finish, is_alive, signal, timeout, wait, wait_until};
use crate::person::Person;

/// What the agents of most tests do.
const PUPPET: &str = include_str!("puppet.py");

/// A home with an overseer that listens on a port of its own.
pub struct Overseer {
    pub home: Home,
    pub port: u16,
    options: Vec<String>,
    variables: Vec<(String, String)>,
    child: Child,
    /// What it said until it was ready.
    pub said: Vec<String>,
    /// What it said since.
    later: Lines,
    /// Whether it was held up by a tracer.
    was_traced: Cell<bool>,
}

/// Lines that come meanwhile.
type Lines = Arc<Mutex<Vec<String>>>;

impl Overseer {
    /// Starts one with further options.
    pub fn start(options: &[&str]) -> Self {
        // Any free one: what is chosen before could be taken by then.
        Self::at(0, options)
    }

    /// Starts one with this port.
    pub fn at(port: u16, options: &[&str]) -> Self {
        Self::with(port, options, &[])
    }

    /// Starts one with this port and these variables in its environment.
    pub fn with(port: u16, options: &[&str], variables: &[(&str, &str)]) -> Self {
        let home = Home::new();
        puppet(&home, "puppet", "");
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let variables: Vec<_> = variables.iter().map(own).collect();
        let (child, said, later) = begin(&home, port, &options, &variables);
        let port = private_port(&said).unwrap_or(port);
        let was_traced = Cell::new(false);
        Self { home, port, options, variables, child, said, later, was_traced }
    }

    /// All that it has said on standard error.
    pub fn lines(&self) -> Vec<String> {
        let later = self.later.lock().unwrap();
        self.said.iter().chain(later.iter()).cloned().collect()
    }

    /// Waits until it has said this on standard error, after it was ready.
    pub fn says(&self, text: &str) {
        wait_until(text, || self.later.lock().unwrap().iter().any(|line| line.contains(text)));
    }

    /// Another template with the tests' own program, and further lines.
    pub fn puppet(&self, name: &str, lines: &str) {
        puppet(&self.home, name, lines);
    }

    /// Kills it as nothing can be prepared for.
    pub fn kill(&mut self) {
        signal(&self.child, Signal::KILL);
        wait(&mut self.child, timeout());
    }

    /// Ends it, and leaves its agents where they are.
    pub fn stop(&mut self) {
        signal(&self.child, Signal::TERM);
        assert!(wait(&mut self.child, timeout()).success());
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Has it killed at the n-th call of this kind that one of its threads makes from now on.
    pub fn kill_at(&self, call: &str, n: usize) -> Killer {
        self.was_traced.set(true);
        let mut strace = std::process::Command::new("strace");
        strace.args(["-o", "/dev/null", "-e", &format!("trace={call}")]);
        strace.args(["-e", &format!("inject={call}:signal=KILL:when={n}")]);
        // All of its threads; what it starts is let go.
        strace
            .args(["-f", "-b", "execve", "-p", &self.child.id().to_string()])
            .stderr(Stdio::piped());
        let mut child = strace.spawn().unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
        let attached = said.next().unwrap().unwrap();
        assert!(attached.contains("attached"), "{attached}");
        thread::spawn(move || said.for_each(drop));
        Killer(child)
    }

    /// Starts it again in the same home.
    pub fn again(&mut self) {
        (self.child, self.said, self.later) =
            begin(&self.home, self.port, &self.options, &self.variables);
        self.port = private_port(&self.said).unwrap_or(self.port);
    }

    /// `fireclaw` with these words, to its end.
    pub fn fireclaw(&self, words: &[&str]) -> Done {
        finish(self.home.fireclaw(words), Vec::new(), timeout())
    }

    /// All agents, as `agent ls --json` has them.
    pub fn agents(&self) -> Vec<serde_json::Value> {
        let done = self.fireclaw(&["agent", "ls", "--json"]).exits(0);
        serde_json::from_slice(&done.stdout).unwrap()
    }

    /// What is told of an agent, once it is in this condition.
    pub fn until(&self, name: &str, condition: &str) -> serde_json::Value {
        let mut found = None;
        wait_until(condition, || {
            let agents = self.agents();
            found = agents.into_iter().find(|a| a["name"] == name && a["condition"] == condition);
            found.is_some()
        });
        found.unwrap()
    }

    /// The process id of an agent's VMM, once it is ready.
    pub fn ready(&self, name: &str) -> i32 {
        i32::try_from(self.until(name, "ready")["pid"].as_i64().unwrap()).unwrap()
    }

    /// Whether an agent is ready; it is not if nobody can say.
    pub fn is_ready(&self, name: &str) -> bool {
        let done = self.fireclaw(&["agent", "ls", "--json"]);
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
        Some(self.person(nick))
    }

    /// Somebody in both channels.
    pub fn person(&self, nick: &str) -> Person {
        Person::join_with(self.port, nick, self.password().as_deref())
    }

    /// The same, who has invoked an agent that is ready: of a template, by its name or another
    /// (`puppet bob`).
    pub fn person_with(&self, nick: &str, agent: &str) -> Person {
        let mut person = self.person(nick);
        person.command(&format!("!invoke {agent}"), "is starting");
        self.ready(agent.rsplit(' ').next().unwrap());
        person
    }

    /// The password of its own server, if it has one.
    pub fn password(&self) -> Option<String> {
        let text = fs::read_to_string(self.home.path().join("irc/password")).ok()?;
        Some(text.trim_end().to_owned())
    }

    /// Ends every agent and the overseer, and asserts that nothing is left and that nothing held
    /// its thread up.
    pub fn end(mut self) {
        for agent in self.agents() {
            self.fireclaw(&["agent", "stop", agent["name"].as_str().unwrap()]).exits(0);
        }
        self.stop();
        if !self.was_traced.get() {
            let log = fs::read_to_string(self.home.path().join("overseer.log")).unwrap();
            let long = |line: &&str| line.contains("thread was held up");
            assert_eq!(log.lines().find(long), None, "{log}");
        }
        let machines = self.home.path().join("machines");
        let left: Vec<_> = fs::read_dir(machines).into_iter().flatten().flatten().collect();
        assert!(left.is_empty(), "{left:?}");
        self.home.is_clean();
    }
}

impl Drop for Overseer {
    /// A failed test must not leave VMs that outlive their overseer.
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

fn begin(
    home: &Home,
    port: u16,
    options: &[String],
    variables: &[(String, String)],
) -> (Child, Vec<String>, Lines) {
    let mut command = home.fireclaw(["overseer", "--port", &port.to_string()]);
    command.envs(variables.iter().cloned()).args(options);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
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
    let later = Lines::default();
    let heard = Arc::clone(&later);
    thread::spawn(move || {
        lines.for_each(|line| heard.lock().unwrap().extend(line));
    });
    (child, said, later)
}

/// Where its own server is, from what it said.
fn private_port(said: &[String]) -> Option<u16> {
    let line = said.iter().find(|line| line.contains("a private IRC server is on"))?;
    let (_, rest) = line.split_once("127.0.0.1:")?;
    rest.split(';').next()?.parse().ok()
}

/// A port that nobody listens on, for servers that cannot choose one themselves. The kernel
/// gives none of these to others, and none is given out twice here.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        // From another one on than another run of the tests on this host.
        let first = u16::try_from(std::process::id() * 64 % 10_000).unwrap();
        let port = 20_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Kills a process as nothing can be prepared for.
pub fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
}

/// Waits until a process is gone.
pub fn is_gone(pid: i32) {
    wait_until("a process to be gone", || !is_alive(pid));
}
