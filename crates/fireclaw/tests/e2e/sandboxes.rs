//! Sandboxes with a name: they stay until they are removed.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::harness::{self, Done, Home, alone, finish, timeout, wait, wait_until};
use crate::overseer::Overseer;
use crate::tmux::Tmux;

/// A home with a daemon that commands start. All of it goes at the end.
struct Sandboxes {
    home: Home,
}

impl Sandboxes {
    fn new() -> Self {
        Self { home: Home::new() }
    }

    fn fireclaw(&self, words: &[&str]) -> Done {
        finish(self.home.fireclaw(words), Vec::new(), timeout())
    }

    fn inspect(&self, name: &str) -> Value {
        let done = self.fireclaw(&["inspect", name]).exits(0);
        serde_json::from_slice::<Value>(&done.stdout).unwrap()[0].clone()
    }

    fn condition(&self, name: &str) -> String {
        self.inspect(name)["condition"].as_str().unwrap().to_owned()
    }

    /// What a shell line writes in a sandbox.
    fn says(&self, name: &str, line: &str) -> String {
        self.fireclaw(&["exec", "-n", name, "sh", "-c", line]).exits(0).stdout()
    }

    fn daemon(&self) -> Pid {
        let done = self.fireclaw(&["daemon", "status", "--json"]).exits(0);
        let about: Value = serde_json::from_slice(&done.stdout).unwrap();
        Pid::from_raw(about["daemon"]["pid"].as_i64().unwrap().try_into().unwrap()).unwrap()
    }

    fn vmm(&self, name: &str) -> Pid {
        let pid = self.inspect(name)["pid"].as_i64().unwrap();
        Pid::from_raw(pid.try_into().unwrap()).unwrap()
    }

    /// Removes everything, and looks that nothing is left.
    fn end(self) {
        let all = self.fireclaw(&["ls", "-aq"]).exits(0).stdout();
        let names: Vec<&str> = all.lines().collect();
        if !names.is_empty() {
            self.fireclaw(&[&["rm", "-f"], &names[..]].concat()).exits(0);
        }
        self.fireclaw(&["daemon", "stop"]).exits(0);
        let log = fs::read_to_string(self.home.path().join("overseer.log")).unwrap_or_default();
        let stalls: Vec<_> = log.lines().filter(|line| line.contains("held up")).collect();
        assert!(stalls.is_empty(), "{stalls:#?}");
        for directory in ["sandboxes", "machines"] {
            let left = fs::read_dir(self.home.path().join(directory)).into_iter().flatten();
            assert_eq!(left.count(), 0, "{directory}");
        }
        let manifest = fs::read_to_string(self.home.path().join("manifest.json")).unwrap();
        assert!(!manifest.contains("pinned"), "{manifest}");
        self.home.is_clean();
    }
}

impl Drop for Sandboxes {
    fn drop(&mut self) {
        // After a failure: what is left would outlive the test.
        if std::thread::panicking() {
            let _ = self.home.fireclaw(["ls", "-a"]).status();
            let all = self.home.fireclaw(["ls", "-aq"]).output();
            let all = all.map(|all| String::from_utf8_lossy(&all.stdout).into_owned());
            for name in all.unwrap_or_default().lines() {
                let _ = self.home.fireclaw(["rm", "-f", name]).output();
            }
            let _ = self.home.fireclaw(["daemon", "stop"]).output();
        }
    }
}

