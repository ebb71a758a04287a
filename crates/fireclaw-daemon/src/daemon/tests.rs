//! An agent's life in the stage's time: what takes minutes takes milliseconds.

#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used)]

mod stage;

use std::time::Duration;

use fireclaw_chat::Event as Heard;
use fireclaw_protocol::agent::{Action, Event as Told};
use tokio::task::LocalSet;
use tokio::time::Instant;

use crate::sandboxes::Health;
use crate::{Actor, Condition, Event, Wanted};
use stage::{LOBBY, Stage};

const ROOT: Actor = Actor::Local { uid: 0 };

/// The test's one thread, whose clock goes on only while nothing is to be done.
fn on_stage(play: impl AsyncFnOnce(Stage)) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().start_paused(true).build().unwrap();
    LocalSet::new().block_on(&runtime, async { play(Stage::set()).await });
}

fn lost(event: &Event) -> Option<(u32, Option<Duration>)> {
    match event {
        Event::Lost { losses, retry_in, .. } => Some((*losses, *retry_in)),
        _ => None,
    }
}

#[test]
fn a_lost_vm_is_replaced_ever_later_and_given_up_after_five_in_a_row() {
    on_stage(async |mut stage| {
        stage.invoke("worker").await;
        for n in 1..=4 {
            let vm = stage.sandboxes.next().await;
            vm.becomes_ready();
            stage.until("worker", Condition::Ready).await;
            vm.dies("QEMU was killed");
            let wait = Duration::from_secs(1 << (n - 1));
            assert_eq!(stage.event(lost).await, (n, Some(wait)));
            let since = Instant::now();
            assert_eq!(stage.condition("worker"), Condition::Restarting);
            stage.until("worker", Condition::Starting).await;
            let waited = since.elapsed();
            assert!(waited >= wait - Duration::from_millis(2) && waited < wait * 2, "{waited:?}");
            // Nothing of the one before is left.
            assert!(stage.sandboxes.cleared.borrow().contains(&vm.id));
        }
        let fifth = stage.sandboxes.next().await;
        fifth.dies("QEMU was killed");
        assert_eq!(stage.event(lost).await, (5, None));
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert_eq!(stage.condition("worker"), Condition::Failed);
        // People can have it again, and it has five tries again.
        stage.daemon.pause(&ROOT, "worker", false).await.unwrap();
        let vm = stage.sandboxes.next().await;
        vm.dies("QEMU was killed");
        assert_eq!(stage.event(lost).await, (1, Some(Duration::from_secs(1))));
    });
}

#[test]
fn a_vm_that_lived_long_was_no_loss_in_a_row() {
    on_stage(async |mut stage| {
        let vm = stage.ready("worker").await;
        vm.dies("first");
        assert_eq!(stage.event(lost).await.0, 1);
        let vm = stage.sandboxes.next().await;
        vm.becomes_ready();
        tokio::time::sleep(Duration::from_secs(601)).await;
        vm.dies("second");
        assert_eq!(stage.event(lost).await.0, 1);
    });
}

#[test]
fn a_vm_that_cannot_be_started_is_tried_again() {
    on_stage(async |mut stage| {
        *stage.sandboxes.refuses.borrow_mut() = Some("no room".into());
        stage.invoke("worker").await;
        assert_eq!(stage.event(lost).await.0, 1);
        *stage.sandboxes.refuses.borrow_mut() = None;
        stage.sandboxes.next().await.becomes_ready();
        stage.until("worker", Condition::Ready).await;
    });
}

#[test]
fn a_message_is_answered_and_done_with() {
    on_stage(async |stage| {
        let vm = stage.ready("worker").await;
        stage.chat.hears_in_lobby("worker", "ann", "hello everybody");
        stage.chat.hears_in_lobby("worker", "ann", "worker: uptime?");
        let message = vm.handed().await.unwrap();
        assert_eq!((&*message.from, &*message.text), ("ann", "uptime?"));
        assert_eq!(message.recent.last().unwrap().text, "hello everybody");
        assert_eq!(stage.condition("worker"), Condition::Busy);
        vm.acts(Action::Say { message: message.id, text: "3 min".into() });
        assert_eq!(stage.chat.said("worker").await, (LOBBY.into(), "3 min".into()));
        vm.acts(Action::Done { message: message.id });
        stage.until("worker", Condition::Ready).await;
        // It is not handed again after the VM was lost.
        vm.dies("QEMU was killed");
        let vm = stage.sandboxes.next().await;
        vm.becomes_ready();
        assert!(vm.handed().await.is_none());
    });
}

