//! What people type in the control channel.

use std::fs;

use crate::harness::{alone, wait_until};
use crate::inspircd::InspIrcd;
use crate::overseer::Overseer;

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
    ann.command("!invok puppet", "did you mean !invoke?");
    ann.command("!reload nobody", "there is no agent nobody");
    ann.command("!help", "!invoke");
    ann.command("!help invoke", "start an agent");
    ann.command("!questions", "no open questions");
    let templates = ann.command("!templates", "coder (");
    assert!(templates.contains("qwen2.5-coder:7b"), "{templates}");
    // Talk in the control channel is nobody's command.
    ann.say("#control", "hello!");
    ann.say("#agents", "!list");
    ann.command("!list", "no agents");
    overseer.end();
}

#[test]
fn in_private_one_may_look() {
    let overseer = Overseer::start(&[]);
    let mut ann = overseer.person("ann");
    for (said, answer) in [
        ("!help", "!invoke"),
        ("!list", "no agents"),
        ("hello?", "!help <command> says more"),
        ("!invoke puppet", "give that command in #control"),
        ("!ok 1", "give that command in #control"),
    ] {
        ann.say("overseer", said);
        ann.hears("overseer", "me", answer);
    }
    ann.command("!list", "no agents");
    overseer.end();
}

#[test]
fn a_model_that_is_not_there_is_told_at_once() {
    let _alone = alone();
    let overseer = Overseer::start(&[]);
    overseer.puppet("thinker", "model = \"m1\"\n");
    let mut ann = overseer.person("ann");
    ann.command("!invoke thinker", "is starting");
    ann.hears("overseer", "#control", "thinker will not answer: ");
    overseer.ready("thinker");
    overseer.end();
}

#[test]
fn an_agent_can_be_as_its_template_says_again() {
    let _alone = alone();
    let overseer = Overseer::start(&[]);
    overseer.puppet("mild", "persona = \"You are mild.\"\n");
    let mut ann = overseer.person_with("ann", "mild");
    ann.command("!persona mild You are wild.", "persona changed");
    ann.say("mild", "persona");
    ann.hears("mild", "me", "You are wild.");
    // Without a name only what changed in files is taken on.
    ann.command("!reload", "templates reloaded");
    ann.command("!persona mild", "You are wild.");
    ann.command("!reload mild", "reset to its template");
    ann.command("!persona mild", "You are mild.");
    ann.say("mild", "persona");
    ann.hears("mild", "me", "You are mild.");
    overseer.end();
}

#[test]
fn names_are_taken_once() {
    let _alone = alone();
    let overseer = Overseer::start(&[]);
    let mut ann = overseer.person("ann");
    ann.command("!invoke puppet bob", "bob is starting");
    ann.command("!invoke puppet bob", "the name bob is taken");
    ann.command("!model bob no-such-model", "does not answer");
    overseer.ready("bob");
    // Anybody else's nick is theirs: the agent takes another.
    let mut eve = overseer.person("carl");
    ann.command("!invoke puppet carl", "carl is starting");
    overseer.ready("carl");
    let nick = overseer.agents().iter().find(|a| a["name"] == "carl").unwrap()["nick"].to_string();
    assert_ne!(nick, "\"carl\"");
    // And has the one it wants once that is free.
    eve.send("QUIT :bye");
    wait_until("the nick", || overseer.agents().iter().any(|agent| agent["nick"] == "carl"));
    overseer.end();
}

#[test]
fn only_owners_give_commands() {
    let server = InspIrcd::start();
    let overseer = Overseer::at(server.port, &["--server", "127.0.0.1", "--owner", "ann!*@*"]);
    // ann comes second: who comes first is the channel's operator.
    let mut op = overseer.person("op");
    let mut eve = overseer.person("eve");
    let mut ann = overseer.person("ann");
    eve.command("!invoke puppet", "eve: permission denied");
    eve.command("!list", "no agents");
    ann.command("!destroy nobody", "there is no agent");
    op.send("QUIT :bye");
    overseer.end();
}

#[test]
fn an_agent_is_never_where_commands_are_given() {
    let _alone = alone();
    let overseer = Overseer::start(&[]);
    let mut ann = overseer.person_with("ann", "puppet");
    ann.sees("#agents", "puppet");
    ann.send("INVITE puppet #control");
    ann.hears("puppet", "me", "#control: agents do not join the control channel");
    ann.send("NAMES #control");
    let names = ann.until(" 353 ");
    assert!(!names.contains("puppet"), "{names}");
    // What it says elsewhere commands nobody, whatever it is.
    ann.say("#agents", "puppet: echo !destroy puppet");
    ann.hears("puppet", "#agents", "!destroy puppet");
    ann.command("!list", "puppet (puppet");
    overseer.end();
}