#[test]
fn one_is_made_stopped_and_found_again_as_it_was() {
    let sandboxes = Sandboxes::new();
    let fireclaw = |words: &[&str]| sandboxes.fireclaw(words);
    assert_eq!(fireclaw(&["run", "-d", "--name", "box"]).exits(0).stdout(), "box\n");
    let first = sandboxes.says(
        "box",
        "echo kept >/kept; mkdir /made; rm /etc/motd; ln -s /kept /root/link; cat /etc/hostname \
         /etc/machine-id; mount | grep -c workspace || true",
    );
    assert!(first.starts_with("box\n"), "{first}");
    fireclaw(&["stop", "box"]).exits(0);
    assert_eq!(sandboxes.condition("box"), "exited");
    assert_eq!(fireclaw(&["ls", "-q"]).exits(0).stdout(), "");
    fireclaw(&["exec", "box", "true"]).exits(125).says(&["box is exited", "fireclaw start"]);
    fireclaw(&["start", "box"]).exits(0);
    let again = "cat /root/link; ls -d /made; test ! -e /etc/motd; cat /etc/hostname \
                 /etc/machine-id; mount | grep -c workspace || true";
    assert_eq!(sandboxes.says("box", again), format!("kept\n/made\n{first}"));
    // The name may change, and what is in it stays.
    fireclaw(&["rename", "box", "chest"]).exits(0);
    assert_eq!(sandboxes.says("chest", "cat /kept"), "kept\n");
    fireclaw(&["stop", "chest"]).exits(0);
    fireclaw(&["start", "chest"]).exits(0);
    assert_eq!(sandboxes.says("chest", "cat /kept /etc/hostname"), "kept\nchest\n");

    // What cannot be is said.
    let taken = fireclaw(&["create", "--name", "chest"]).exits(1);
    taken.says(&["the name chest is taken", "hint:"]);
    fireclaw(&["stop", "box"]).exits(1).says(&["there is no sandbox box", "chest"]);
    fireclaw(&["rm", "chest"]).exits(1).says(&["has not been stopped", "fireclaw rm -f"]);
    fireclaw(&["create", "--name", "../x"]).exits(1).says(&["../x"]);
    fireclaw(&["create", "--name", "x", "-t", "5"]).exits(2).says(&["--timeout"]);
    fireclaw(&["attach", "chest"]).exits(125).says(&["no command to attach to"]);
    fireclaw(&["rename", "chest", "-x"]).exits(2);
    assert_eq!(fireclaw(&["ls", "-aq"]).exits(0).stdout(), "chest\n");
    sandboxes.end();
}

#[test]
fn a_state_that_was_lost_comes_back_with_its_sandboxes() {
    let sandboxes = Sandboxes::new();
    let fireclaw = |words: &[&str]| sandboxes.fireclaw(words).exits(0).stdout();
    fireclaw(&["run", "-d", "--name", "box"]);
    sandboxes.says("box", "echo kept >/kept");
    fireclaw(&["stop", "box"]);
    fireclaw(&["daemon", "stop"]);
    let (state, backup) =
        ["state.db", "backup"].map(|name| sandboxes.home.path().join(name)).into();
    fs::rename(&state, &backup).unwrap();
    // Neither the daemon that finds none nor the next one takes anything for garbage.
    for _ in 0..2 {
        assert_eq!(fireclaw(&["ls", "-aq"]), "");
        fireclaw(&["daemon", "stop"]);
    }
    fs::rename(&backup, &state).unwrap();
    fireclaw(&["start", "box"]);
    assert_eq!(sandboxes.says("box", "cat /kept"), "kept\n");
    sandboxes.end();
}

