//! What is said, in which order, and what is told to the model.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;

use common::{Host, config, home, message, paths};
use fireclaw_protocol::agent::{Action, Config, Event, Incoming, MAX_LINE, Said, Step};
use fireclaw_protocol::chat::{Message, Role};
use serde_json::json;

#[tokio::test]
async fn an_answer_is_said_and_the_message_done() {
    let home = home();
    let mut host = Host::start(&home, config()).await;
    assert!(host.notes.is_empty());
    let recent = vec![Said { from: "bob".into(), text: "it is hot".into() }];
    host.send(Event::Message(Incoming { recent, ..message(1, "isn't it?") })).await;
    let think = host.think().await;
    assert_eq!(think.message, 1);
    assert!(think.system().starts_with("You are a test.\n\nYou are worker, an AI agent on IRC"));
    assert!(
        think.system().contains("the channel #agents") && think.system().contains("run_command")
    );
    let question = &think.last().content;
    assert!(question.contains("bob: it is hot") && question.ends_with("ann: isn't it?"));
    assert_eq!(
        think.tool_names(),
        ["run_command", "write_file", "save_memory", "read_file", "recall"]
    );
    assert!(think.tools.iter().all(|tool| !tool.examples.is_empty()));
    host.says(&think, "It is.").await;
    assert_eq!(host.said(1).await, "It is.");
    // The conversation goes on.
    let think = host.talk(2, "why?", "Summer.").await;
    assert_eq!(
        think.messages[1..3],
        [Message::user("ann: isn't it?"), Message::assistant("It is.")]
    );
    host.end().await;
}

#[tokio::test]
async fn an_empty_answer_becomes_a_sentence() {
    let home = home();
    let mut host = Host::start(&home, Config { tools: false, ..config() }).await;
    host.ask(1, "hm?").await;
    let think = host.think().await;
    assert!(think.tools.is_empty() && !think.system().contains("tools"));
    host.says(&think, " \n").await;
    assert!(host.said(1).await.contains("The model gave an empty answer."));
    // A model that calls a tool although there is none.
    host.ask(2, "hm?").await;
    let think = host.think().await;
    host.runs(&think, "true").await;
    assert!(host.said(2).await.contains("The model gave an empty answer."));
    host.end().await;
}

#[tokio::test]
async fn a_model_that_says_nothing_is_asked_once_more_without_tools() {
    let home = home();
    let mut host = Host::start(&home, config()).await;
    host.ask(1, "hm?").await;
    let think = host.think().await;
    assert!(!think.tools.is_empty());
    host.says(&think, " ").await;
    let think = host.think().await;
    assert!(think.tools.is_empty());
    host.says(&think, "Hm.").await;
    assert_eq!(host.said(1).await, "Hm.");
    host.end().await;
}

#[tokio::test]
async fn a_nick_that_the_model_puts_before_its_answer_is_taken_away() {
    let home = home();
    let mut host = Host::start(&home, config()).await;
    let private = |id| Incoming { conversation: "ann".into(), private: true, ..message(id, "hi") };
    for (id, incoming, answer, expected) in [
        (1, message(1, "hi"), "worker: Hello.", "Hello."),
        (2, message(2, "hi"), "WORKER:Hello.", "Hello."),
        // To whom it answers may be said where there are others.
        (3, message(3, "hi"), "ann: Hello.", "ann: Hello."),
        (4, private(4), "ann: Hello.", "Hello."),
        (5, private(5), "workers: they work.", "workers: they work."),
    ] {
        host.send(Event::Message(incoming)).await;
        let think = host.think().await;
        host.says(&think, answer).await;
        assert_eq!(host.said(id).await, expected);
    }
    host.end().await;
}