#[test]
fn a_message_that_its_program_dies_of_is_given_up() {
    on_stage(async |stage| {
        let vm = stage.ready("worker").await;
        stage.chat.hears_in_private("worker", "ann", "poison");
        for _ in 0..2 {
            assert_eq!(vm.handed().await.unwrap().text, "poison");
            vm.program_ends().await;
            vm.becomes_ready();
        }
        let (conversation, said) = stage.chat.said("worker").await;
        assert!(conversation == "ann" && said.contains("several times"), "{said}");
        assert!(vm.handed().await.is_none());
        stage.until("worker", Condition::Ready).await;
    });
}

#[test]
fn a_program_that_ends_at_once_too_often_costs_the_vm() {
    on_stage(async |mut stage| {
        let vm = stage.ready("worker").await;
        for _ in 0..4 {
            vm.program_ends().await;
        }
        let why = stage
            .event(|event| match event {
                Event::Lost { why, .. } => Some(why.clone()),
                _ => None,
            })
            .await;
        assert!(why.contains("its program ended with status 1"), "{why}");
        // What it had on its disks is kept first.
        assert!(vm.saved.get());
    });
}

#[test]
fn a_vm_that_no_longer_answers_or_writes_is_replaced() {
    for health in [Health::Silent, Health::ReadOnly] {
        on_stage(async |mut stage| {
            let vm = stage.ready("worker").await;
            tokio::time::sleep(Duration::from_secs(120)).await;
            assert_eq!(stage.condition("worker"), Condition::Ready);
            vm.health.set(health);
            let since = Instant::now();
            assert_eq!(stage.event(lost).await.0, 1);
            assert!(since.elapsed() < Duration::from_secs(40), "{:?}", since.elapsed());
        });
    }
}

#[test]
fn a_paused_agent_answers_what_it_was_asked_meanwhile() {
    on_stage(async |stage| {
        let vm = stage.ready("worker").await;
        stage.daemon.pause(&ROOT, "worker", true).await.unwrap();
        stage.until("worker", Condition::Paused).await;
        assert!(vm.paused.get());
        stage.chat.hears_in_private("worker", "ann", "hi");
        assert!(stage.chat.said("worker").await.1.contains("paused"));
        // Silence is no illness of a VM that was stopped.
        vm.health.set(Health::Silent);
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert_eq!(stage.condition("worker"), Condition::Paused);
        vm.health.set(Health::Well);
        stage.daemon.pause(&ROOT, "worker", false).await.unwrap();
        assert_eq!(vm.handed().await.unwrap().text, "hi");
        assert!(!vm.paused.get());
    });
}

#[test]
fn whoever_says_stop_is_no_longer_answered() {
    on_stage(async |stage| {
        let vm = stage.ready("worker").await;
        stage.chat.hears_in_lobby("worker", "ann", "worker: count to a million");
        let message = vm.handed().await.unwrap();
        stage.chat.hears_in_lobby("worker", "bob", "worker: stop");
        let (_, said) = stage.chat.said("worker").await;
        assert!(said.starts_with("bob: nothing of yours"), "{said}");
        stage.chat.hears_in_lobby("worker", "ann", "worker: stop");
        assert_eq!(stage.chat.said("worker").await.1, "ann: stopped");
        assert_eq!(vm.told().await, Some(Told::Stop { message: message.id }));
    });
}

#[test]
fn what_was_asked_for_by_somebody_who_left_is_not_answered() {
    on_stage(async |stage| {
        stage.invoke("worker").await;
        let vm = stage.sandboxes.next().await;
        stage.chat.hears_in_lobby("worker", "ann", "worker: hi");
        stage.chat.hears_in_lobby("worker", "bob", "worker: ho");
        stage.chat.hears("worker", Heard::Quit { nick: "ann".into() });
        tokio::time::sleep(Duration::from_millis(10)).await;
        vm.becomes_ready();
        assert_eq!(vm.handed().await.unwrap().from, "bob");
        assert!(vm.handed().await.is_none());
    });
}

#[test]
fn one_message_causes_only_so_much() {
    on_stage(async |stage| {
        let vm = stage.ready("worker").await;
        stage.chat.hears_in_private("worker", "ann", "flood");
        let message = vm.handed().await.unwrap().id;
        for n in 0..50 {
            vm.acts(Action::Say { message, text: format!("line {n}") });
        }
        vm.acts(Action::Done { message });
        stage.until("worker", Condition::Ready).await;
        assert_eq!(stage.chat.unread("worker").len(), 16);
    });
}