#[test]
fn a_command_has_its_streams_its_log_and_its_status() {
    let sandboxes = Sandboxes::new();
    let line = "read word; echo got $word; echo err >&2; printf '\\033[31mred\\n'; exit 7";
    let mut command = sandboxes.home.fireclaw(["run", "--name", "job", line]);
    command.env_remove("FIRECLAW_QUIET");
    let done = finish(command, b"hello\n".to_vec(), timeout()).exits(7);
    assert_eq!(done.stdout(), "got hello\n\u{1b}[31mred\n");
    done.says(&["err\n"]);
    // It is over when the command has ended, and can be asked for and removed.
    let inspected = sandboxes.inspect("job");
    assert_eq!((&inspected["condition"], &inspected["status"]), (&"exited".into(), &7.into()));
    assert_eq!(sandboxes.fireclaw(&["wait", "job"]).exits(0).stdout(), "7\n");
    let list = sandboxes.fireclaw(&["ls", "-a"]).exits(0).stdout();
    assert!(list.contains("exited (7)"), "{list}");
    let mut log: Vec<String> =
        sandboxes.fireclaw(&["logs", "job"]).exits(0).stdout().lines().map(str::to_owned).collect();
    log.sort();
    assert_eq!(log, ["\\u{1b}[31mred", "err", "got hello"]);
    // Started again without anybody to read from.
    sandboxes.fireclaw(&["start", "job"]).exits(0);
    sandboxes.fireclaw(&["rm", "-f", "job"]).exits(0);

    // One that is removed with its command.
    let done = sandboxes.fireclaw(&["run", "--rm", "--name", "job", "-n", "cat; echo over"]);
    assert_eq!(done.exits(0).stdout(), "over\n");
    assert_eq!(sandboxes.fireclaw(&["ls", "-aq"]).exits(0).stdout(), "");
    let done = sandboxes.fireclaw(&["run", "--rm", "--name", "job", "--", "/no/such/program"]);
    done.exits(127).says(&["/no/such/program"]);
    assert_eq!(sandboxes.fireclaw(&["ls", "-aq"]).exits(0).stdout(), "");
    // One that cannot be started says why, and stays to be looked at.
    let done = sandboxes.fireclaw(&["run", "-d", "--name", "job", "--", "/no/such/program"]);
    done.exits(127).says(&["could not be started", "/no/such/program"]);
    assert_eq!(sandboxes.condition("job"), "failed");
    assert_eq!(sandboxes.inspect("job")["status"], 127);
    sandboxes.end();
}

#[test]
fn a_program_goes_on_when_its_daemon_dies_and_loses_nothing() {
    let _alone = alone();
    let sandboxes = Sandboxes::new();
    let line = "n=0; until [ -e /stop ]; do n=$((n+1)); echo line $n; sleep 0.05; done; echo end";
    sandboxes.fireclaw(&["run", "-d", "--name", "loop", line]).exits(0);
    sandboxes.fireclaw(&["run", "-d", "--name", "idle"]).exits(0);
    let log = || sandboxes.fireclaw(&["logs", "-n", "100000", "loop"]).exits(0).stdout();
    wait_until("some lines", || log().lines().count() > 5);
    let (vmm, started) = (sandboxes.vmm("loop"), sandboxes.inspect("loop")["started"].clone());
    let boot = sandboxes.says("loop", "cat /proc/sys/kernel/random/boot_id");
    for signal in [Signal::TERM, Signal::KILL] {
        let daemon = sandboxes.daemon();
        kill_process(daemon, signal).unwrap();
        // Told to end it stays away until it is needed; killed it comes back by itself.
        if signal == Signal::KILL {
            let status = ["daemon", "status"];
            wait_until("another daemon", || {
                sandboxes.fireclaw(&status).code() == 0 && sandboxes.daemon() != daemon
            });
        } else {
            wait_until("its end", || sandboxes.fireclaw(&["daemon", "status"]).code() == 1);
        }
        let before = log().lines().count();
        wait_until("more lines", || log().lines().count() > before + 5);
        assert_eq!(sandboxes.vmm("loop"), vmm);
        assert_eq!(sandboxes.says("idle", "echo well"), "well\n");
    }
    assert_eq!(sandboxes.inspect("loop")["started"], started);
    assert_eq!(sandboxes.says("loop", "cat /proc/sys/kernel/random/boot_id; touch /stop"), boot);
    assert_eq!(sandboxes.fireclaw(&["wait", "loop"]).exits(0).stdout(), "0\n");
    let text = log();
    let mut lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.pop(), Some("end"));
    // A daemon that is killed may have written lines of which the guest was not told.
    lines.dedup();
    let mut numbers: Vec<u32> = lines.iter().map(|line| line[5..].parse().unwrap()).collect();
    let last = *numbers.last().unwrap();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers, (1..=last).collect::<Vec<_>>());
    sandboxes.end();
}

