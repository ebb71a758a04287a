use fireclaw_chat::Sender;
use fireclaw_host::ProcessStamp;
use fireclaw_protocol::agent::Said;

use super::*;
use crate::Actor;
use crate::question::Asked;

fn worker() -> AgentRow {
    AgentRow {
        name: "worker".into(),
        template: "worker".into(),
        nick: "worker".into(),
        model: None,
        persona: None,
        wanted: Wanted::Running,
        machine: None,
        process: None,
        created: now(),
        ends: None,
    }
}

fn state() -> (tempfile::TempDir, State) {
    let home = tempfile::tempdir().unwrap();
    let mut state = State::open(&home.path().join("state.db")).unwrap();
    state.add(&worker(), &["#agents".into()]).unwrap();
    (home, state)
}

fn message(text: &str) -> Pending {
    Pending {
        id: 0,
        conversation: "#agents".into(),
        private: false,
        sender: "ann".into(),
        from_agent: false,
        hops: 0,
        text: text.into(),
        recent: vec![Said { from: "bob".into(), text: "hi".into() }],
    }
}

fn ask(message: u64, tool: &str, what: &str) -> Asked {
    Asked {
        message,
        tool: tool.into(),
        what: what.into(),
        asker: "ann".into(),
        conversation: "ann".into(),
        private: true,
    }
}

#[test]
fn a_later_state_has_other_numbers() {
    let before = u64::try_from(now() - 60).unwrap();
    let (_home, state) = state();
    let id = state.keep("worker", &message("hello")).unwrap();
    assert!(id > before * 1000, "{id}");
    assert!(id < 1 << 53, "a number of JSON");
}

#[test]
fn what_was_written_is_read_after_a_restart() {
    let (home, state) = state();
    state.set_machine("worker", Some("fireclaw-1")).unwrap();
    let process = ProcessStamp { pid: 7, start_time: 8 };
    state.set_process("worker", process).unwrap();
    state.join("worker", "#more").unwrap();
    state.join("worker", "#more").unwrap();
    state.leave("worker", "#agents").unwrap();
    let id = state.keep("worker", &message("one")).unwrap();
    drop(state);

    let state = State::open(&home.path().join("state.db")).unwrap();
    let row = state.agent("worker").unwrap().unwrap();
    assert_eq!((row.machine.as_deref(), row.process), (Some("fireclaw-1"), Some(process)));
    assert_eq!(state.channels("worker").unwrap(), ["#more"]);
    let pending = state.pending("worker").unwrap();
    assert_eq!(pending, [Pending { id, ..message("one") }]);
    // Another VM has no VMM yet.
    state.set_machine("worker", Some("fireclaw-2")).unwrap();
    assert_eq!(state.agent("worker").unwrap().unwrap().process, None);
}

#[test]
fn names_and_nicks_are_given_once() {
    let (_home, mut state) = state();
    let same_nick = AgentRow { name: "other".into(), ..worker() };
    for taken in [worker(), same_nick] {
        assert!(matches!(state.add(&taken, &[]), Err(Error::NameTaken { .. })));
    }
    state.remove("worker").unwrap();
    assert!(state.channels("worker").unwrap().is_empty());
    state.add(&worker(), &[]).unwrap();
}

#[test]
fn a_message_is_numbered_once_and_for_all() {
    let (_home, mut state) = state();
    let one = state.keep("worker", &message("one")).unwrap();
    state.done("worker", one).unwrap();
    let two = state.keep("worker", &message("two")).unwrap();
    assert!(two > one, "a number is not used again");
    state.done("another", two).unwrap();
    assert_eq!(state.pending("worker").unwrap().len(), 1, "only its owner may end it");
}

