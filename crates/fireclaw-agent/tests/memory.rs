//! What is remembered, and what happens when that is broken or cannot be done.

#![allow(clippy::disallowed_macros, reason = "the test harness collects what these print")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

use common::{Host, config, home, message};
use fireclaw_protocol::agent::{Action, Event, Incoming};
use fireclaw_protocol::chat::Message;
use serde_json::json;
use tempfile::TempDir;

fn history(home: &TempDir) -> PathBuf {
    home.path().join(".fireclaw/history/channel-_23agents.jsonl")
}

#[tokio::test]
async fn a_conversation_goes_on_after_a_restart() {
    let home = home();
    let mut host = Host::start(&home, config()).await;
    host.talk(1, "my name is Ann", "Hello Ann.").await;
    host.end().await;
    let mut host = Host::start(&home, config()).await;
    assert!(host.notes.is_empty());
    let think = host.talk(2, "what is my name?", "Ann.").await;
    let said = [Message::user("ann: my name is Ann"), Message::assistant("Hello Ann.")];
    assert_eq!(think.messages[1..3], said);
    host.end().await;
}

#[tokio::test]
async fn what_was_answered_is_only_done() {
    let home = home();
    let mut host = Host::start(&home, config()).await;
    host.talk(5, "hello", "Hello.").await;
    // The host was started anew, the agent was not.
    host.ask(5, "hello").await;
    host.done(5).await;
    // A message that is being dealt with is not begun twice.
    host.ask(6, "more").await;
    let think = host.think().await;
    host.ask(6, "more").await;
    host.says(&think, "More.").await;
    assert_eq!(host.said(6).await, "More.");
    host.end().await;
    let mut host = Host::start(&home, config()).await;
    host.ask(6, "more").await;
    host.done(6).await;
    // The same number somewhere else is another message.
    let private = Incoming { private: true, conversation: "ann".into(), ..message(6, "more") };
    host.send(Event::Message(private)).await;
    let think = host.think().await;
    host.says(&think, "x").await;
    assert_eq!(host.said(6).await, "x");
    host.end().await;
}

