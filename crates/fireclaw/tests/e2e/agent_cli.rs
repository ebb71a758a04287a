//! `fireclaw agent`, `template` and `overseer` from a shell.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;

use crate::harness::{Home, alone, finish, timeout, wait};
use crate::overseer::Overseer;

#[test]
fn the_command_line_does_what_people_do() {
    let _alone = alone();
    let overseer = Overseer::start(&[]);
    let start = overseer.fireclaw(&["agent", "start", "puppet", "--name", "cli"]).exits(0);
    assert_eq!(start.stdout(), "cli\n");
    overseer.ready("cli");
    assert!(overseer.fireclaw(&["agent", "ls"]).exits(0).stdout().contains("cli"));
    let logs = overseer.fireclaw(&["agent", "logs", "cli"]).exits(0).stdout();
    assert!(logs.contains("is ready"), "{logs}");
    let twice = overseer.fireclaw(&["agent", "start", "puppet", "--name", "cli"]);
    twice.exits(1).says(&["the name cli is taken"]);
    overseer.fireclaw(&["agent", "stop", "nobody"]).exits(1).says(&["no agent nobody", "cli"]);
    overseer.fireclaw(&["agent", "exec", "../x", "--", "true"]).exits(2);
    // One overseer to a home.
    let second = overseer.fireclaw(&["overseer", "--port", &(overseer.port ^ 1).to_string()]);
    second.exits(1).says(&["another overseer is already running"]);
    // What it leaves is there until it is removed.
    let left = overseer.home.path().join("agents/cli");
    overseer
        .fireclaw(&["agent", "rm", "cli"])
        .exits(1)
        .says(&["cli has not been stopped", "agent stop"]);
    overseer.fireclaw(&["agent", "stop", "cli"]).exits(0);
    assert!(left.join("workspace.ext4").exists());
    overseer.fireclaw(&["agent", "rm", "cli"]).exits(0);
    assert!(!left.exists());
    overseer.fireclaw(&["agent", "rm", "cli"]).exits(1).says(&["cli has no workspace"]);
    overseer.fireclaw(&["agent", "rm", "../agents"]).exits(2);
    overseer.fireclaw(&["agent", "start", "puppet", "--name", "cli"]).exits(0);
    overseer.ready("cli");
    overseer.fireclaw(&["agent", "rm", "--force", "cli"]).exits(0);
    assert!(!left.exists() && overseer.agents().is_empty());
    overseer.end();
    let home = Home::empty();
    let none = finish(home.fireclaw(["agent", "ls"]), Vec::new(), timeout());
    none.exits(1).says(&["no overseer is running", "fireclaw overseer"]);
    let none = home.fireclaw(["agent", "exec", "cli", "--", "true"]);
    finish(none, Vec::new(), timeout()).exits(125).says(&["no overseer is running"]);
}

#[test]
fn words_of_before_go_on_working() {
    let home = Home::new();
    for words in [&["images", "ls"][..], &["net", "clean"]] {
        finish(home.fireclaw(words), Vec::new(), timeout()).exits(0);
    }
    finish(home.fireclaw(["agent", "list"]), Vec::new(), timeout()).exits(1).says(&["no overseer"]);
}

#[test]
fn templates_are_listed_shown_and_checked() {
    let home = Home::empty();
    let template = |words: &[&str]| {
        let mut command = home.fireclaw(["template"]);
        command.args(words);
        finish(command, Vec::new(), timeout())
    };
    let list = template(&["ls"]).exits(0).stdout();
    for name in ["worker", "coder", "researcher", "quick", "creative"] {
        assert!(list.contains(name), "{list}");
    }
    let shown = template(&["show", "worker"]).exits(0).stdout();
    assert!(shown.contains("qwen2.5:7b"), "{shown}");
    template(&["check"]).exits(0);
    let wrong = home.path().join("wrong.toml");
    fs::write(&wrong, "modle = \"x\"\nmemory = 1\n").unwrap();
    let told = template(&["check", &wrong.to_string_lossy()]).exits(1).stdout();
    assert!(told.contains("model") && told.contains("memory"), "{told}");
    template(&["show", "nosuch"]).exits(1).says(&["nosuch"]);
}

#[test]
fn the_list_for_programs_has_a_fixed_shape() {
    let _alone = alone();
    let overseer = Overseer::start(&[]);
    assert_eq!(overseer.fireclaw(&["agent", "ls", "--json"]).exits(0).stdout().trim(), "[]");
    overseer.fireclaw(&["agent", "start", "puppet", "--name", "a", "--model", "m"]).exits(0);
    let pid = overseer.ready("a");
    let agents = overseer.agents();
    let mut agent = agents[0].as_object().unwrap().clone();
    let created = agent.remove("created").unwrap().as_u64().unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    assert!(now.as_secs() - created < 3600);
    let rest = serde_json::json!({
        "name": "a", "template": "puppet", "model": "m", "condition": "ready", "nick": "a",
        "pid": pid, "restarts": 0, "problem": null, "channels": ["#agents"],
    });
    assert_eq!(serde_json::Value::Object(agent), rest);
    overseer.end();
}