#[test]
fn a_stop_that_its_daemon_does_not_survive_is_gone_on_with() {
    let _alone = alone();
    let sandboxes = Sandboxes::new();
    let line = "trap '' TERM; echo up; while :; do sleep 1; done";
    sandboxes.fireclaw(&["run", "-d", "--restart", "always", "--name", "stubborn", line]).exits(0);
    wait_until("its trap", || {
        sandboxes.fireclaw(&["logs", "stubborn"]).exits(0).stdout() == "up\n"
    });
    let mut stop = sandboxes.home.fireclaw(["stop", "-t", "1000", "stubborn"]);
    let mut stop = stop.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until("the stop", || sandboxes.condition("stubborn") == "stopping");
    kill_process(sandboxes.daemon(), Signal::KILL).unwrap();
    assert!(!wait(&mut stop, timeout()).success());
    // The next daemon gives it the usual time, and does not start it again.
    assert_eq!(sandboxes.fireclaw(&["wait", "stubborn"]).exits(0).stdout(), "137\n");
    assert_eq!(sandboxes.condition("stubborn"), "exited");
    sandboxes.end();
}

#[test]
fn what_ends_is_started_again_as_its_policy_says() {
    let _alone = alone();
    let sandboxes = Sandboxes::new();
    let count = "n=$(cat /n 2>/dev/null || echo 0); echo $((n+1)) >/n; sync; ";
    let fails = format!("{count} exit 3");
    let policy = ["run", "-d", "--restart", "on-failure:2", "--name", "fails", &fails];
    sandboxes.fireclaw(&policy).exits(0);
    wait_until("the last time", || sandboxes.condition("fails") == "exited");
    let inspected = sandboxes.inspect("fails");
    assert_eq!((&inspected["status"], &inspected["restarts"]), (&3.into(), &2.into()));

    // A VM that is lost counts as a failure, and what was written is there.
    let stays = format!("{count} exec sleep 1000");
    let policy = ["run", "-d", "--restart", "unless-stopped", "--name", "stays", &stays];
    sandboxes.fireclaw(&policy).exits(0);
    wait_until("its count", || sandboxes.says("stays", "cat /n 2>/dev/null; true") == "1\n");
    let vmm = sandboxes.vmm("stays");
    kill_process(vmm, Signal::KILL).unwrap();
    wait_until("another VM", || {
        let inspected = sandboxes.inspect("stays");
        inspected["condition"] == "running" && inspected["restarts"] == 1
    });
    wait_until("its count", || sandboxes.says("stays", "cat /n") == "2\n");
    // It is stopped until somebody starts it, also for the next daemon.
    sandboxes.fireclaw(&["stop", "-t", "0", "stays"]).exits(0);
    assert_eq!(sandboxes.inspect("stays")["status"], 137);
    sandboxes.fireclaw(&["daemon", "stop"]).exits(0);
    assert_eq!(sandboxes.condition("stays"), "exited");
    // What ran when the host went down is started with the daemon.
    sandboxes.fireclaw(&["start", "stays"]).exits(0);
    let vmm = sandboxes.vmm("stays");
    sandboxes.fireclaw(&["daemon", "stop"]).exits(0);
    kill_process(vmm, Signal::KILL).unwrap();
    wait_until("another VM", || sandboxes.condition("stays") == "running");
    // Who kills it does not want it back.
    sandboxes.fireclaw(&["kill", "stays"]).exits(0);
    assert_eq!(sandboxes.fireclaw(&["wait", "stays"]).exits(0).stdout(), "137\n");
    assert_eq!(sandboxes.condition("stays"), "exited");
    sandboxes.end();
}