#[tokio::test]
async fn an_agent_that_is_killed_answers_when_asked_again() {
    let home = home();
    let mut host = Host::start(&home, config()).await;
    host.talk(1, "first", "One.").await;
    host.ask(2, "second").await;
    let think = host.think().await;
    host.runs(&think, "sleep 31400").await;
    drop(host);
    // It ended while it wrote.
    let mut file = OpenOptions::new().append(true).open(history(&home)).unwrap();
    file.write_all(br#"{"id":2,"at":17,"fro"#).unwrap();
    let mut host = Host::start(&home, config()).await;
    assert!(host.notes.is_empty(), "{:?}", host.notes);
    let think = host.talk(2, "second", "Two.").await;
    assert_eq!(think.messages.len(), 4);
    host.end().await;
    let lines = fs::read_to_string(history(&home)).unwrap();
    assert_eq!(lines.lines().count(), 2);
    assert!(lines.ends_with("\"answer\":\"Two.\"}\n"), "{lines}");
}

#[tokio::test]
async fn a_broken_history_is_moved_aside() {
    let home = home();
    let mut host = Host::start(&home, config()).await;
    host.talk(1, "first", "One.").await;
    host.end().await;
    let mut bytes = fs::read(history(&home)).unwrap();
    bytes.extend(b"\xff\xfe garbage\n{}\n");
    fs::write(history(&home), &bytes).unwrap();
    let mut host = Host::start(&home, config()).await;
    assert!(host.notes.len() == 1 && host.notes[0].contains("2 lines"), "{:?}", host.notes);
    assert_eq!(fs::read(history(&home).with_extension("jsonl.broken")).unwrap(), bytes);
    let think = host.talk(2, "second", "Two.").await;
    assert_eq!(think.messages.len(), 4, "what can be read is kept");
    // While it runs, what is in memory counts.
    fs::write(history(&home), "garbage\n").unwrap();
    host.talk(3, "third", "Three.").await;
    host.end().await;
    let host = Host::start(&home, config()).await;
    assert_eq!(host.notes.len(), 1);
    host.end().await;
}

/// Has the agent save a fact for what is said, and says where it was saved.
async fn saves(host: &mut Host, incoming: Incoming, name: &str, text: &str) -> String {
    let id = incoming.id;
    host.send(Event::Message(incoming)).await;
    let think = host.think().await;
    host.calls(&think, "save_memory", json!({"name": name, "text": text})).await;
    let think = host.think().await;
    let saved = think.last().content.clone();
    host.says(&think, "I will.").await;
    host.said(id).await;
    saved
}

/// All that the model gets to read when it is asked and recalls.
async fn knows(host: &mut Host, incoming: Incoming, query: &str) -> String {
    let id = incoming.id;
    host.send(Event::Message(incoming)).await;
    let think = host.think().await;
    host.calls(&think, "recall", json!({"query": query})).await;
    let think = host.think().await;
    host.says(&think, "I see.").await;
    host.said(id).await;
    think.text()
}

fn private(id: u64, nick: &str, text: &str) -> Incoming {
    let (conversation, from) = (nick.into(), nick.into());
    Incoming { private: true, conversation, from, ..message(id, text) }
}

#[tokio::test]
async fn facts_are_saved_and_found() {
    let home = home();
    let mut host = Host::start(&home, config()).await;
    let cat = "Ann's cat is called Tom.";
    let saved =
        saves(&mut host, message(1, "remember how my cat is called"), "../Ann's cat", cat).await;
    assert_eq!(saved, "Saved in memory/channel-_23agents/ann-s-cat.md.");
    let path = home.path().join("memory/channel-_23agents/ann-s-cat.md");
    assert_eq!(fs::read_to_string(path).unwrap(), "Ann's cat is called Tom.\n");
    let public = message(2, "Remember for everyone: the deploy is on Friday");
    let saved = saves(&mut host, public, "deploy", "The deploy is on Friday.").await;
    assert_eq!(saved, "Saved in memory/deploy.md.");
    host.end().await;
    let mut host = Host::start(&home, config()).await;
    let here = knows(&mut host, message(3, "my cat?"), "cat called").await;
    assert!(here.contains("(memory/channel-_23agents/ann-s-cat.md): Ann's cat"), "{here}");
    assert!(here.contains("memory/channel-_23agents/ann-s-cat.md:\nAnn's cat"), "{here}");
    assert!(here.contains("ann asked: remember how my cat"), "{here}");
    let other = Incoming { conversation: "#other".into(), ..message(4, "a cat?") };
    let there = knows(&mut host, other, "cat called").await;
    assert!(!there.contains("Tom") && !there.contains("my cat"), "{there}");
    assert!(there.contains("deploy is on Friday"), "{there}");
    host.end().await;
}

#[tokio::test]
async fn what_is_said_in_private_stays_there() {
    let home = home();
    let mut host = Host::start(&home, config()).await;
    let secret = "The door code is 4711.";
    saves(&mut host, private(1, "ann", "my door code is 4711"), "door code", secret).await;
    let everywhere = [
        message(2, "the code?"),
        Incoming { conversation: "#ann".into(), ..message(3, "the code?") },
        private(4, "bob", "ann's code?"),
        private(5, "ann_", "my code?"),
    ];
    for incoming in everywhere {
        let known = knows(&mut host, incoming.clone(), "door code ann").await;
        assert!(!known.contains("4711"), "{incoming:?}: {known}");
    }
    // Nor does a model decide that it may be known: only who asks does, and says so first.
    let trick = private(6, "ann", "this is not for everyone: remember for everyone is wrong");
    saves(&mut host, trick, "for everyone", "The other code is 4712.").await;
    host.end().await;
    // Also after a restart; and there, it is known.
    let mut host = Host::start(&home, config()).await;
    let known = knows(&mut host, message(7, "the code?"), "code").await;
    assert!(!known.contains("471"), "{known}");
    let known = knows(&mut host, private(8, "Ann", "my code?"), "door code").await;
    assert!(known.contains("4711") && known.contains("4712"), "{known}");
    host.end().await;
}

#[tokio::test]
async fn calls_are_in_the_history_shortened() {
    let home = home();
    let mut host = Host::start(&home, config()).await;
    host.ask(1, "count").await;
    let think = host.think().await;
    host.runs(&think, "seq 100000").await;
    let think = host.think().await;
    host.says(&think, "It counts to 100000.").await;
    host.said(1).await;
    host.end().await;
    let mut host = Host::start(&home, config()).await;
    let think = host.talk(2, "again", "Yes.").await;
    let [_, question, call, told, answer, again] = &think.messages[..] else {
        panic!("{:?}", think.messages)
    };
    assert_eq!(question.content, "ann: count");
    assert_eq!(call.tool_calls[0].arguments, json!({"command": "seq 100000"}));
    assert_eq!(told.tool_call_id.as_ref(), Some(&call.tool_calls[0].id));
    assert!(told.content.len() < 400 && told.content.contains("bytes left out"));
    assert!(told.content.starts_with("<data>\n1\n2\n") && told.content.ends_with("</data>"));
    assert_eq!(
        (answer.content.as_str(), again.content.as_str()),
        ("It counts to 100000.", "ann: again")
    );
    host.end().await;
}

#[tokio::test]
async fn a_huge_memory_is_read_in_part_and_told() {
    let home = home();
    let index = home.path().join("MEMORY.md");
    fs::write(&index, "begin\n".to_owned() + &"x".repeat(500_000)).unwrap();
    fs::create_dir(home.path().join("memory")).unwrap();
    let sparse = fs::File::create(home.path().join("memory/huge.md")).unwrap();
    sparse.set_len(1 << 40).unwrap();
    let mut host = Host::start(&home, config()).await;
    let notes = host.notes.join("\n");
    assert!(
        notes.contains("MEMORY.md has 500006 bytes") && notes.contains("memory/huge.md has"),
        "{notes}"
    );
    host.ask(1, "remember for everyone that a is b").await;
    let think = host.think().await;
    assert!(think.system().contains("begin") && think.system().len() < 16_000);
    host.calls(&think, "save_memory", json!({"name": "a", "text": "b"})).await;
    let think = host.think().await;
    assert!(think.last().content.contains("no room"), "{}", think.last().content);
    host.calls(&think, "recall", json!({"query": "nothing like that"})).await;
    let think = host.think().await;
    host.says(&think, "ok").await;
    host.said(1).await;
    host.end().await;
    assert_eq!(fs::metadata(index).unwrap().len(), 500_006);
}

/// Asks twice where nothing can be written: answered both times, and told once.
async fn asks_where_nothing_can_be_kept(home: &TempDir) -> String {
    let mut host = Host::start(home, config()).await;
    host.ask(1, "one").await;
    let think = host.think().await;
    host.says(&think, "1").await;
    assert_eq!(host.next().await, Action::Say { message: 1, text: "1".into() });
    let told = host.said(1).await;
    assert!(told.contains("could not write this down"), "{told}");
    // The conversation is known all the same.
    host.ask(2, "two").await;
    let think = host.think().await;
    assert!(think.text().contains("ann: one"));
    host.calls(&think, "save_memory", json!({"name": "a", "text": "b"})).await;
    let think = host.think().await;
    assert!(think.last().content.contains("not remembered"), "{}", think.last().content);
    host.says(&think, &"2\n".repeat(100)).await;
    let said = host.said(2).await;
    assert!(said.starts_with("2\n2") && said.contains("could not be written"), "{said}");
    host.end().await;
    told
}

#[tokio::test]
async fn without_a_place_to_write_it_still_answers() {
    let home = home();
    // Nobody can make a directory where a file is, not even root.
    for name in [".fireclaw", "memory", "answers"] {
        fs::write(home.path().join(name), "").unwrap();
    }
    asks_where_nothing_can_be_kept(&home).await;
}

#[tokio::test]
async fn with_a_full_workspace_it_still_answers() {
    let home = home();
    let options = c"size=64k,mode=0755";
    let flags = rustix::mount::MountFlags::empty();
    let Ok(()) = rustix::mount::mount("full", home.path(), "tmpfs", flags, options) else {
        eprintln!("skipped: mounting needs root");
        return;
    };
    let _mounted = Mounted(home.path().to_owned());
    let mut filler = fs::File::create(home.path().join("filler")).unwrap();
    while filler.write_all(&[0; 4096]).is_ok() {}
    drop(filler);
    let told = asks_where_nothing_can_be_kept(&home).await;
    assert!(told.contains("No space left"), "{told}");
    // When there is room again, it remembers.
    fs::remove_file(home.path().join("filler")).unwrap();
    let mut host = Host::start(&home, config()).await;
    host.talk(3, "three", "3").await;
    host.end().await;
    let mut host = Host::start(&home, config()).await;
    assert!(host.notes.is_empty(), "{:?}", host.notes);
    assert!(host.talk(4, "four", "4").await.text().contains("ann: three"));
    host.end().await;
}

struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}
