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
    let private = Incoming { private: true, place: "ann".into(), ..message(6, "more") };
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

#[tokio::test]
async fn facts_are_saved_and_found() {
    let home = home();
    let mut host = Host::start(&home, config()).await;
    host.ask(1, "remember my cat is called Tom").await;
    let think = host.think().await;
    let fact = json!({"name": "../Ann's cat", "text": "Ann's cat is called Tom."});
    host.calls(&think, "save_memory", fact).await;
    let think = host.think().await;
    assert_eq!(think.last().content, "Saved in memory/ann-s-cat.md.");
    assert!(think.system().contains("(memory/ann-s-cat.md): Ann's cat is called Tom."));
    host.says(&think, "I will.").await;
    host.said(1).await;
    host.end().await;
    assert_eq!(
        fs::read_to_string(home.path().join("memory/ann-s-cat.md")).unwrap(),
        "Ann's cat is called Tom.\n"
    );
    let mut host = Host::start(&home, config()).await;
    // Elsewhere, what was said in the channel is not found; facts are.
    for (id, place, found) in [(2, "#agents", true), (3, "#other", false)] {
        host.send(Event::Message(Incoming { place: place.into(), ..message(id, "my cat?") })).await;
        let think = host.think().await;
        assert!(think.system().contains("memory/ann-s-cat.md"));
        host.calls(&think, "recall", json!({"query": "cat called"})).await;
        let think = host.think().await;
        let said = &think.last().content;
        assert!(said.contains("memory/ann-s-cat.md:\nAnn's cat is called Tom."), "{said}");
        assert_eq!(said.contains("ann: remember my cat"), found, "{said}");
        host.says(&think, "Tom.").await;
        host.said(id).await;
    }
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
    host.ask(1, "hello").await;
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
