//! What an operator can see.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::Value;

use crate::harness::{Home, alone, finish, timeout};
use crate::overseer::Overseer;

#[test]
fn programs_read_what_happened_to_whom_and_nobodys_words_or_secrets() {
    let _alone = alone();
    let variables =
        [("FIRECLAW_MODEL_KEY", "a-key-of-the-model-server"), ("FIRECLAW_LOG", "trace")];
    let options = ["--log-format", "json", "--model-server", "http://127.0.0.1:9"];
    let overseer = Overseer::with(0, &options, &variables);
    overseer.puppet("thinker", "model = \"qwen2.5:7b\"\n");
    let mut ann = overseer.person_with("ann", "thinker");
    ann.say("thinker", "echo between-us");
    ann.hears("thinker", "me", "between-us");
    ann.say("thinker", "think between-us");
    ann.hears("thinker", "me", "the model server does not answer");
    overseer.says("is done with a message");
    overseer.fireclaw(&["agent", "exec", "thinker", "--", "no-such\u{1b}[2J"]).exits(127);
    overseer.says("exec thinker no-such");
    let lines = overseer.lines();
    let events: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let event = |message: &str| {
        let has = |event: &&Value| event["message"].as_str().unwrap().contains(message);
        events.iter().find(has).unwrap_or_else(|| panic!("no {message}: {lines:#?}"))
    };
    let handed = event("is handed a message");
    assert!(handed["message_id"].as_u64().is_some() && handed["from"] == "ann", "{handed}");
    assert_eq!(handed["spans"][0]["agent"], "thinker");
    assert!(handed["spans"][0]["sandbox"].as_str().unwrap().starts_with("fireclaw-"), "{handed}");
    let asked = event("a request to the model");
    assert!(asked["outcome"] == "failed" && asked["model"] == "qwen2.5:7b", "{asked}");
    assert!(asked["waited_ms"].is_number() && asked["prompt_tokens"] == 0, "{asked}");
    event("thinker is ready");
    // The file has the same for people, also what one terminal would obey.
    let file = overseer.fireclaw(&["logs", "-n", "1000"]).exits(0).stdout();
    assert!(file.contains("agent=thinker") && file.contains("is handed a message"), "{file}");
    let password = overseer.password().unwrap();
    for secret in [&password, variables[0].1, "between-us", "\u{1b}"] {
        assert!(!file.contains(secret), "{secret}: {file}");
        assert!(!lines.iter().any(|line| line.contains(secret)), "{secret}: {lines:#?}");
    }
    overseer.end();
}

#[test]
fn a_log_is_followed_and_outlives_its_agent() {
    let _alone = alone();
    let overseer = Overseer::start(&[]);
    let mut ann = overseer.person("ann");
    let mut follow = overseer.home.fireclaw(["logs", "-f", "-n", "0"]);
    let mut follow = follow.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    ann.command("!invoke puppet", "is starting");
    overseer.ready("puppet");
    let ready = lines.by_ref().map(Result::unwrap).find(|line| line.contains("is ready after"));
    assert!(ready.unwrap().contains("agent=puppet"));
    follow.kill().unwrap();
    follow.wait().unwrap();
    overseer.fireclaw(&["agent", "stop", "puppet"]).exits(0);
    let log = overseer.fireclaw(&["logs", "puppet"]).exits(0).stdout();
    assert!(log.lines().last().unwrap().contains("leaves: stopped from the command line"), "{log}");
    let other = overseer.fireclaw(&["logs", "pupet"]).exits(1);
    other.says(&["no agent or sandbox pupet has a log", "there are logs of: puppet"]);
    overseer.fireclaw(&["logs", "../puppet"]).exits(2);
    overseer.end();
}

#[test]
fn a_command_logs_what_it_is_asked_to() {
    let home = Home::new();
    let logged = |filter: &str| {
        let mut command = home.fireclaw(["run", "true"]);
        finish(
            {
                command.env("FIRECLAW_LOG", filter);
                command
            },
            Vec::new(),
            timeout(),
        )
    };
    logged("fireclaw_sandbox=debug").exits(0).says(&["DEBUG", "it is up", "vmm_pid="]);
    assert_eq!(logged("off").exits(0).stderr(), "");
    logged("=").exits(2).says(&["FIRECLAW_LOG=\"=\"", "FIRECLAW_LOG=info,fireclaw_vm=debug"]);
    let none = finish(home.fireclaw(["logs"]), Vec::new(), timeout()).exits(1);
    none.says(&["there is no log in", "fireclaw overseer"]);
}