#[test]
fn every_command_says_how_it_is_used() {
    let overseer = Overseer::start(&[]);
    let mut ann = overseer.person("ann");
    for (wrong, usage) in [
        ("!invoke", "!invoke <template> [name] - start an agent"),
        ("!invoke a b c", "!invoke <template> [name]"),
        ("!destroy", "!destroy <name> - "),
        ("!list all", "!list - list agents"),
        ("!status now", "!status - "),
        ("!model", "!model <name> <model> - "),
        ("!model puppet", "!model <name> <model> - "),
        ("!models x", "!models - "),
        ("!persona", "!persona <name> [text] - "),
        ("!templates x", "!templates - "),
        ("!pause", "!pause <name> - "),
        ("!resume", "!resume <name> - "),
        ("!logs", "!logs <name> [n] - "),
        ("!logs puppet 0", "1 to 20 lines"),
        ("!logs puppet 21", "1 to 20 lines"),
        ("!net", "!net <name> [allow <target>] - "),
        ("!net puppet deny x", "!net <name> [allow <target>] - "),
        ("!reload a b", "!reload [name] - "),
        ("!questions x", "!questions - "),
        ("!ok", "!ok <number> [letters] - "),
        ("!ok yes", "!ok <number> [letters] - "),
        ("!no", "!no <number> [reason] - "),
        ("!help a b", "!help [command] - "),
    ] {
        ann.command(wrong, usage);
    }
    // All that !help names, it explains, and it names no other.
    let help = ann.command("!help", "!help <command> says more");
    let names: Vec<_> = help.split(' ').take_while(|word| *word != "-").collect();
    assert_eq!(names.len(), 17, "{help}");
    for name in names {
        ann.command(&format!("!help {name}"), &format!("{name} "));
    }
    ann.command("!help dance", "there is no !dance; !help lists the commands");
    // Letters may be large; a command may be given in any order of blanks.
    ann.command("  !LIST  ", "no agents");
    overseer.end();
}

#[test]
fn names_follow_rules() {
    let overseer = Overseer::start(&[]);
    let mut ann = overseer.person("ann");
    for (name, why) in [
        ("NickServ", "is reserved"),
        ("overseer", "is reserved"),
        ("7up", "must begin with a letter"),
        ("-x", "must begin with"),
        ("w\u{f6}rker", "may have only"),
        (&"a".repeat(31), "1 to 30 characters"),
    ] {
        ann.command(&format!("!invoke puppet {name}"), why);
    }
    ann.command("!list", "no agents");
    overseer.end();
}

#[test]
fn the_list_tells_agents_apart() {
    let _alone = alone();
    let overseer = Overseer::start(&[]);
    overseer.puppet("other", "nick = \"otto\"\nmodel = \"m1\"\n");
    let mut ann = overseer.person("ann");
    ann.command("!invoke puppet", "is starting");
    ann.command("!invoke other", "is starting");
    overseer.ready("puppet");
    overseer.ready("other");
    ann.command("!status", "2 of 2 agents up");
    ann.command("!pause puppet", "is paused");
    overseer.until("puppet", "paused");
    let lines = ann.quiet_until("#control", "!list", "puppet (");
    let other = lines.iter().find(|line| line.contains(":other as otto (other, m1): ready"));
    assert!(other.is_some_and(|line| line.ends_with("in #agents")), "{lines:?}");
    assert!(lines.last().unwrap().contains("puppet (puppet, ): paused"), "{lines:?}");
    ann.command("!status", "1 of 2 agents up");
    // By its nick where people talk, by its name where it is commanded.
    ann.say("#agents", "otto: echo here");
    assert_eq!(ann.hears("otto", "#agents", ""), "here");
    ann.command("!destroy otto", "there is no agent otto; there are: other, puppet");
    // Its nick is nobody else's name.
    ann.command("!invoke puppet otto", "is taken");
    overseer.end();
}

#[test]
fn a_changed_template_counts_after_a_reload() {
    let _alone = alone();
    let overseer = Overseer::start(&[]);
    overseer.puppet("ear", "persona = \"You are first.\"\n");
    let mut ann = overseer.person("ann");
    ann.command("!invoke ear", "is starting");
    let pid = overseer.ready("ear");
    ann.command("!persona ear", "ear: You are first.");
    ann.say("#agents", "ear: persona");
    assert_eq!(ann.hears("ear", "#agents", ""), "You are first.");
    // Persona and trigger, in a VM that goes on.
    overseer.puppet("ear", "persona = \"You are second.\"\ntrigger = \"always\"\n");
    ann.command("!reload", "templates reloaded");
    ann.hears("ear", "#agents", "[reloaded: model=]");
    ann.say("#agents", "persona");
    assert_eq!(ann.hears("ear", "#agents", ""), "You are second.");
    // One with a mistake is told of, and nothing else changes.
    overseer.puppet("ear", "tirgger = \"mention\"\n");
    ann.command("!reload", "templates reloaded");
    ann.hears("overseer", "#control", "ear is unchanged");
    ann.say("#agents", "persona");
    assert_eq!(ann.hears("ear", "#agents", ""), "You are second.");
    // What people gave it counts more than the template.
    ann.command("!persona ear You are third.", "persona changed");
    ann.hears("ear", "#agents", "[reloaded");
    overseer.puppet("ear", "persona = \"You are fourth.\"\ntrigger = \"always\"\n");
    ann.command("!reload", "templates reloaded");
    ann.command("!persona ear", "ear: You are third.");
    ann.say("ear", "persona");
    assert_eq!(ann.hears("ear", "me", ""), "You are third.");
    assert_eq!(overseer.ready("ear"), pid);
    overseer.end();
}

#[test]
fn logs_are_said_line_by_line() {
    let _alone = alone();
    let overseer = Overseer::start(&[]);
    let mut ann = overseer.person_with("ann", "puppet");
    for n in 0..3 {
        ann.say("puppet", &format!("run echo noise-{n}; exit 1"));
        ann.hears("puppet", "me", "1: noise");
    }
    ann.command("!pause puppet", "is paused");
    let last = ann.command("!logs puppet 1", " ");
    let all = overseer.fireclaw(&["agent", "logs", "puppet"]).exits(0).stdout();
    assert_eq!(all.lines().last(), Some(&*last));
    let lines = ann.quiet_until("#control", "!logs puppet 2", &last);
    assert_eq!(lines.len(), 2, "{lines:?}");
    let files = overseer.home.path().join("agents/puppet/agent.log");
    assert_eq!(fs::read_to_string(files).unwrap(), all);
    overseer.end();
}