#[test]
fn two_agents_that_answer_each_other_are_stopped_and_told_of_once() {
    on_stage(async |mut stage| {
        stage.writes_template("model = \"m\"\nnick = \"a\"\n");
        let (a, b) = (stage.ready("a").await, stage.ready("b").await);
        stage.chat.hears_in_lobby("a", "ann", "a: ask b");
        let mut heard = 0;
        loop {
            let (from, to, vm) = match heard % 2 {
                0 => ("a", "b", &a),
                _ => ("b", "a", &b),
            };
            let Some(message) = vm.handed().await else { break };
            heard += 1;
            assert!(heard < 20, "they go on for ever");
            vm.acts(Action::Say { message: message.id, text: format!("{to}: and?") });
            vm.acts(Action::Done { message: message.id });
            assert_eq!(stage.chat.said(from).await.1, format!("{to}: and?"));
            stage.chat.hears_in_lobby(to, from, &format!("{to}: and?"));
        }
        // A person, then four times through an agent.
        assert_eq!(heard, 5);
        stage.event(|event| matches!(event, Event::ReplyLoop { .. }).then_some(())).await;
        // The pause is over: they may talk again.
        tokio::time::sleep(Duration::from_secs(61)).await;
        stage.chat.hears_in_lobby("b", "ann", "b: hi");
        assert_eq!(b.handed().await.unwrap().text, "hi");
    });
}

#[test]
fn the_model_is_asked_and_its_answer_handed_on() {
    on_stage(async |stage| {
        let vm = stage.ready("worker").await;
        stage.chat.hears_in_private("worker", "ann", "hi");
        let message = vm.handed().await.unwrap().id;
        let messages = vec![fireclaw_protocol::chat::Message::user("echo this")];
        vm.acts(Action::Think { ask: 7, message, messages, tools: Vec::new() });
        let Some(Told::Thought { ask: 7, step }) = vm.told().await else {
            panic!("the model did not answer");
        };
        assert_eq!(step, fireclaw_protocol::agent::Step::Say("echo this".into()));
        // A number that it uses for two at once is refused.
        let messages = vec![fireclaw_protocol::chat::Message::user("again")];
        for _ in 0..2 {
            let (messages, tools) = (messages.clone(), Vec::new());
            vm.acts(Action::Think { ask: 8, message, messages, tools });
        }
        assert!(matches!(vm.told().await, Some(Told::Failed { ask: 8, .. })));
    });
}

#[test]
fn an_agent_that_leaves_goes_from_the_chat_first_and_keeps_its_disks() {
    on_stage(async |stage| {
        let vm = stage.ready("worker").await;
        stage.daemon.destroy(&ROOT, "worker", "enough").await.unwrap();
        assert_eq!(stage.chat.has_quit("worker").as_deref(), Some("enough"));
        assert!(vm.saved.get() && stage.sandboxes.cleared.borrow().contains(&vm.id));
        assert!(stage.daemon.list().unwrap().is_empty());
        // Its name is free.
        stage.ready("worker").await;
    });
}

#[test]
fn the_next_daemon_takes_the_vm_over_with_what_was_not_answered() {
    on_stage(async |stage| {
        let before = stage.ready("worker").await;
        stage.chat.hears_in_private("worker", "ann", "remember me");
        assert!(before.handed().await.is_some());
        let stage = stage.next().await;
        assert!(!before.saved.get(), "it runs on");
        stage.daemon.reconcile().await.unwrap();
        let vm = stage.sandboxes.next().await;
        assert_eq!(*stage.sandboxes.adopted.borrow(), std::slice::from_ref(&before.id));
        assert!(stage.sandboxes.cleared.borrow().is_empty());
        vm.becomes_ready();
        assert_eq!(vm.handed().await.unwrap().text, "remember me");
    });
}

#[test]
fn an_agent_that_was_to_be_paused_is_paused_again_by_the_next_daemon() {
    on_stage(async |stage| {
        stage.ready("worker").await;
        stage.daemon.pause(&ROOT, "worker", true).await.unwrap();
        stage.until("worker", Condition::Paused).await;
        let stage = stage.next().await;
        assert_eq!(stage.daemon.row("worker").unwrap().wanted, Wanted::Paused);
        stage.daemon.reconcile().await.unwrap();
        let vm = stage.sandboxes.next().await;
        vm.becomes_ready();
        stage.until("worker", Condition::Paused).await;
        assert!(vm.paused.get());
    });
}

#[test]
fn an_agent_whose_template_has_mistakes_waits_with_its_vm() {
    on_stage(async |stage| {
        let before = stage.ready("worker").await;
        stage.writes_template("model = 3\n");
        let mut stage = stage.next().await;
        stage.daemon.reconcile().await.unwrap();
        stage.event(|event| matches!(event, Event::FailedToRestore { .. }).then_some(())).await;
        assert_eq!(stage.condition("worker"), Condition::Failed);
        assert!(stage.sandboxes.cleared.borrow().is_empty());
        stage.writes_template("model = \"m\"\n");
        stage.daemon.pause(&ROOT, "worker", false).await.unwrap();
        stage.sandboxes.next().await.becomes_ready();
        stage.until("worker", Condition::Ready).await;
        assert_eq!(*stage.sandboxes.adopted.borrow(), [before.id]);
    });
}
