//! Agents on IRC: real machines, the real private server, a raw client.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Home, alone, finish, patience, wait_until};
use crate::overseer::{Overseer, is_gone};

fn kill(pid: i32) {
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

#[test]
fn an_agent_is_made_spoken_to_and_ended() {
    let _alone = alone();
    let overseer = Overseer::start(&[]);
    let mut ann = overseer.person("ann");
    ann.command("!invoke puppet", "puppet boots");
    ann.until(":puppet!");
    ann.hears("overseer", "#control", "puppet is ready");
    // Addressed in every way that people do it, and only then.
    for (text, answer) in [
        ("puppet: echo one", "one"),
        ("puppet, echo two", "two"),
        ("@puppet echo three", "three"),
        ("PUPPET: echo four", "four"),
    ] {
        ann.say("#agents", text);
        assert_eq!(ann.hears("puppet", "#agents", ""), answer);
    }
    ann.say("#agents", "I told puppet: echo no");
    ann.say("#agents", "puppets: echo no");
    // In private without a mention; and it knows where it is and what was said.
    ann.say("puppet", "who");
    assert_eq!(ann.hears("puppet", "me", ""), "ann in ann alone after 0");
    ann.say("#agents", "puppet: who");
    assert!(ann.hears("puppet", "#agents", "").starts_with("ann in #agents after "));
    // Long answers are cut by lines, not lost in a flood.
    ann.say("puppet", "lines 100");
    ann.hears("puppet", "me", "line 0");

    let list = ann.command("!list", "puppet (puppet");
    let is_up = list.contains("ready") || list.contains("busy");
    assert!(is_up && list.contains("#agents"), "{list}");
    ann.command("!status", "1 of 1 agents up");
    let pid = overseer.ready("puppet");
    ann.say("#control", "!destroy puppet");
    let quit = ann.until(" QUIT ");
    assert!(quit.starts_with(":puppet!") && quit.contains("destroyed by ann"), "{quit}");
    ann.hears("overseer", "#control", "its workspace is kept");
    is_gone(pid);
    ann.command("!list", "no agents");
    overseer.end();
}

#[test]
fn what_cannot_be_is_said() {
    let overseer = Overseer::start(&[]);
    let mut ann = overseer.person("ann");
    ann.command("!invoke wroker", "did you mean worker?");
    ann.command("!invoke zzz", "coder, creative");
    ann.command("!invoke", "!invoke <template> [name]");
    ann.command("!invoke puppet ../etc", "cannot be a name");
    ann.command("!invoke puppet root:x", "cannot be a name");
    ann.command("!destroy nobody", "there is no agent nobody");
    ann.command("!pause nobody", "there is no agent nobody");
    ann.command("!logs nobody", "there is no agent nobody");
    ann.command("!persona nobody", "there is no agent nobody");
    ann.command("!model nobody x", "there is no agent nobody");
    ann.command("!models", "does not answer");
    ann.command("!ok 99", "there is no open question #99");
    ann.command("!dance", "there is no !dance");
    ann.command("!help", "!invoke");
    ann.command("!help invoke", "start an agent");
    ann.command("!questions", "nothing waits");
    let templates = ann.command("!templates", "coder (");
    assert!(templates.contains("qwen2.5-coder:7b"), "{templates}");
    // Talk in the control channel is nobody's command.
    ann.say("#control", "hello!");
    ann.say("#agents", "!list");
    ann.command("!list", "no agents");
    overseer.end();
}

#[test]
fn names_are_taken_once() {
    let _alone = alone();
    let overseer = Overseer::start(&[]);
    let mut ann = overseer.person("ann");
    ann.command("!invoke puppet bob", "bob boots");
    ann.command("!invoke puppet bob", "the name bob is taken");
    ann.command("!model bob no-such-model", "does not answer");
    overseer.ready("bob");
    // Anybody else's nick is theirs: the agent takes another.
    let mut eve = overseer.person("carl");
    ann.command("!invoke puppet carl", "carl boots");
    overseer.ready("carl");
    let nick = overseer.agents().iter().find(|a| a["name"] == "carl").unwrap()["nick"].to_string();
    assert_ne!(nick, "\"carl\"");
    // And has the one it wants once that is free.
    eve.send("QUIT :bye");
    wait_until("the nick", || overseer.agents().iter().any(|agent| agent["nick"] == "carl"));
    overseer.end();
}

#[test]
fn it_goes_where_it_is_invited_and_stays_away_when_kicked() {
    let _alone = alone();
    let mut overseer = Overseer::start(&[]);
    let mut ann = overseer.person("ann");
    ann.command("!invoke puppet", "boots");
    overseer.ready("puppet");
    ann.send("JOIN #room");
    ann.until("366 ");
    ann.send("INVITE puppet #room");
    ann.sees("#room", "puppet");
    ann.say("#room", "puppet: echo here");
    ann.hears("puppet", "#room", "here");
    // An operator sends it away, and it stays away until invited again.
    ann.send("KICK #room puppet :enough");
    wait_until("it to leave", || {
        overseer.agents()[0]["channels"] == serde_json::json!(["#agents"])
    });
    ann.send("INVITE puppet #room");
    ann.sees("#room", "puppet");
    // It keeps its channels over a restart of everything.
    overseer.kill();
    overseer.again();
    let mut ann = overseer.person("ann");
    ann.send("JOIN #room");
    ann.until("366 ");
    overseer.ready("puppet");
    let mut channels = serde_json::Value::Null;
    wait_until("its channels", || {
        channels = overseer.agents()[0]["channels"].clone();
        channels.as_array().is_some_and(|channels| channels.len() == 2)
    });
    ann.sees("#room", "puppet");
    ann.say("#room", "puppet: echo again");
    ann.hears("puppet", "#room", "again");
    overseer.end();
}

#[test]
fn a_workspace_outlives_its_machine_and_the_agent() {
    let _alone = alone();
    let overseer = Overseer::start(&[]);
    let mut ann = overseer.person("ann");
    ann.command("!invoke puppet", "boots");
    let first = overseer.ready("puppet");
    ann.say("puppet", "keep bananas");
    ann.hears("puppet", "me", "kept");
    // The monitor is killed: it is said, and replaced.
    kill(first);
    ann.hears("overseer", "#control", "puppet is down");
    ann.hears("overseer", "#control", "puppet is ready");
    let second = overseer.ready("puppet");
    assert_ne!(first, second);
    ann.say("puppet", "kept");
    ann.hears("puppet", "me", "bananas");
    assert_eq!(overseer.agents()[0]["restarts"], 1);
    // The program ends: it is started anew in the same machine, and what it dies of is
    // not handed to it for ever.
    ann.say("puppet", "die");
    ann.hears("puppet", "me", "I failed at that several times");
    ann.say("puppet", "echo alive");
    ann.hears("puppet", "me", "alive");
    assert_eq!(overseer.ready("puppet"), second);
    ann.command("!destroy puppet", "is gone");
    ann.command("!invoke puppet", "boots");
    overseer.ready("puppet");
    ann.say("puppet", "kept");
    ann.hears("puppet", "me", "bananas");
    overseer.end();
}

#[test]
fn a_killed_overseer_takes_its_agents_over_again() {
    let _alone = alone();
    let mut overseer = Overseer::start(&[]);
    let mut ann = overseer.person("ann");
    ann.command("!invoke puppet one", "boots");
    ann.command("!invoke puppet two", "boots");
    let (one, two) = (overseer.ready("one"), overseer.ready("two"));
    // A message that is under way when everything stops.
    ann.say("one", "ask may I");
    let asked = ann.hears("overseer", "#control", "one wants to run_command: may I");
    let number = asked.trim_start_matches('#').split(' ').next().unwrap().to_owned();
    overseer.kill();
    // One machine lives on, the other dies meanwhile.
    kill(two);
    is_gone(two);
    overseer.again();
    assert_eq!(overseer.ready_or_busy("one"), one, "it is the same machine");
    assert_ne!(overseer.ready("two"), two);
    // The question is still open, and its answer gets there.
    let mut ann = overseer.person("ann");
    ann.sees("#agents", "one");
    wait_until("the question", || {
        ann.say("#control", "!questions");
        ann.hears("overseer", "#control", "").contains(&format!("#{number} one wants"))
    });
    ann.command(&format!("!ok {number}"), "one may");
    ann.hears("one", "me", "granted");
    // It is no one's machine if the state does not know it.
    let machines = overseer.home.path().join("machines");
    fs::create_dir(machines.join("fireclaw-0123456789abcdef")).unwrap();
    overseer.kill();
    overseer.again();
    overseer.ready("one");
    assert_eq!(fs::read_dir(&machines).unwrap().count(), 2);
    overseer.end();
}

#[test]
fn a_hostile_guest_gets_nothing_through() {
    let _alone = alone();
    let overseer = Overseer::start(&[]);
    let mut ann = overseer.person("ann");
    ann.command("!invoke puppet", "boots");
    overseer.ready("puppet");
    ann.all();
    ann.say("#agents", "puppet: evil");
    let mut lines = vec![ann.until("PRIVMSG #agents :one")];
    loop {
        let line = ann.until("puppet!");
        let last = line.ends_with(":still here");
        lines.push(line);
        if last {
            break;
        }
    }
    for line in &lines {
        assert!(line.starts_with(":puppet!") && line.contains(" PRIVMSG #agents :"), "{line}");
        assert!(!line.chars().any(|c| c.is_control() || c == '\u{202e}'), "{line:?}");
        assert!(line.len() <= 510 && !line.contains("not mine"), "{line}");
    }
    // A flood is cut, and nobody else is held up by it.
    ann.say("puppet", "flood");
    ann.hears("puppet", "me", "flood 3");
    ann.command("!list", "puppet");
    ann.say("puppet", "echo after");
    assert_eq!(ann.hears("puppet", "me", "after"), "after");
    let log = overseer.fireclaw(&["agent", "logs", "puppet", "-n", "1000"]).exits(0).stdout();
    assert!(log.contains("what is no action") && log.contains("says too much"), "{log}");
    // Fifty messages in a second, and one as long as IRC allows.
    for n in 0..50 {
        ann.say("puppet", &format!("echo number {n} {}", "x".repeat(300)));
    }
    for n in 0..50 {
        ann.hears("puppet", "me", &format!("number {n} "));
    }
    overseer.end();
}

#[test]
fn people_are_asked_and_decide() {
    let _alone = alone();
    let overseer = Overseer::start(&["--approval-time", "5"]);
    let mut ann = overseer.person("ann");
    ann.command("!invoke puppet", "boots");
    overseer.ready("puppet");
    let question = |ann: &mut crate::overseer::Person| {
        ann.say("puppet", "ask rm -rf /");
        let asked = ann.hears("overseer", "#control", "puppet wants to run_command: rm -rf /");
        asked.trim_start_matches('#').split(' ').next().unwrap().to_owned()
    };
    let number = question(&mut ann);
    ann.command(&format!("!no {number} not here"), "may not");
    assert_eq!(ann.hears("puppet", "me", ""), "refused: ann: not here");
    let number = question(&mut ann);
    ann.command(&format!("!ok {number}"), "puppet may");
    assert_eq!(ann.hears("puppet", "me", ""), "granted");
    ann.command(&format!("!ok {number}"), "no open question");
    question(&mut ann);
    ann.hears("overseer", "#control", "nobody answered in time");
    ann.hears("puppet", "me", "refused");
    overseer.end();
}

#[test]
fn only_owners_give_commands() {
    let overseer = Overseer::start(&["--owner", "ann!*@*"]);
    // ann comes second: who comes first is the channel's operator.
    let mut op = overseer.person("op");
    let mut eve = overseer.person("eve");
    let mut ann = overseer.person("ann");
    eve.command("!invoke puppet", "eve: you may not");
    eve.command("!list", "no agents");
    ann.command("!destroy nobody", "there is no agent");
    op.send("QUIT :bye");
    overseer.end();
}

#[test]
fn a_paused_agent_costs_nothing_and_answers_later() {
    let _alone = alone();
    let mut overseer = Overseer::start(&[]);
    let mut ann = overseer.person("ann");
    ann.command("!invoke puppet", "boots");
    let pid = overseer.ready("puppet");
    ann.command("!pause puppet", "is paused");
    let state = || fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    wait_until("it to stop", || state().contains(") T"));
    ann.say("puppet", "echo later");
    ann.hears("puppet", "me", "I am paused");
    ann.command("!list", "paused");
    ann.command("!resume puppet", "goes on");
    assert_eq!(ann.hears("puppet", "me", ""), "later");
    // It is reloaded without losing its machine.
    ann.command("!persona puppet You are a parrot.", "another persona");
    ann.command("!persona puppet", "You are a parrot.");
    wait_until("the persona", || {
        ann.say("puppet", "persona");
        ann.hears("puppet", "me", "") == "You are a parrot."
    });
    assert_eq!(overseer.ready("puppet"), pid);
    // Nor does it when the overseer goes while it stands still.
    ann.command("!pause puppet", "is paused");
    wait_until("it to stop", || state().contains(") T"));
    overseer.kill();
    overseer.again();
    wait_until("it to be paused", || overseer.agents()[0]["condition"] == "paused");
    let mut ann = overseer.person("ann");
    ann.command("!resume puppet", "goes on");
    assert_eq!(overseer.ready("puppet"), pid);
    overseer.end();
}

#[test]
fn agents_that_go_in_circles_are_stopped() {
    let _alone = alone();
    let overseer = Overseer::start(&[]);
    let mut ann = overseer.person("ann");
    ann.command("!invoke puppet a1", "boots");
    ann.command("!invoke puppet b1", "boots");
    overseer.ready("a1");
    overseer.ready("b1");
    // Each hands on what it was handed, one step shorter.
    let mut chain = "echo end".to_owned();
    for n in 0..8 {
        chain = format!("to {}: {chain}", if n % 2 == 0 { "b1" } else { "a1" });
    }
    ann.say("#agents", &format!("a1: {}", chain.strip_prefix("to a1: ").unwrap_or(&chain)));
    ann.hears("overseer", "#control", "went in circles");
    // A short hand-off gets through, once the pause is over.
    wait_until("a hand-off", || {
        ann.say("#agents", "a1: to b1: echo handed over");
        ann.hears("a1", "#agents", "b1: echo");
        std::thread::sleep(std::time::Duration::from_secs(1));
        ann.all().iter().any(|line| line.starts_with(":b1!") && line.contains("handed over"))
    });
    overseer.end();
}

#[test]
fn the_chat_server_may_go_and_come() {
    let _alone = alone();
    let overseer = Overseer::start(&[]);
    let mut ann = overseer.person("ann");
    ann.command("!invoke puppet", "boots");
    let pid = overseer.ready("puppet");
    let server = crate::harness::processes_mentioning("ngircd");
    let ours = server.iter().map(|line| line.split(' ').next().unwrap().parse().unwrap());
    let ours: Vec<i32> = ours.filter(|pid: &i32| overseer.has_child(*pid)).collect();
    assert_eq!(ours.len(), 1, "{server:?}");
    kill(ours[0]);
    is_gone(ours[0]);
    let mut ann = None;
    wait_until("the server to be back", || {
        ann = overseer.try_person("ann");
        ann.is_some()
    });
    let mut ann = ann.unwrap();
    ann.sees("#agents", "puppet");
    ann.say("puppet", "echo back");
    assert_eq!(ann.hears("puppet", "me", ""), "back");
    assert_eq!(overseer.ready("puppet"), pid);
    overseer.end();
}

#[test]
fn the_command_line_does_what_people_do() {
    let _alone = alone();
    let overseer = Overseer::start(&[]);
    let start = overseer.fireclaw(&["agent", "start", "puppet", "--name", "cli"]).exits(0);
    assert_eq!(start.stdout(), "cli\n");
    overseer.ready("cli");
    assert!(overseer.fireclaw(&["agent", "list"]).exits(0).stdout().contains("cli"));
    let logs = overseer.fireclaw(&["agent", "logs", "cli"]).exits(0).stdout();
    assert!(logs.contains("is ready"), "{logs}");
    let twice = overseer.fireclaw(&["agent", "start", "puppet", "--name", "cli"]);
    twice.exits(1).says(&["the name cli is taken"]);
    overseer.fireclaw(&["agent", "stop", "nobody"]).exits(1).says(&["no agent nobody", "cli"]);
    overseer.fireclaw(&["agent", "exec", "../x", "--", "true"]).exits(2);
    // One overseer to a home.
    let second = overseer.fireclaw(&["overseer", "--port", &(overseer.port ^ 1).to_string()]);
    second.exits(1).says(&["another overseer runs"]);
    overseer.fireclaw(&["agent", "stop", "cli"]).exits(0);
    overseer.end();
    let home = Home::empty();
    let none = finish(home.fireclaw(["agent", "list"]), Vec::new(), patience());
    none.exits(1).says(&["no overseer runs", "fireclaw overseer"]);
    let none = home.fireclaw(["agent", "exec", "cli", "--", "true"]);
    finish(none, Vec::new(), patience()).exits(125).says(&["no overseer runs"]);
}

#[test]
fn templates_are_listed_shown_and_checked() {
    let home = Home::empty();
    let template = |words: &[&str]| {
        let mut command = home.fireclaw(["template"]);
        command.args(words);
        finish(command, Vec::new(), patience())
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

/// The whole of it: a real model, its tools, and a figure that only the machine
/// can know.
#[test]
fn a_real_model_uses_its_machine() {
    let _alone = alone();
    let overseer = Overseer::start(&["--local-model", "--model-server", "http://127.0.0.1:9"]);
    let mut ann = overseer.person("ann");
    // It answers for the models of all templates, and says so.
    ann.command("!models", "qwen2.5:7b, ");
    ann.command("!invoke worker", "boots");
    overseer.ready("worker");
    let figure = (std::process::id() * 7919 % 1_000_000).to_string();
    let write = format!("echo {figure} > /workspace/figure.txt");
    overseer.fireclaw(&["agent", "exec", "worker", "--", "sh", "-c", &write]).exits(0);
    // A model this small does not always say what it found.
    let mut said = Vec::new();
    let found = (0..6).any(|_| {
        ann.say("#agents", "worker: run the command: cat /workspace/figure.txt");
        said.push(ann.hears("worker", "#agents", ""));
        said.last().unwrap().contains(&figure)
    });
    assert!(found, "{figure} is not in {said:?}");
    overseer.end();
}
