//! Agents with a network interface: what they reach is what their template and people say.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;

use crate::harness::{alone, wait_until};
use crate::overseer::Overseer;
use crate::person::Person;

/// A server on this host's loopback that says the same to everybody: its port.
fn serve(text: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            let _ = socket.read(&mut [0; 4096]);
            let answer = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
            let _ = socket.write_all(answer.as_bytes());
        }
    });
    port
}

#[track_caller]
fn run(person: &mut Person, agent: &str, line: &str) -> String {
    person.say(agent, &format!("run {line}"));
    person.hears(agent, "me", ": ")
}

/// Asserts that curl was told so, in whatever way, and not left to its own time limit (its
/// status 28).
#[track_caller]
fn is_refused(said: &str) {
    assert!(said.contains("curl: (") && !said.contains("curl: (28)"), "{said}");
}

/// The addresses of VMs of this home's agents.
fn networks(overseer: &Overseer, owner: &str) -> usize {
    let done = overseer.fireclaw(&["net", "ls", "--json"]).exits(0);
    let rows: Vec<serde_json::Value> = serde_json::from_slice(&done.stdout).unwrap();
    rows.iter().filter(|row| row["owner"] == owner).count()
}

#[test]
fn an_agent_reaches_what_its_template_says_also_after_a_restart() {
    let _alone = alone();
    let mut overseer = Overseer::start(&[]);
    let (named, other) = (serve("named"), serve("other"));
    let config = format!("[[service]]\nname = \"page\"\naddress = \"127.0.0.1:{named}\"\n");
    fs::write(overseer.home.path().join("network.toml"), config).unwrap();
    overseer.puppet("puppet", "network = \"local\"\n");
    let owner = format!("net{}", std::process::id());
    let mut ann = overseer.person("ann");
    ann.command(&format!("!invoke puppet {owner}"), "is starting");
    overseer.ready(&owner);
    let curl = |port| format!("curl -sS -m 20 http://host.fireclaw.internal:{port}/ 2>&1");
    assert_eq!(run(&mut ann, &owner, &curl(named)), "0: named");
    is_refused(&run(&mut ann, &owner, &curl(other)));
    // What was refused can be read.
    let told = ann.command(&format!("!net {owner}"), "local, at ");
    assert!(told.contains("refused"), "{told}");
    ann.hears("overseer", "#control", &format!(":{other}"));
    ann.command(&format!("!net {owner} allow example.org"), "has no list");
    assert_eq!(networks(&overseer, &owner), 1);
    // The VM keeps its interface when its overseer ends, or is killed.
    for end in [Overseer::stop, Overseer::kill] {
        end(&mut overseer);
        overseer.again();
        ann = overseer.person("ann");
        overseer.ready(&owner);
        assert_eq!(run(&mut ann, &owner, &curl(named)), "0: named");
    }
    // Another policy without another VM.
    let before = overseer.ready(&owner);
    overseer.puppet("puppet", "network = { allow = [\"host.fireclaw.internal:1\"] }\n");
    ann.command("!reload", "templates reloaded");
    ann.hears("overseer", "#control", "network policy allow:host.fireclaw.internal:1");
    is_refused(&run(&mut ann, &owner, &curl(named)));
    // People let it reach more.
    let wish = format!("host.fireclaw.internal:{named}");
    let asked = ann.command(&format!("!net {owner} allow {wish}"), "wants to reach");
    assert!(asked.contains(" for ann in #control: "), "{asked}");
    let number: String = asked.chars().skip(1).take_while(char::is_ascii_digit).collect();
    is_refused(&run(&mut ann, &owner, &curl(named)));
    ann.command(&format!("!ok {number}"), "approved for");
    assert_eq!(run(&mut ann, &owner, &curl(named)), "0: named");
    assert_eq!(overseer.ready(&owner), before);
    // Also its next VM.
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(before).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    wait_until("another machine", || overseer.is_ready(&owner) && overseer.ready(&owner) != before);
    assert_eq!(run(&mut ann, &owner, &curl(named)), "0: named");
    assert_eq!(networks(&overseer, &owner), 1);
    ann.command(&format!("!destroy {owner}"), "stopped");
    wait_until("its network to be gone", || networks(&overseer, &owner) == 0);
    overseer.end();
}

#[test]
fn an_agent_without_a_card_is_said_to_have_none() {
    let _alone = alone();
    let overseer = Overseer::start(&[]);
    let mut ann = overseer.person_with("ann", "puppet");
    ann.command("!net puppet", "has no network interface");
    ann.command("!net puppet allow example.org", "has no list");
    ann.command("!net nobody", "there is no agent nobody");
    assert!(run(&mut ann, "puppet", "curl -sS -m 20 http://example.org/ 2>&1").starts_with("6: "));
    overseer.end();
}