#[test]
fn a_question_is_answered_once_and_asked_once() {
    let (_home, mut state) = state();
    let message = state.keep("worker", &message("rm")).unwrap();
    let asked = state.ask("worker", &ask(message, "run_command", "rm -rf /")).unwrap();
    // After a restart the agent asks the same again.
    assert_eq!(state.ask("worker", &ask(message, "run_command", "rm -rf /")).unwrap(), asked);
    assert_eq!(state.open_questions().unwrap().len(), 1);
    let answered = state.answer(asked.id, true, "ann").unwrap().unwrap();
    assert_eq!(answered.verdict, Some((true, "ann".into())));
    assert!(state.answer(asked.id, false, "bob").unwrap().is_none());
    assert!(state.answer(999, true, "ann").unwrap().is_none());
    let again = state.ask("worker", &ask(message, "run_command", "rm -rf /")).unwrap();
    assert_eq!(again.verdict, Some((true, "ann".into())));
    // Leave is for one time: who does it again asks again.
    let next = state.ask("worker", &ask(message, "run_command", "rm -rf /")).unwrap();
    assert!(next.id > asked.id && next.verdict.is_none(), "{next:?}");
    // A refusal stays for as long as the message does.
    state.answer(next.id, false, "ann").unwrap();
    for _ in 0..2 {
        let refused = state.ask("worker", &ask(message, "run_command", "rm -rf /")).unwrap();
        assert_eq!((refused.id, refused.is_granted()), (next.id, false));
    }
    let open = state.ask("worker", &ask(message, "run_command", "ls")).unwrap();
    assert_eq!(state.done("worker", message).unwrap(), [open.id], "the one that was open");
    assert!(state.open_questions().unwrap().is_empty());
}

#[test]
fn what_people_allow_goes_with_the_agent() {
    let (_home, state) = state();
    for target in ["b.example:443", "a.example", "a.example"] {
        state.allow("worker", target).unwrap();
    }
    assert_eq!(state.allowed("worker").unwrap(), ["a.example", "b.example:443"]);
    state.remove("worker").unwrap();
    assert_eq!(state.allowed("worker").unwrap(), [""; 0]);
}

#[test]
fn a_question_about_the_network_can_be_asked_again() {
    let (_home, mut state) = state();
    let first = state.ask("worker", &ask(0, "reach", "a.example")).unwrap();
    assert_eq!(state.ask("worker", &ask(0, "reach", "a.example")).unwrap().id, first.id);
    state.answer(first.id, false, "ann").unwrap();
    state.forget(first.id).unwrap();
    let second = state.ask("worker", &ask(0, "reach", "a.example")).unwrap();
    assert!(second.id > first.id && second.verdict.is_none());
    let line = format!("#{} for ann, in private: worker wants to reach: a.example", second.id);
    assert_eq!(second.lines(), Some(vec![line]));
}

/// What opening says of a file with this content, which must be left as it was.
fn refused(path: &Path, content: &[u8]) -> String {
    std::fs::write(path, content).unwrap();
    let error = State::open(path).unwrap_err();
    assert!(matches!(error, Error::StateFile { damaged: true, .. }), "{error}");
    assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    assert!(matches!(State::check(path), Err(Error::StateFile { damaged: true, .. })));
    assert!(std::fs::read(path).unwrap() == content, "the file was changed");
    error.to_string()
}

#[test]
fn a_damaged_state_is_refused_and_kept() {
    let (home, mut state) = state();
    for n in 0..200 {
        state.keep("worker", &message(&format!("{n} {}", "x".repeat(500)))).unwrap();
    }
    state.ask("worker", &ask(1, "run_command", "true")).unwrap();
    drop(state);
    let path = home.path().join("state.db");
    State::check(&path).unwrap().unwrap();
    let good = std::fs::read(&path).unwrap();
    assert!(good.len() > 64 << 10);
    // Its beginning, its middle, its end.
    let noise: Vec<u8> =
        (0..4096u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    assert!(refused(&path, &[&noise, &good[4096..]].concat()).contains("not a database"));
    refused(&path, &[&good[..8192], &noise, &noise, &good[16384..]].concat());
    refused(&path, &good[..good.len() / 2]);
    refused(&path, b"hello");
    std::fs::write(&path, &good).unwrap();
    assert_eq!(State::open(&path).unwrap().pending("worker").unwrap().len(), 200);
}

#[test]
fn an_empty_state_is_new_unless_its_last_changes_are_there() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("state.db");
    assert_eq!(State::check(&path).unwrap(), None);
    assert!(State::open(&path).unwrap().is_new());
    assert!(!State::open(&path).unwrap().is_new());
    std::fs::write(&path, "").unwrap();
    assert!(State::open(&path).unwrap().is_new());
    let log = home.path().join("state.db-wal");
    std::fs::write(&log, "changes").unwrap();
    refused(&path, b"");
    assert_eq!(std::fs::read(&log).unwrap(), b"changes");
}

