//! How agents come, go, and come back.

use std::fs;

use crate::harness::{alone, wait_until};
use crate::overseer::{Overseer, is_gone, kill};

#[test]
fn a_workspace_outlives_its_machine_and_the_agent() {
    let _alone = alone();
    let overseer = Overseer::start(&[]);
    let mut ann = overseer.person("ann");
    ann.command("!invoke puppet", "is starting");
    let first = overseer.ready("puppet");
    ann.say("puppet", "keep bananas");
    ann.hears("puppet", "me", "kept");
    // The VMM is killed: it is said, and replaced.
    kill(first);
    ann.hears("overseer", "#control", "puppet is down");
    ann.hears("overseer", "#control", "puppet is ready");
    let second = overseer.ready("puppet");
    assert_ne!(first, second);
    ann.say("puppet", "kept");
    ann.hears("puppet", "me", "bananas");
    assert_eq!(overseer.agents()[0]["restarts"], 1);
    // The program ends: it is started anew in the same VM, and what it dies of is
    // not handed to it for ever.
    ann.say("puppet", "die");
    ann.hears("puppet", "me", "I failed at that several times");
    ann.say("puppet", "echo alive");
    ann.hears("puppet", "me", "alive");
    assert_eq!(overseer.ready("puppet"), second);
    ann.command("!destroy puppet", "stopped");
    ann.command("!invoke puppet", "is starting");
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
    ann.command("!invoke puppet one", "is starting");
    ann.command("!invoke puppet two", "is starting");
    let (one, two) = (overseer.ready("one"), overseer.ready("two"));
    // A message that is under way when everything stops.
    ann.say("one", "ask may I");
    let asked = ann.hears("overseer", "#control", "one wants to run_command: may I");
    let number = asked.trim_start_matches('#').split(' ').next().unwrap().to_owned();
    overseer.kill();
    // One VM lives on, the other dies meanwhile.
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
        ann.hears("overseer", "#control", "")
            .contains(&format!("#{number} for ann, in private: one wants"))
    });
    ann.command(&format!("!ok {number}"), "approved for one");
    ann.hears("one", "me", "granted");
    // It is no one's VM if the state does not know it.
    let machines = overseer.home.path().join("machines");
    fs::create_dir(machines.join("fireclaw-0123456789abcdef")).unwrap();
    overseer.kill();
    overseer.again();
    overseer.ready("one");
    assert_eq!(fs::read_dir(&machines).unwrap().count(), 2);
    overseer.end();
}

#[test]
fn a_paused_agent_costs_nothing_and_answers_later() {
    let _alone = alone();
    let overseer = Overseer::start(&[]);
    let mut ann = overseer.person("ann");
    ann.command("!invoke puppet", "is starting");
    let pid = overseer.ready("puppet");
    ann.command("!pause puppet", "is paused");
    let state = || fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    wait_until("it to stop", || state().contains(") T"));
    ann.say("puppet", "echo later");
    ann.hears("puppet", "me", "I am paused");
    ann.command("!list", "paused");
    ann.command("!resume puppet", "resumed");
    assert_eq!(ann.hears("puppet", "me", ""), "later");
    // It is reloaded without losing its VM.
    ann.command("!persona puppet You are a parrot.", "persona changed");
    ann.command("!persona puppet", "You are a parrot.");
    wait_until("the persona", || {
        ann.say("puppet", "persona");
        ann.hears("puppet", "me", "") == "You are a parrot."
    });
    assert_eq!(overseer.ready("puppet"), pid);
    overseer.end();
}

#[test]
fn one_may_go_before_it_has_come() {
    let _alone = alone();
    let overseer = Overseer::start(&[]);
    let mut ann = overseer.person("ann");
    ann.command("!invoke puppet", "is starting");
    ann.command("!destroy puppet", "stopped");
    ann.command("!list", "no agents");
    assert_eq!(fs::read_dir(overseer.home.path().join("machines")).unwrap().count(), 0);
    // Nothing of it is in the way of the next.
    ann.command("!invoke puppet", "is starting");
    overseer.ready("puppet");
    ann.say("puppet", "echo here");
    ann.hears("puppet", "me", "here");
    overseer.end();
}

#[test]
fn a_paused_one_may_go() {
    let _alone = alone();
    let overseer = Overseer::start(&[]);
    let mut ann = overseer.person("ann");
    ann.command("!invoke puppet", "is starting");
    let pid = overseer.ready("puppet");
    ann.command("!pause puppet", "is paused");
    overseer.until("puppet", "paused");
    ann.command("!destroy puppet", "stopped");
    is_gone(pid);
    overseer.end();
}

#[test]
fn one_that_does_not_read_is_ended_all_the_same() {
    let _alone = alone();
    let overseer = Overseer::start(&[]);
    let mut ann = overseer.person("ann");
    ann.command("!invoke puppet", "is starting");
    let pid = overseer.ready("puppet");
    ann.say("puppet", "deaf");
    ann.hears("puppet", "me", "deaf now");
    // More than all that is between it and us holds: each line carries those before, and
    // a quotation mark is two bytes in JSON.
    let long = "\"".repeat(380);
    for n in 0..80 {
        ann.say("#agents", &format!("puppet: echo {n} {long}"));
    }
    let mut said = ann.all_until(&["too much waits for me already"]);
    // Others are heard meanwhile, and it goes when told: it is not found out to be mute.
    said.extend(ann.quiet_until("#control", "!list", "puppet ("));
    said.extend(ann.quiet_until("#control", "!destroy puppet", "puppet stopped"));
    assert!(!said.iter().any(|line| line.contains("is down")), "{said:?}");
    is_gone(pid);
    overseer.end();
}