#[test]
fn a_log_is_followed_until_its_agent_ends() {
    let _alone = alone();
    let overseer = Overseer::start(&[]);
    let mut ann = overseer.person_with("ann", "puppet");
    let mut follow = overseer.home.fireclaw(["agent", "logs", "puppet", "-n", "1", "-f"]);
    let mut follow = follow.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    lines.next().unwrap().unwrap();
    // What comes later comes once each.
    ann.send("JOIN #one,#two");
    ann.until("366 ");
    ann.until("366 ");
    for room in ["#one", "#two"] {
        ann.send(&format!("INVITE puppet {room}"));
        ann.sees(room, "puppet");
    }
    for room in ["#one", "#two"] {
        let line = lines.next().unwrap().unwrap();
        assert!(line.contains(&format!("invited to {room} by ann")), "{line}");
    }
    overseer.fireclaw(&["agent", "stop", "puppet"]).exits(0);
    assert_eq!(wait(&mut follow, timeout()).code(), Some(1));
    overseer.end();
}

#[test]
fn what_is_not_there_is_named_with_a_hint() {
    let _alone = alone();
    let overseer = Overseer::start(&[]);
    let fails = |words: &[&str], code: i32, says: &[&str]| {
        overseer.fireclaw(words).exits(code).says(says);
    };
    fails(&["agent", "start", "wroker"], 1, &["did you mean worker?"]);
    fails(&["agent", "start", "puppet", "--name", "NickServ"], 1, &["is reserved"]);
    fails(&["agent", "stop", "nobody"], 1, &["there is no agent nobody"]);
    fails(&["agent", "logs", "nobody"], 1, &["there is no agent nobody"]);
    fails(&["agent", "logs", "../x"], 2, &["is not a valid agent name"]);
    fails(&["agent", "exec", "nobody", "--", "true"], 125, &["there is no agent nobody"]);
    overseer.puppet("broken", "memory = 1\n");
    fails(&["agent", "start", "broken"], 1, &["broken", "memory"]);
    assert!(overseer.agents().is_empty());
    overseer.end();
}

#[test]
fn an_overseer_says_why_it_cannot_start() {
    let overseer = Overseer::start(&[]);
    // In one home there is one, even if the other is asked for the same port.
    let port = overseer.port.to_string();
    let hints = ["another overseer is already running", "FIRECLAW_HOME"];
    overseer.fireclaw(&["overseer", "--port", &port]).exits(1).says(&hints);
    // The first goes on.
    overseer.person("ann").command("!list", "no agents");
    let home = Home::new();
    let begin = |words: &[&str]| {
        let mut command = home.fireclaw(["overseer"]);
        command.args(words);
        finish(command, Vec::new(), timeout())
    };
    overseer.end();
    let channel = begin(&["--port", &port, "--channel", "control"]);
    channel.exits(1).says(&["`control` is not a valid IRC channel", "begins with #"]);
    let model = begin(&["--port", &port, "--model-server", "ftp://x"]);
    model.exits(1).says(&["cannot be the URL of a model server", "--model-server URL"]);
    begin(&["--tls"]).exits(2).says(&["--server"]);
    begin(&["--port", "0", "--server", "127.0.0.1"]).exits(2).says(&["--port 0"]);
    begin(&["--port", "65536"]).exits(2).says(&["65536"]);
    home.is_clean();
}

#[test]
fn a_template_of_the_older_kind_starts_an_agent() {
    let _alone = alone();
    let overseer = Overseer::start(&[]);
    let old = r#"{
        "name": "old", "nick": "oldie", "model": "qwen2.5:7b", "trigger": "mention",
        "persona": "You are old.", "tools": true, "network": false, "mem": 192
    }"#;
    let path = overseer.home.path().join("templates/old.json");
    fs::write(&path, old).unwrap();
    overseer.fireclaw(&["template", "check", "old"]).exits(0);
    let mut ann = overseer.person("ann");
    assert!(ann.command("!templates", "old (").contains("qwen2.5:7b"));
    ann.command("!invoke old", "is starting");
    overseer.ready("old");
    ann.command("!persona old", "old: You are old.");
    // There is no model server: whoever asks is told so, by the agent, and once.
    let said = ann.quiet_until("#agents", "oldie: hello", "the model server ");
    assert!(said.last().unwrap().starts_with(":oldie!"), "{said:?}");
    assert!(said.last().unwrap().contains("does not answer"), "{said:?}");
    overseer.ready("old");
    // A mistake in it is shown with its place.
    fs::write(&path, old.replace("\"tools\": true", "\"tools\": maybe")).unwrap();
    let told = overseer.fireclaw(&["template", "check", "old"]).exits(1).stdout();
    assert!(told.contains("old.json:3"), "{told}");
    overseer.end();
}