#[test]
fn what_the_system_refuses_is_not_called_damage() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("state.db");
    std::fs::create_dir(&path).unwrap();
    let error = State::open(&path).unwrap_err();
    assert!(matches!(error, Error::StateFile { damaged: false, .. }), "{error}");
    assert!(error.to_string().contains("state.db"), "{error}");
}

#[test]
fn the_audit_log_keeps_its_order() {
    let (_home, state) = state();
    let ann = Actor::person(&Sender {
        nick: "ann".into(),
        user: "~ann".into(),
        host: "host.example".into(),
        account: Some("Ann".into()),
    });
    for n in 0..5 {
        state.audit(&ann, &format!("act {n}")).unwrap();
    }
    let acts = state.audited(2).unwrap();
    let last: Vec<_> = acts.iter().map(|act| &act.act[..]).collect();
    assert_eq!(last, ["act 3", "act 4"]);
    let Act { who, account, host, .. } = &acts[1];
    assert_eq!((&who[..], account.as_deref()), ("ann", Some("Ann")));
    assert_eq!(host.as_deref(), Some("~ann@host.example"));
    state.audit(&Actor::Local { uid: 7 }, "by hand").unwrap();
    let act = &state.audited(1).unwrap()[0];
    assert_eq!((&act.who[..], &act.account, &act.host), ("user 7 of this host", &None, &None));
}

#[test]
fn a_word_that_is_not_known_ends_no_agent() {
    let (_home, state) = state();
    state.db.pragma_update(None, "ignore_check_constraints", true).unwrap();
    state.db.execute("UPDATE agents SET wanted = 'asleep'", []).unwrap();
    assert!(matches!(state.agents(), Err(Error::State(_))));
}

#[test]
fn who_is_called_something_else_gets_the_answers() {
    let (_home, mut state) = state();
    let private = Pending { conversation: "ann".into(), private: true, ..message("one") };
    let first = state.keep("worker", &private).unwrap();
    let public = state.keep("worker", &message("two")).unwrap();
    let other = state.keep("worker", &Pending { sender: "bob".into(), ..message("3") }).unwrap();
    let question = state.ask("worker", &ask(first, "run_command", "ls")).unwrap();
    state.rename_sender("worker", "ann", "ann_").unwrap();
    let conversations: Vec<_> = state
        .pending("worker")
        .unwrap()
        .into_iter()
        .map(|message| (message.id, message.sender, message.conversation))
        .collect();
    let expected = [
        (first, "ann_".to_owned(), "ann_".to_owned()),
        (public, "ann_".to_owned(), "#agents".to_owned()),
        (other, "bob".to_owned(), "#agents".to_owned()),
    ];
    assert_eq!(conversations, expected);
    let asked = state.open_question(question.id).unwrap().unwrap().ask;
    assert_eq!((&asked.asker[..], &asked.conversation[..]), ("ann_", "ann_"));
    let mut renamed = private.clone();
    renamed.rename_sender("ann", "ann_");
    assert_eq!((&renamed.sender[..], &renamed.conversation[..]), ("ann_", "ann_"));
}

#[test]
fn changes_are_written_back_beside_the_work_and_time_is_counted() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("state.db");
    let state = State::open(&path).unwrap();
    let before = time();
    let mut sizes = Vec::new();
    for _ in 0..4 {
        for _ in 0..600 {
            state.audit(&Actor::Schedule, &"x".repeat(4000)).unwrap();
        }
        sizes.push(length(&log_of(&path)));
        let path = path.clone();
        std::thread::spawn(move || write_back(&path)).join().unwrap().unwrap();
    }
    assert!(sizes[0] > MAX_LOG, "{sizes:?}");
    assert!(sizes[3] < sizes[0] * 3 / 2, "{sizes:?}");
    assert!(length(&path) > MAX_LOG);
    assert!(time() > before);
}
