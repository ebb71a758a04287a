//! What agents hear, and how they answer.

use crate::harness::{alone, wait_until};
use crate::overseer::Overseer;

#[test]
fn it_goes_where_it_is_invited_and_stays_away_when_kicked() {
    let _alone = alone();
    let mut overseer = Overseer::start(&[]);
    let mut ann = overseer.person_with("ann", "puppet");
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
    let is_in_both = |overseer: &Overseer| {
        let channels = overseer.agents()[0]["channels"].clone();
        channels.as_array().is_some_and(|channels| channels.len() == 2)
    };
    // It is written down once the agent itself hears that it is in.
    wait_until("it to know", || is_in_both(&overseer));
    // It keeps its channels over a restart of everything.
    overseer.kill();
    overseer.again();
    let mut ann = overseer.person("ann");
    ann.send("JOIN #room");
    ann.until("366 ");
    overseer.ready("puppet");
    wait_until("its channels", || is_in_both(&overseer));
    ann.sees("#room", "puppet");
    ann.say("#room", "puppet: echo again");
    ann.hears("puppet", "#room", "again");
    overseer.end();
}

#[test]
fn agents_that_go_in_circles_are_stopped() {
    let _alone = alone();
    let overseer = Overseer::start(&[]);
    let mut ann = overseer.person("ann");
    ann.command("!invoke puppet a1", "is starting");
    ann.command("!invoke puppet b1", "is starting");
    overseer.ready("a1");
    overseer.ready("b1");
    // Each hands on what it was handed, one step shorter.
    let mut chain = "echo end".to_owned();
    for n in 0..8 {
        chain = format!("to {}: {chain}", if n % 2 == 0 { "b1" } else { "a1" });
    }
    ann.say("#agents", &format!("a1: {}", chain.strip_prefix("to a1: ").unwrap_or(&chain)));
    ann.hears("overseer", "#control", "reply loop between");
    // A short hand-off gets through, once the pause is over.
    wait_until("a hand-off", || {
        ann.say("#agents", "a1: to b1: echo handed over");
        ann.hears("a1", "#agents", "b1: echo");
        // What it was handed, it has said before it says this.
        let said = ann.quiet_until("b1", "echo nothing more", "nothing more");
        said.iter().any(|line| line.starts_with(":b1!") && line.contains("handed over"))
    });
    overseer.end();
}

#[test]
fn notices_actions_and_questions_to_clients_are_not_for_the_agent() {
    let _alone = alone();
    let overseer = Overseer::start(&[]);
    let mut ann = overseer.person_with("ann", "puppet");
    ann.sees("#agents", "puppet");
    // Two questions to the program behind the nick are answered, by notice.
    ann.say("puppet", "\u{1}VERSION\u{1}");
    let version = ann.until("VERSION");
    assert!(version.contains(" NOTICE ann :\u{1}VERSION Fireclaw "), "{version}");
    ann.say("puppet", "\u{1}PING 42\u{1}");
    assert!(ann.until("PING").contains(" NOTICE ann :\u{1}PING 42\u{1}"));
    // Nothing else of the kind.
    ann.send("NOTICE puppet :echo notice");
    ann.send("NOTICE #agents :puppet: echo notice");
    ann.say("puppet", "\u{1}TIME\u{1}");
    ann.say("puppet", "\u{1}DCC SEND x 1 2 3\u{1}");
    ann.say("#agents", "\u{1}VERSION\u{1}");
    ann.say("#agents", "\u{1}ACTION puppet: echo action\u{1}");
    ann.say("puppet", " ");
    let said = ann.quiet_until("puppet", "echo end", "end");
    assert_eq!(said.len(), 1, "{said:?}");
    overseer.end();
}

#[test]
fn one_that_always_listens_hears_people_and_not_agents() {
    let _alone = alone();
    let overseer = Overseer::start(&[]);
    overseer.puppet("ear", "trigger = \"always\"\n");
    let mut ann = overseer.person("ann");
    ann.command("!invoke ear", "is starting");
    ann.command("!invoke puppet", "is starting");
    overseer.ready("ear");
    overseer.ready("puppet");
    ann.say("#agents", "echo without a mention");
    assert_eq!(ann.hears("ear", "#agents", ""), "without a mention");
    // What the other says is not said to it, nor what it says itself.
    ann.say("puppet", "echo private");
    ann.hears("puppet", "me", "private");
    ann.say("#agents", "puppet: echo echo again");
    ann.hears("puppet", "#agents", "echo again");
    let said = ann.quiet_until("#agents", "echo end", "end");
    let of_ear = |line: &&String| line.starts_with(":ear!");
    // One answer to ann's line for the other, perhaps; one to her last.
    let answers: Vec<_> = said.iter().filter(of_ear).collect();
    assert!(answers.iter().all(|line| !line.ends_with(":again")), "{said:?}");
    assert!(answers.last().unwrap().ends_with(":end"), "{said:?}");
    overseer.end();
}

