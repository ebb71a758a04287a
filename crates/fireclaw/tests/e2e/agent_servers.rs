//! Agents on a server that is not ours: InspIRCd.

use crate::harness::{Home, alone};
use crate::inspircd::{InspIrcd, certificate, says};
use crate::overseer::Overseer;
use crate::person::Person;

#[test]
fn an_agent_is_at_home_on_another_server() {
    let _alone = alone();
    let server = InspIrcd::start();
    let options = ["--server", "127.0.0.1", "--owner", "ann!*@*"];
    let overseer = Overseer::at(server.port, &options);
    let mut eve = overseer.person("eve");
    let mut ann = overseer.person("ann");
    eve.command("!invoke puppet", "eve: permission denied");
    ann.command("!invoke puppet", "puppet is starting");
    overseer.ready("puppet");
    ann.sees("#agents", "puppet");
    ann.say("#agents", "puppet: echo one");
    assert_eq!(ann.hears("puppet", "#agents", ""), "one");
    ann.say("puppet", "echo two");
    assert_eq!(ann.hears("puppet", "me", ""), "two");
    // What only operators hear is answered where only they hear it. She was there first.
    eve.send("MODE #agents +o puppet");
    eve.until(" MODE #agents +o");
    eve.say("@#agents", "puppet: echo three");
    assert_eq!(eve.hears("puppet", "@#agents", ""), "three");
    // Everybody can see what it is.
    ann.send("WHOIS puppet");
    assert!(ann.all_until(&[" 318 "]).iter().any(|line| line.contains(" 335 ")));
    // It goes with a word.
    ann.say("#control", "!destroy puppet");
    let quit = ann.until(" QUIT ");
    assert!(quit.starts_with(":puppet!") && quit.contains("destroyed by ann"), "{quit}");
    ann.hears("overseer", "#control", "puppet stopped");
    overseer.end();
}

#[test]
fn what_a_server_plays_back_is_not_answered_again() {
    let _alone = alone();
    let server = InspIrcd::start();
    let options = ["--server", "127.0.0.1", "--owner", "ann!*@*"];
    let overseer = Overseer::at(server.port, &options);
    let mut ann = overseer.person_with("ann", "puppet");
    ann.sees("#agents", "puppet");
    ann.send("JOIN #room");
    ann.until("366 ");
    ann.send("MODE #room +H 20:1h");
    ann.until("+H");
    ann.send("INVITE puppet #room");
    ann.sees("#room", "puppet");
    ann.say("#room", "puppet: echo once");
    ann.hears("puppet", "#room", "once");
    // Sent away it stays away; back again it is told what was said before.
    ann.send("KICK #room puppet :for a while");
    ann.until(" KICK ");
    ann.say("#room", "puppet: echo while it was away");
    ann.send("INVITE puppet #room");
    ann.sees("#room", "puppet");
    let said = ann.quiet_until("#room", "puppet: echo now", "now");
    assert_eq!(said.len(), 1, "{said:?}");
    overseer.end();
}

#[test]
fn a_server_may_crash() {
    let _alone = alone();
    let mut server = InspIrcd::start();
    let options = ["--server", "127.0.0.1", "--owner", "ann!*@*"];
    let overseer = Overseer::at(server.port, &options);
    let mut ann = overseer.person("ann");
    ann.command("!invoke puppet", "is starting");
    let pid = overseer.ready("puppet");
    ann.sees("#agents", "puppet");
    server.crash();
    let mut ann = overseer.person("ann");
    ann.sees("#agents", "puppet");
    ann.sees("#control", "overseer");
    ann.say("#agents", "puppet: echo back");
    assert_eq!(ann.hears("puppet", "#agents", ""), "back");
    ann.command("!list", "puppet (");
    assert_eq!(overseer.ready("puppet"), pid);
    overseer.end();
}

#[test]
fn a_server_is_spoken_to_in_secret_if_it_is_the_right_one() {
    let _alone = alone();
    let server = InspIrcd::start();
    let own = server.certificate();
    let own = own.to_str().unwrap();
    let options = ["--server", "127.0.0.1", "--tls", "--tls-ca", own, "--owner", "ann!*@*"];
    let overseer = Overseer::at(server.tls_port, &options);
    let mut ann = Person::join(server.port, "ann");
    ann.command("!invoke puppet", "is starting");
    overseer.ready("puppet");
    ann.sees("#agents", "puppet");
    ann.say("puppet", "echo in secret");
    assert_eq!(ann.hears("puppet", "me", ""), "in secret");
    // 671: "is using a secure connection".
    ann.send("WHOIS puppet");
    assert!(ann.all_until(&[" 318 "]).iter().any(|line| line.contains(" 671 ")));
    overseer.end();
    // Another one's certificate is not enough, and neither is none at all.
    let home = Home::new();
    let other = home.path().join("other.pem");
    certificate(other.clone(), home.path().join("key.pem"));
    let port = server.tls_port.to_string();
    for trust in [vec!["--tls-ca", other.to_str().unwrap()], vec![]] {
        let mut command = home.fireclaw(["overseer", "--server", "127.0.0.1", "--tls"]);
        command.args(["--port", &port]).args(trust);
        let said = says(command, "no chat server");
        assert!(said.contains("certificate"), "{said}");
        assert!(!said.contains("listens in"), "{said}");
    }
    home.is_clean();
}

#[test]
fn operators_of_the_channel_give_commands() {
    let _alone = alone();
    let server = InspIrcd::start();
    // She has the channel before the overseer comes, and nobody is named an owner.
    let mut ann = Person::join(server.port, "ann");
    let overseer = Overseer::at(server.port, &["--server", "127.0.0.1"]);
    ann.sees("#control", "overseer");
    let mut bob = overseer.person("bob");
    bob.command("!pause puppet", "bob: permission denied");
    ann.command("!pause puppet", "there is no agent puppet");
    // A right counts for as long as one has it.
    ann.send("MODE #control +o bob");
    bob.until(" MODE #control +o");
    bob.command("!pause puppet", "there is no agent puppet");
    ann.send("MODE #control -o bob");
    bob.until(" MODE #control -o");
    bob.command("!pause puppet", "bob: permission denied");
    overseer.end();
}
