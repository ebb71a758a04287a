//! What agents ask leave for.

use crate::harness::alone;
use crate::inspircd::InspIrcd;
use crate::overseer::Overseer;
use crate::person::Person;

/// Has the agent `puppet` ask for something; the question's number.
#[track_caller]
fn question(person: &mut Person, what: &str) -> String {
    person.say("puppet", &format!("ask {what}"));
    let asked =
        person.hears("overseer", "#control", &format!("puppet wants to run_command: {what}"));
    asked.trim_start_matches('#').split(' ').next().unwrap().to_owned()
}

#[test]
fn people_are_asked_and_decide() {
    let _alone = alone();
    let overseer = Overseer::start(&["--approval-time", "5"]);
    let mut ann = overseer.person("ann");
    ann.command("!invoke puppet", "boots");
    overseer.ready("puppet");
    let number = question(&mut ann, "rm -rf /");
    ann.command(&format!("!no {number} not here"), "may not");
    assert_eq!(ann.hears("puppet", "me", ""), "refused: ann: not here");
    let number = question(&mut ann, "rm -rf /");
    ann.command(&format!("!ok {number}"), "puppet may");
    assert_eq!(ann.hears("puppet", "me", ""), "granted");
    ann.command(&format!("!ok {number}"), "no open question");
    question(&mut ann, "rm -rf /");
    ann.hears("overseer", "#control", "nobody answered in time");
    ann.hears("puppet", "me", "refused");
    overseer.end();
}

/// Answers a question. What the overseer says to that and what the agent says may come in any
/// order: each has a rate of its own on a server that is not ours.
#[track_caller]
fn decide(ann: &mut Person, command: &str, said: [&str; 2]) {
    ann.say("#control", command);
    let mut open = said.to_vec();
    while !open.is_empty() {
        let line = ann.all_until(&open).pop().unwrap();
        open.retain(|words| !line.contains(words));
    }
}

#[test]
fn only_owners_decide_and_in_any_order() {
    let _alone = alone();
    let server = InspIrcd::start();
    let overseer = Overseer::at(server.port, &["--server", "127.0.0.1", "--owner", "ann!*@*"]);
    // Who comes first is the channel's operator, and so may.
    let mut op = overseer.person("op");
    let mut eve = overseer.person("eve");
    let mut ann = overseer.person("ann");
    ann.command("!invoke puppet", "boots");
    overseer.ready("puppet");
    let first = question(&mut ann, "one");
    let second = question(&mut ann, "two");
    eve.command(&format!("!ok {first}"), "eve: you may not");
    eve.command(&format!("!no {first}"), "eve: you may not");
    // Everybody may see what is asked.
    eve.command("!questions", &format!("#{first} puppet wants to run_command: one"));
    decide(&mut ann, &format!("!ok {second}"), ["puppet may", " PRIVMSG ann :granted"]);
    decide(&mut ann, &format!("!no #{first}"), ["may not", " PRIVMSG ann :refused: ann"]);
    op.command("!questions", "nothing waits for an answer");
    overseer.end();
}

#[test]
fn an_answer_reaches_who_was_paused() {
    let _alone = alone();
    let overseer = Overseer::start(&[]);
    let mut ann = overseer.person("ann");
    ann.command("!invoke puppet", "boots");
    overseer.ready("puppet");
    let number = question(&mut ann, "it");
    ann.command("!pause puppet", "is paused");
    overseer.until("puppet", "paused");
    ann.command(&format!("!ok {number}"), "puppet may");
    ann.command("!resume puppet", "goes on");
    assert_eq!(ann.hears("puppet", "me", ""), "granted");
    overseer.end();
}

#[test]
fn a_question_ends_with_what_it_was_for() {
    let _alone = alone();
    let overseer = Overseer::start(&[]);
    let mut ann = overseer.person("ann");
    ann.command("!invoke puppet", "boots");
    overseer.ready("puppet");
    let number = question(&mut ann, "it");
    ann.say("puppet", "stop");
    ann.hears("puppet", "me", "stopped");
    overseer.ready("puppet");
    ann.command(&format!("!ok {number}"), "there is no open question");
    // Nor does one outlive its agent.
    let number = question(&mut ann, "that");
    ann.command("!destroy puppet", "is gone");
    ann.command(&format!("!ok {number}"), "there is no open question");
    overseer.end();
}