#[test]
fn what_is_said_while_a_machine_is_replaced_is_answered_by_the_next() {
    let _alone = alone();
    let overseer = Overseer::start(&[]);
    let mut ann = overseer.person("ann");
    ann.command("!invoke puppet", "is starting");
    let pid = overseer.ready("puppet");
    ann.sees("#agents", "puppet");
    kill(pid);
    ann.hears("overseer", "#control", "puppet is down");
    ann.say("#agents", "puppet: echo waited for you");
    ann.say("puppet", "echo not this");
    ann.say("puppet", "stop");
    ann.say("puppet", "echo this");
    // It is there all the time.
    ann.sees("#agents", "puppet");
    let said = ann.all_until(&[" PRIVMSG ann :this"]);
    assert!(said.iter().any(|line| line.ends_with("#agents :waited for you")), "{said:?}");
    assert!(!said.iter().any(|line| line.ends_with(":not this")), "{said:?}");
    assert_ne!(overseer.ready("puppet"), pid);
    overseer.end();
}

#[test]
fn one_that_dies_again_and_again_is_left_alone_until_it_is_resumed() {
    let _alone = alone();
    let overseer = Overseer::start(&[]);
    let mut ann = overseer.person("ann");
    ann.command("!invoke puppet", "is starting");
    for n in 1..=5 {
        kill(overseer.ready("puppet"));
        let down = ann.hears("overseer", "#control", "puppet is down");
        assert_eq!(down.contains("giving up"), n == 5, "{down}");
    }
    let failed = overseer.until("puppet", "failed");
    assert!(
        failed["problem"].as_str().is_some_and(|why| why.contains("no longer there")),
        "{failed}"
    );
    assert!(failed["pid"].is_null());
    ann.command("!list", "puppet (puppet, ): failed, restarted 4 times");
    let exec = overseer.fireclaw(&["agent", "exec", "puppet", "--", "true"]);
    exec.exits(125).says(&["puppet is failed", "fireclaw agent resume"]);
    // What is said to it is kept for then.
    ann.say("puppet", "echo kept");
    ann.command("!resume puppet", "resumed");
    assert_eq!(ann.hears("puppet", "me", ""), "kept");
    // Or it is given up.
    overseer.ready("puppet");
    ann.command("!destroy puppet", "stopped");
    overseer.end();
}

#[test]
fn one_whose_template_is_gone_can_be_mended_or_ended() {
    let _alone = alone();
    let mut overseer = Overseer::start(&[]);
    overseer.puppet("brief", "");
    let template = overseer.home.path().join("templates/brief.toml");
    let mut ann = overseer.person("ann");
    ann.command("!invoke brief", "is starting");
    let pid = overseer.ready("brief");
    fs::remove_file(&template).unwrap();
    ann.say("brief", "echo on");
    ann.hears("brief", "me", "on");
    // The next overseer cannot start it, and says what can be done.
    overseer.kill();
    overseer.again();
    let failed = overseer.until("brief", "failed");
    assert!(failed["problem"].as_str().is_some_and(|why| why.contains("brief")), "{failed}");
    let mut ann = overseer.person("ann");
    ann.command("!list", "brief (brief, ): failed");
    ann.command("!logs brief", "brief is failed");
    ann.command("!resume brief", "there is no template `brief`");
    ann.command("!invoke puppet brief", "the name brief is taken");
    // Mended, it goes on in the VM that it had.
    overseer.puppet("brief", "");
    ann.command("!resume brief", "resumed");
    assert_eq!(overseer.ready("brief"), pid);
    // Ended, nothing stays.
    fs::write(&template, "modle = 1\n").unwrap();
    overseer.kill();
    overseer.again();
    overseer.until("brief", "failed");
    let mut ann = overseer.person("ann");
    ann.command("!destroy brief", "stopped");
    is_gone(pid);
    ann.command("!list", "no agents");
    overseer.end();
}

#[test]
fn what_was_being_answered_when_the_overseer_died_is_answered_once() {
    let _alone = alone();
    let mut overseer = Overseer::start(&[]);
    let mut ann = overseer.person("ann");
    ann.command("!invoke puppet", "is starting");
    let pid = overseer.ready("puppet");
    ann.say("puppet", "echo before");
    ann.hears("puppet", "me", "before");
    ann.say("puppet", "wait");
    overseer.until("puppet", "busy");
    overseer.kill();
    overseer.again();
    let mut ann = overseer.person("ann");
    ann.sees("#agents", "puppet");
    assert_eq!(overseer.ready_or_busy("puppet"), pid);
    overseer.fireclaw(&["agent", "exec", "puppet", "--", "touch", "/workspace/go"]).exits(0);
    ann.hears("puppet", "me", "waited");
    let said = ann.quiet_until("puppet", "echo end", "end");
    assert_eq!(said.len(), 1, "{said:?}");
    overseer.end();
}

#[test]
fn a_paused_one_stays_paused_when_the_overseer_dies() {
    let _alone = alone();
    let mut overseer = Overseer::start(&[]);
    let mut ann = overseer.person("ann");
    ann.command("!invoke puppet", "is starting");
    let pid = overseer.ready("puppet");
    ann.command("!pause puppet", "is paused");
    overseer.until("puppet", "paused");
    ann.say("puppet", "echo later");
    ann.hears("puppet", "me", "I am paused");
    overseer.kill();
    overseer.again();
    assert_eq!(overseer.until("puppet", "paused")["pid"], pid);
    let state = || fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    wait_until("it to stop", || state().contains(") T"));
    let mut ann = overseer.person("ann");
    ann.sees("#agents", "puppet");
    ann.command("!resume puppet", "resumed");
    assert_eq!(ann.hears("puppet", "me", ""), "later");
    overseer.end();
}