#[test]
fn ports_variables_and_users_are_those_it_was_made_with() {
    let sandboxes = Sandboxes::new();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let publish = format!("{port}:8000/tcp");
    let serve = "cd /srv && echo $GREETING >index.html && exec python3 -m http.server 8000";
    let create = [
        "create",
        "--name",
        "web",
        "--publish",
        &publish,
        "-e",
        "GREETING=hello",
        "-u",
        "root",
        "-w",
        "/tmp",
        serve,
    ];
    sandboxes.fireclaw(&create).exits(0);
    assert_eq!(sandboxes.condition("web"), "created");
    sandboxes.fireclaw(&["start", "web"]).exits(0);
    let get = || {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    };
    wait_until("an answer", || get().is_some_and(|answer| answer.ends_with("hello\n")));
    let shown = sandboxes.fireclaw(&["port", "web"]).exits(0).stdout();
    assert_eq!(shown, format!("8000/tcp -> 127.0.0.1:{port}\n"));
    assert_eq!(sandboxes.says("web", "echo $GREETING; pwd; id -un"), "hello\n/tmp\nroot\n");
    let own = ["exec", "-n", "-u", "agent", "-w", "/", "-e", "GREETING=x", "web", "sh", "-c"];
    let own = sandboxes.fireclaw(&[&own[..], &["echo $GREETING; pwd; id -un"]].concat()).exits(0);
    assert_eq!(own.stdout(), "x\n/\nagent\n");
    let file = sandboxes.home.path().join("variables");
    fs::write(&file, "# of a file\nGREETING=file\nOTHER=file\n").unwrap();
    let words = ["run", "--env-file", file.to_str().unwrap(), "-e", "OTHER=option"];
    let done = sandboxes.fireclaw(&[&words[..], &["echo $GREETING $OTHER"]].concat()).exits(0);
    assert_eq!(done.stdout(), "file option\n");
    let any = ["run", "-d", "--name", "any", "--publish", "0:8000"];
    sandboxes.fireclaw(&any).exits(0);
    let shown = sandboxes.fireclaw(&["port", "any"]).exits(0).stdout();
    let picked: u16 = shown.trim().rsplit_once(':').unwrap().1.parse().unwrap();
    assert!(TcpStream::connect(("127.0.0.1", picked)).is_ok(), "{shown}");
    // Nobody else can have the port meanwhile, and it is free afterwards.
    let other = ["run", "-d", "--name", "other", "--publish", &publish, "sleep 1"];
    sandboxes.fireclaw(&other).exits(125).says(&["cannot publish"]);
    sandboxes.fireclaw(&["stop", "-t", "0", "web"]).exits(0);
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    sandboxes.end();
}

#[test]
fn a_terminal_is_detached_and_attached_again() {
    let sandboxes = Sandboxes::new();
    // So that the daemon is not tmux's.
    sandboxes.fireclaw(&["daemon", "start"]).exits(0);
    let tmux = Tmux::start(&sandboxes.home);
    tmux.line("$fireclaw run -it --name box -e PS1='guest> ' -e ENV= sh");
    tmux.prompts("guest>");
    tmux.line("echo $((6*7)) >/tmp/answer; tty; stty size");
    tmux.shows("30 100");
    tmux.prompts("guest>");
    tmux.key("C-p");
    tmux.key("C-q");
    tmux.shows("fireclaw: detached; `fireclaw attach box` comes back");
    tmux.prompts("host>");
    assert_eq!(sandboxes.condition("box"), "running");
    assert_eq!(sandboxes.says("box", "cat /tmp/answer"), "42\n");
    tmux.line("$fireclaw attach box");
    tmux.line("");
    tmux.prompts("guest>");
    tmux.line("exit 5");
    tmux.prompts("host>");
    tmux.line("echo status $?");
    tmux.shows("status 5");
    assert_eq!(sandboxes.condition("box"), "exited");
    drop(tmux);
    sandboxes.end();
}