#[test]
fn long_words_of_any_script_arrive_whole() {
    let _alone = alone();
    let overseer = Overseer::start(&[]);
    let mut ann = overseer.person_with("ann", "puppet");
    for piece in ["\u{6f22}\u{5b57}", "\u{1f980}", "\u{e9}", "\u{1f469}\u{200d}\u{1f680}"] {
        let whole = piece.repeat(2000 / piece.len());
        ann.say("puppet", &format!("repeat {} {piece}", 2000 / piece.len()));
        let mut heard = String::new();
        let mut lines = 0;
        while heard.len() < whole.len() {
            let line = ann.until(" PRIVMSG ann :");
            // What the server sends may have 512 bytes with the line's end.
            assert!(line.len() <= 510, "{} bytes", line.len());
            assert!(!line.contains('\u{fffd}'), "a character was broken: {line}");
            heard.push_str(line.split_once(" PRIVMSG ann :").unwrap().1);
            lines += 1;
        }
        assert_eq!(heard, whole);
        assert!(lines <= 6, "{lines} lines for {} bytes", whole.len());
    }
    overseer.end();
}

#[test]
fn too_many_lines_are_cut_and_that_is_said() {
    let _alone = alone();
    let overseer = Overseer::start(&[]);
    let mut ann = overseer.person_with("ann", "puppet");
    // What fits is said as it is.
    ann.say("puppet", "lines 12");
    for n in 0..12 {
        assert_eq!(ann.hears("puppet", "me", ""), format!("line {n}"));
    }
    // Prose is joined before anything is left out.
    ann.say("puppet", "lines 100");
    let first = ann.hears("puppet", "me", "");
    assert!(first.starts_with("line 0 line 1 "), "{first}");
    // What has to be lines is left out from the end.
    let said = ann.quiet_until("puppet", "items 100", "[the rest is left out]");
    let items = said.iter().filter(|line| line.contains(":- item")).count();
    assert_eq!(items, 16, "{said:?}");
    overseer.end();
}

#[test]
fn a_channel_that_lets_nobody_in_is_told_of() {
    let _alone = alone();
    let overseer = Overseer::start(&[]);
    let mut ann = overseer.person_with("ann", "puppet");
    for (room, modes) in [("#locked", "+k secret"), ("#full", "+l 1")] {
        ann.send(&format!("JOIN {room}"));
        ann.until("366 ");
        ann.send(&format!("MODE {room} {modes}"));
        ann.until(" MODE ");
    }
    for (room, why) in [("#locked", "(+k)"), ("#full", "(+l)")] {
        ann.send(&format!("INVITE puppet {room}"));
        let told = ann.hears("overseer", "#control", &format!("puppet cannot join {room}: "));
        assert!(told.contains(why), "{told}");
    }
    // It lives on, and comes once it may.
    ann.say("puppet", "echo alive");
    ann.hears("puppet", "me", "alive");
    ann.send("MODE #locked -k secret");
    ann.send("INVITE puppet #locked");
    ann.sees("#locked", "puppet");
    overseer.end();
}

#[test]
fn stop_ends_what_one_asked_for_and_nobody_elses() {
    let _alone = alone();
    let overseer = Overseer::start(&[]);
    let mut ann = overseer.person("ann");
    let mut bob = overseer.person("bob");
    ann.command("!invoke puppet", "is starting");
    overseer.ready("puppet");
    ann.say("#agents", "puppet: hang");
    bob.until(":puppet: hang");
    overseer.until("puppet", "busy");
    // Neither somebody else's nor one's own in another place.
    bob.say("#agents", "puppet: stop");
    bob.hears("puppet", "#agents", "bob: nothing of yours is under way here");
    ann.say("puppet", "stop");
    ann.hears("puppet", "me", "nothing of yours is under way here");
    // Two who ask in one place are told apart.
    let said = bob.quiet_until("#agents", "puppet: echo there", "bob: there");
    assert!(!said.iter().any(|line| line.contains("stopped")), "{said:?}");
    overseer.until("puppet", "busy");
    ann.say("#agents", "puppet: Stop");
    ann.hears("puppet", "#agents", "ann: stopped");
    overseer.until("puppet", "ready");
    // Who leaves wants no answer any more.
    bob.say("puppet", "hang");
    overseer.until("puppet", "busy");
    bob.send("QUIT :bye");
    overseer.until("puppet", "ready");
    overseer.end();
}

#[test]
fn stop_reaches_what_waits_for_a_paused_agent() {
    let _alone = alone();
    let overseer = Overseer::start(&[]);
    let mut ann = overseer.person_with("ann", "puppet");
    ann.command("!pause puppet", "is paused");
    overseer.until("puppet", "paused");
    ann.say("puppet", "echo no longer wanted");
    ann.hears("puppet", "me", "I am paused");
    ann.say("puppet", "stop");
    ann.hears("puppet", "me", "stopped");
    ann.say("puppet", "echo wanted");
    ann.hears("puppet", "me", "I am paused");
    let said = ann.quiet_until("#control", "!resume puppet", "wanted");
    assert!(!said.iter().any(|line| line.ends_with(":no longer wanted")), "{said:?}");
    overseer.end();
}