/// The status and body of what the overseer answers.
fn asked(overseer: &Overseer, method: &str, path: &str, body: &str) -> (u16, serde_json::Value) {
    let mut socket =
        std::os::unix::net::UnixStream::connect(overseer.home.path().join("daemon.sock")).unwrap();
    let length = body.len();
    write!(
        socket,
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: \
         {length}\r\n\r\n"
    )
    .unwrap();
    // A body that is too large is refused before it is read.
    let _ = socket.write_all(body.as_bytes());
    let mut said = Vec::new();
    let _ = socket.read_to_end(&mut said);
    let said = String::from_utf8(said).unwrap();
    let (head, body) =
        said.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{method} {path}: {said}"));
    (head[9..12].parse().unwrap(), serde_json::from_str(body).unwrap())
}

#[test]
fn a_wrong_request_is_told_what_kind_of_wrong_it_is() {
    let _alone = alone();
    let overseer = Overseer::start(&["--model-server", "http://127.0.0.1:9"]);
    overseer.fireclaw(&["agent", "start", "puppet"]).exits(0);
    overseer.ready("puppet");
    overseer.fireclaw(&["agent", "pause", "puppet"]).exits(0);
    overseer.until("puppet", "paused");
    let large = format!(r#"{{"template": "{}"}}"#, "x".repeat(5 << 20));
    for (method, path, body, status, kind) in [
        ("GET", "/v1/nothing", "", 404, "not-found"),
        ("GET", "/", "", 404, "not-found"),
        ("PUT", "/v1/agents", "", 405, "method-not-allowed"),
        ("GET", "/v1/agents/puppet/exec", "", 405, "method-not-allowed"),
        ("POST", "/v1/agents", "", 400, "bad-request"),
        ("POST", "/v1/agents", "[1]", 400, "bad-request"),
        ("POST", "/v1/agents", r#"{"template": "puppet", "color": 1}"#, 400, "bad-request"),
        ("POST", "/v1/agents", r#"{"template": "puppet", "name": "a b"}"#, 400, "bad-request"),
        ("POST", "/v1/agents", &large, 413, "too-large"),
        ("POST", "/v1/agents", r#"{"template": "no-such"}"#, 400, "template"),
        ("POST", "/v1/agents", r#"{"template": "puppet"}"#, 409, "name-taken"),
        ("DELETE", "/v1/agents/nobody", "", 404, "unknown-agent"),
        ("POST", "/v1/agents/nobody/resume", "", 404, "unknown-agent"),
        ("POST", "/v1/agents/puppet/exec", r#"{"argv": ["true"]}"#, 409, "not-now"),
        (
            "POST",
            "/v1/agents/puppet/exec",
            r#"{"argv": ["true"], "user": "4294967295"}"#,
            400,
            "bad-request",
        ),
        ("GET", "/v1/models", "", 502, "model-server"),
    ] {
        let (code, said) = asked(&overseer, method, path, body);
        let short: String = body.chars().take(60).collect();
        assert_eq!(
            (code, said["kind"].as_str()),
            (status, Some(kind)),
            "{method} {path} {short}: {said}"
        );
        assert!(said["error"].as_str().is_some_and(|error| !error.is_empty()), "{said}");
    }
    let (_, said) = asked(&overseer, "POST", "/v1/agents/puppet/exec", r#"{"argv": ["true"]}"#);
    assert_eq!(said["condition"], "paused");
    overseer.fireclaw(&["agent", "resume", "puppet"]).exits(0);
    overseer.end();
}

#[test]
fn an_overseer_is_as_its_file_says_and_explains_what_is_wrong_with_it() {
    let mut overseer = Overseer::start(&[]);
    overseer.stop();
    let file = overseer.home.path().join("overseer.toml");
    fs::write(&file, "nick = \"boss\"\n[model]\nserver = \"http://127.0.0.1:9\"\n").unwrap();
    overseer.fireclaw(&["overseer", "check"]).exits(0);
    overseer.again();
    let said = overseer.said.join("\n");
    assert!(said.contains("boss listens in #control"), "{said}");
    assert!(said.contains("model server: http://127.0.0.1:9"), "{said}");
    overseer.stop();
    fs::write(&file, "nik = \"boss\"\nmax_hops = \"four\"\n").unwrap();
    let check = overseer.fireclaw(&["overseer", "check"]).exits(1).stdout();
    for part in ["did you mean `nick`?", "`max_hops` must be a number", "2 mistakes"] {
        assert!(check.contains(part), "{check}");
    }
    let refused = overseer.fireclaw(&["overseer"]).exits(2);
    refused.says(&["did you mean `nick`?", "fireclaw overseer check"]);
}