#[tokio::test]
async fn in_private_the_question_stands_alone() {
    let home = home();
    let mut host = Host::start(&home, config()).await;
    for (id, text) in [(1, "hello"), (2, "again")] {
        let private = Incoming { conversation: "ann".into(), private: true, ..message(id, text) };
        host.send(Event::Message(private)).await;
        let think = host.think().await;
        assert_eq!(think.last().content, text);
        assert!(think.messages[1..].iter().all(|m| !m.content.contains("ann")));
        host.says(&think, "Hi.").await;
        host.said(id).await;
    }
    host.end().await;
}

#[tokio::test]
async fn when_the_model_fails_nothing_is_said() {
    let home = home();
    let mut host = Host::start(&home, config()).await;
    host.ask(1, "hello?").await;
    let think = host.think().await;
    host.send(Event::Failed { ask: think.ask, reason: "it is down".into() }).await;
    host.done(1).await;
    // It is not in the history, and asked again it is answered.
    let think = host.talk(1, "hello?", "Hello.").await;
    assert_eq!(think.messages.len(), 2);
    host.end().await;
}

#[tokio::test]
async fn a_long_answer_goes_to_a_file() {
    let home = home();
    let mut host = Host::start(&home, config()).await;
    let answer: Vec<String> = (0..100).map(|n| format!("line {n}")).collect();
    host.ask(7, "a poem").await;
    let think = host.think().await;
    host.says(&think, &answer.join("\n")).await;
    let said = host.said(7).await;
    assert_eq!(said.lines().count(), 5, "{said}");
    assert!(said.starts_with("line 0\nline 1\n"));
    let file = said.rsplit(' ').next().unwrap();
    assert!(file.ends_with("-7.md"), "{said}");
    assert_eq!(fs::read_to_string(file).unwrap(), answer.join("\n") + "\n");
    // One long line.
    host.ask(8, "prose").await;
    let think = host.think().await;
    host.says(&think, &"word ".repeat(1000)).await;
    let said = host.said(8).await;
    assert!(said.len() < 1700 && said.contains("-8.md"), "{said}");
    host.end().await;
}

#[tokio::test]
async fn a_slow_place_does_not_keep_others_waiting() {
    let home = home();
    let mut host = Host::start(&home, config()).await;
    host.ask(1, "slow").await;
    let slow = host.think().await;
    host.ask(2, "after it").await;
    let other = Incoming { conversation: "#other".into(), ..message(3, "quick") };
    host.send(Event::Message(other)).await;
    let quick = host.think().await;
    assert_eq!(quick.message, 3);
    assert!(quick.system().contains("#other"));
    host.says(&quick, "done").await;
    assert_eq!(host.said(3).await, "done");
    // In private: another conversation, although it has the same name.
    let private = Incoming { conversation: "ann".into(), private: true, ..message(4, "psst") };
    host.send(Event::Message(private)).await;
    let secret = host.think().await;
    assert!(secret.system().contains("in private with ann"));
    host.says(&slow, "at last").await;
    assert_eq!(host.said(1).await, "at last");
    let next = host.think().await;
    assert_eq!(next.message, 2);
    assert!(next.text().contains("at last") && !next.text().contains("psst"));
    host.says(&secret, "yes").await;
    assert_eq!(host.said(4).await, "yes");
    host.says(&next, "b").await;
    assert_eq!(host.said(2).await, "b");
    host.end().await;
}

#[tokio::test]
async fn a_new_configuration_counts_in_the_middle_of_a_message() {
    let home = home();
    let mut host = Host::start(&home, config()).await;
    host.talk(1, "first", "one").await;
    host.ask(2, "second").await;
    let think = host.think().await;
    let changed = Config { persona: "You are changed.".into(), nick: "worker2".into(), ..config() };
    host.send(Event::Configure(changed)).await;
    host.runs(&think, "echo still here").await;
    let think = host.think().await;
    assert!(think.system().starts_with("You are changed.\n\nYou are worker2 "));
    let text = think.text();
    assert!(text.contains("ann: first") && text.contains("still here"), "{text}");
    // Without tools the model still gets what they told.
    host.send(Event::Configure(Config { tools: false, ..config() })).await;
    host.calls(&think, "recall", json!({"query": "first"})).await;
    let think = host.think().await;
    assert!(think.tools.is_empty() && think.text().contains("still here"));
    host.says(&think, "two").await;
    assert_eq!(host.said(2).await, "two");
    host.end().await;
}