#[test]
fn an_overseer_takes_over_from_the_daemon_and_back() {
    let mut overseer = Overseer::start(&[]);
    let fireclaw = |overseer: &Overseer, words: &[&str]| overseer.fireclaw(words).exits(0).stdout();
    // It does the daemon's work.
    fireclaw(&overseer, &["run", "-d", "--name", "box", "sleep 1000"]);
    overseer.fireclaw(&["agent", "start", "puppet"]).exits(0);
    overseer.ready("puppet");
    let taken = overseer.fireclaw(&["run", "-d", "--name", "puppet", "true"]);
    taken.exits(125).says(&["the name puppet is taken"]);
    let of_agent = overseer.fireclaw(&["exec", "puppet", "true"]);
    of_agent.exits(125).says(&["it is an agent", "fireclaw agent"]);
    let vmm = |overseer: &Overseer, command: &[&str]| {
        let list: Value = serde_json::from_str(&fireclaw(overseer, command)).unwrap();
        list[0]["pid"].as_i64().unwrap()
    };
    let sandbox = vmm(&overseer, &["inspect", "box"]);
    let agent = vmm(&overseer, &["agent", "ls", "--json"]);
    overseer.stop();
    // Without it a daemon has the sandbox, and leaves the agent's VM alone.
    assert_eq!(fireclaw(&overseer, &["exec", "-n", "box", "echo", "well"]), "well\n");
    assert!(fireclaw(&overseer, &["daemon", "status"]).contains("a daemon"));
    overseer.fireclaw(&["agent", "start", "puppet", "--name", "other"]).exits(1).says(&["chat"]);
    assert!(harness::is_alive(i32::try_from(agent).unwrap()));
    overseer.again();
    assert!(fireclaw(&overseer, &["daemon", "status"]).contains("an overseer"));
    overseer.ready("puppet");
    assert_eq!(vmm(&overseer, &["agent", "ls", "--json"]), agent);
    assert_eq!(vmm(&overseer, &["inspect", "box"]), sandbox);
    fireclaw(&overseer, &["rm", "-f", "box"]);
    fireclaw(&overseer, &["agent", "stop", "puppet"]);
    overseer.end();
}

/// A command that follows another, once it has shown a line.
fn follows(sandboxes: &Sandboxes, words: &[&str], line: &str) -> Child {
    let mut command = sandboxes.home.fireclaw(words);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    assert!(output.lines().any(|shown| shown.unwrap().contains(line)));
    child
}

#[test]
fn who_is_attached_passes_signals_on_and_may_go() {
    let sandboxes = Sandboxes::new();
    let line = "trap 'echo bye; exit 4' TERM; while :; do echo tick; sleep 0.1; done";
    sandboxes.fireclaw(&["run", "-d", "--name", "ticks", line]).exits(0);
    // One that is killed leaves it alone, and so does one whose output nobody wants.
    let mut gone = follows(&sandboxes, &["attach", "ticks"], "tick");
    harness::signal(&gone, Signal::KILL);
    wait(&mut gone, timeout());
    assert_eq!(sandboxes.condition("ticks"), "running");
    let mut logs = follows(&sandboxes, &["logs", "-f", "ticks"], "tick");
    let mut command = sandboxes.home.fireclaw(["attach", "-n", "ticks"]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = child.spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut shown = String::new();
    output.read_line(&mut shown).unwrap();
    assert_eq!(shown, "tick\n");
    harness::signal(&child, Signal::TERM);
    output.read_to_string(&mut shown).unwrap();
    assert!(shown.ends_with("bye\n"), "{shown}");
    assert_eq!(wait(&mut child, timeout()).code(), Some(4));
    assert_eq!(sandboxes.condition("ticks"), "exited");
    // Who follows its log has seen the end of it.
    assert!(wait(&mut logs, timeout()).success());
    // Several are asked one after the other, also if one is not there.
    sandboxes.fireclaw(&["create", "--name", "other"]).exits(0);
    let removed = sandboxes.fireclaw(&["rm", "nobody", "ticks", "nothing", "other"]).exits(1);
    removed.says(&["no sandbox nobody", "no sandbox nothing"]);
    assert_eq!(sandboxes.fireclaw(&["ls", "-aq"]).exits(0).stdout(), "");
    sandboxes.end();
}
