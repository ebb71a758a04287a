//! Agents on IRC: real VMs, the real private server, a raw client.

use crate::harness::{alone, wait_until};
use crate::overseer::{Overseer, is_gone, kill};

#[test]
fn an_agent_is_made_spoken_to_and_ended() {
    let _alone = alone();
    let overseer = Overseer::start(&[]);
    let mut ann = overseer.person("ann");
    ann.command("!invoke puppet", "puppet is starting");
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
fn a_hostile_guest_gets_nothing_through() {
    let _alone = alone();
    let overseer = Overseer::start(&[]);
    let mut ann = overseer.person_with("ann", "puppet");
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
        ann.say("puppet", &format!("puppet: echo number {n} {}", "x".repeat(300)));
    }
    for n in 0..50 {
        ann.hears("puppet", "me", &format!("number {n} "));
    }
    overseer.end();
}

#[test]
fn the_chat_server_may_go_and_come() {
    let _alone = alone();
    let overseer = Overseer::start(&[]);
    let mut ann = overseer.person("ann");
    ann.command("!invoke puppet", "is starting");
    let pid = overseer.ready("puppet");
    let server = crate::harness::processes_mentioning("--nodaemon --config");
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