#[tokio::test]
async fn fifty_messages_at_once() {
    let home = home();
    let mut host = Host::start(&home, config()).await;
    for id in 1..=50 {
        host.ask(id, &format!("message {id}")).await;
    }
    let mut answered = 0;
    let mut done = Vec::new();
    let mut busy = Vec::new();
    while done.len() < 50 {
        match host.next().await {
            Action::Think { ask, message, .. } => {
                host.thought(ask, Step::Say(format!("answer {message}"))).await;
            }
            Action::Say { message, text } if text == format!("answer {message}") => answered += 1,
            Action::Say { text, .. } => busy.push(text),
            Action::Done { message } => done.push(message),
            other => panic!("{other:?}"),
        }
    }
    done.sort_unstable();
    assert_eq!(done, (1..=50).collect::<Vec<u64>>());
    assert!(answered >= 17, "one is dealt with and 16 wait: {answered}");
    // Who asks is told, but not thirty times.
    assert!(busy.len() <= 50 - answered && busy.iter().all(|text| text.contains("I am busy")));
    host.talk(51, "again?", "Yes.").await;
    host.end().await;
}

#[tokio::test]
async fn a_message_of_a_hundred_kilobytes() {
    let home = home();
    let mut host = Host::start(&home, config()).await;
    for (id, text) in [(1, "x".repeat(100_000)), (2, "\u{1}\u{7f}\"".repeat(15_000))] {
        host.ask(id, &text).await;
        let think = host.think().await;
        assert!(think.text().len() < 8192 * 4, "{}", think.text().len());
        assert!(think.last().content.contains("bytes left out"));
        assert_eq!(think.last().role, Role::User);
        host.says(&think, "Long.").await;
        assert_eq!(host.said(id).await, "Long.");
    }
    host.end().await;
    // A large context does not make a line that is too long.
    let mut host = Host::start(&home, Config { context_tokens: 1_000_000, ..config() }).await;
    host.talk(3, &"\u{1}".repeat(40_000), "Long.").await;
    host.end().await;
}

#[tokio::test]
async fn what_is_not_understood_is_left_out() {
    let home = home();
    let mut host = Host::bare(paths(&home));
    for line in ["", "x", "{}", r#"{"event":"reboot"}"#, "\u{0}"] {
        host.send_line(line).await;
    }
    host.send_line(&"x".repeat(MAX_LINE * 2)).await;
    host.ask(1, "before the configuration").await;
    host.send(Event::Configure(config())).await;
    assert_eq!(host.next().await, Action::Ready { notes: Vec::new() });
    // Answers to questions that were not asked.
    host.thought(77, Step::Say("x".into())).await;
    host.send(Event::Stop { message: 77 }).await;
    host.done(77).await;
    host.ask(2, "hello").await;
    let think = host.think().await;
    host.send(Event::Approval { ask: think.ask + 1, granted: true, reason: "".into() }).await;
    host.says(&think, "hello").await;
    assert_eq!(host.said(2).await, "hello");
    host.end().await;
}

#[tokio::test]
async fn stopping_a_question_to_the_model_and_one_that_waits() {
    let home = home();
    let mut host = Host::start(&home, config()).await;
    host.ask(1, "one").await;
    let one = host.think().await;
    host.ask(2, "two").await;
    host.ask(3, "three").await;
    host.send(Event::Stop { message: 2 }).await;
    host.done(2).await;
    host.send(Event::Stop { message: 1 }).await;
    host.done(1).await;
    let three = host.think().await;
    assert_eq!(three.message, 3);
    // Too late.
    host.says(&one, "1").await;
    host.says(&three, "3").await;
    assert_eq!(host.said(3).await, "3");
    host.end().await;
}
