use std::time::{Duration, Instant, SystemTime};

use fireclaw_host::Secret;
use proptest::prelude::*;

use super::*;
use crate::Error;
use crate::client::config::Sasl;
use crate::client::config::Timing;
use crate::client::event::{ChatKind, Rank};

/// A session, the time, and what it sent and told.
struct Scene {
    session: Session,
    now: Instant,
    sent: Vec<String>,
    events: Vec<Event>,
    ended: Option<String>,
}

impl Scene {
    fn new(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::new("127.0.0.1", 6667, "worker");
        config.channels = vec!["#agents".into()];
        change(&mut config);
        config.check().unwrap();
        let now = Instant::now();
        let session = Session::new(Arc::new(config), now);
        let mut scene = Self { session, now, sent: vec![], events: vec![], ended: None };
        let actions = scene.session.connected(now);
        scene.note(actions);
        scene
    }

    fn note(&mut self, actions: Actions) {
        for action in actions {
            match action {
                Action::Send(line) => self.sent.push(line.as_str().to_owned()),
                Action::Emit(event) => self.events.push(event),
                Action::Close(reason) => self.ended = Some(format!("close: {reason}")),
                Action::Hold(reason) => self.ended = Some(format!("hold: {reason}")),
                Action::Fail(reason) => self.ended = Some(format!("fail: {reason}")),
            }
        }
    }

    /// The server says something; what was sent for it.
    fn on(&mut self, line: &str) -> Vec<String> {
        self.sent.clear();
        let message = Message::parse(line.as_bytes()).unwrap();
        self.session.heard(self.now);
        let actions = self.session.on_message(&message, self.now, SystemTime::UNIX_EPOCH);
        self.note(actions);
        self.sent.clone()
    }

    fn tick(&mut self, wait: Duration) -> Vec<String> {
        self.now += wait;
        self.sent.clear();
        let actions = self.session.on_tick(self.now);
        self.note(actions);
        self.sent.clone()
    }

    fn welcome(&mut self, isupport: &str) -> Vec<String> {
        let nick = self.session.nick().to_owned();
        self.on(&format!(":s 001 {nick} :Welcome"));
        self.on(&format!(":s 004 {nick} s ngircd abB b"));
        self.on(&format!(":s 005 {nick} {isupport} :are supported"));
        self.on(&format!(":s 376 {nick} :End of MOTD"))
    }

    fn event(&mut self, line: &str) -> Option<Event> {
        self.events.clear();
        self.on(line);
        assert!(self.events.len() < 2, "{:?}", self.events);
        self.events.pop()
    }
}

/// In `#agents` on a plain server, with ada as its operator.
fn in_channel() -> Scene {
    let mut scene = Scene::new(|_| {});
    scene.welcome("CASEMAPPING=ascii PREFIX=(ov)@+ CHANTYPES=# STATUSMSG=@+");
    scene.on(":worker!~fireclaw@127.0.0.1 JOIN :#agents");
    scene.on(":s 353 worker = #agents :worker @ada +bob");
    scene.on(":s 366 worker #agents :End");
    scene
}

fn said(scene: &mut Scene, line: &str) -> Option<crate::client::event::Chat> {
    match scene.event(line) {
        Some(Event::Message(chat)) => Some(chat),
        None => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn registering_with_a_server_without_anything() {
    let mut scene = Scene::new(|c| c.password = Some(Secret::new("pass word")));
    assert_eq!(
        scene.sent,
        ["CAP LS 302", "PASS :pass word", "NICK worker", "USER fireclaw 0 * worker",]
    );
    assert!(scene.on(":s 421 worker CAP :Unknown command").is_empty());
    assert_eq!(scene.welcome("NICKLEN=9"), ["MODE worker +B", "JOIN #agents"]);
    assert_eq!(scene.events, [Event::Connected { nick: "worker".into() }]);
}

#[test]
fn capabilities_in_several_lines_and_those_that_come_later() {
    let mut scene = Scene::new(|c| c.history = 20);
    assert!(scene.on(":s CAP * LS * :multi-prefix echo-message sts=port=1").is_empty());
    assert_eq!(
        scene.on(":s CAP * LS :batch draft/chathistory server-time"),
        ["CAP REQ :multi-prefix batch draft/chathistory server-time"],
    );
    assert_eq!(
        scene.on(":s CAP * ACK :multi-prefix batch draft/chathistory server-time "),
        ["CAP END"],
    );
    scene.welcome("CHANTYPES=#");
    assert_eq!(scene.on(":worker!u@h JOIN #agents"), ["CHATHISTORY LATEST #agents * 20"],);
    assert_eq!(scene.on(":s CAP worker NEW :message-tags sasl"), ["CAP REQ message-tags"]);
    assert!(scene.session.typing("#agents", Typing::Active).is_none());
    scene.on(":s CAP worker ACK message-tags");
    let line = scene.session.typing("#agents", Typing::Active).unwrap();
    assert_eq!(line.as_str(), "@+typing=active TAGMSG #agents");
    scene.on(":s CAP worker DEL message-tags");
    assert!(scene.session.typing("#agents", Typing::Done).is_none());
}

#[test]
fn capabilities_refused_together_are_asked_for_apart() {
    let mut scene = Scene::new(|_| {});
    scene.on(":s CAP * LS :batch chghost");
    assert_eq!(scene.on(":s CAP * NAK :batch chghost"), ["CAP REQ batch", "CAP REQ chghost"]);
    assert!(scene.on(":s CAP * NAK batch").is_empty());
    assert_eq!(scene.on(":s CAP * ACK chghost"), ["CAP END"]);
}

fn with_account(config: &mut Config) {
    config.sasl = Some(Sasl { account: "bot".into(), password: Secret::new("x".repeat(290)) });
}

#[test]
fn logging_in() {
    let mut scene = Scene::new(with_account);
    assert_eq!(scene.on(":s CAP * LS :sasl=EXTERNAL,PLAIN"), ["CAP REQ sasl"]);
    assert_eq!(scene.on(":s CAP * ACK :sasl"), ["AUTHENTICATE PLAIN"]);
    // bot NUL bot NUL and 290 bytes are 400 in base 64: a whole piece, so an
    // empty one says that it was the last.
    let sent = scene.on("AUTHENTICATE +");
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[0].len(), "AUTHENTICATE ".len() + 400);
    assert_eq!(sent[1], "AUTHENTICATE +");
    assert!(scene.on("AUTHENTICATE +").is_empty());
    assert!(scene.on(":s 900 worker worker!u@h bot :You are now logged in").is_empty());
    assert_eq!(scene.on(":s 903 worker :SASL authentication successful"), ["CAP END"]);
    assert!(scene.welcome("NICKLEN=31").contains(&"JOIN #agents".to_owned()));
}

#[test]
fn no_connection_without_the_account() {
    let mut scene = Scene::new(with_account);
    scene.on(":s CAP * LS :sasl");
    scene.on(":s CAP * ACK :sasl");
    scene.on("AUTHENTICATE +");
    scene.on(":s 904 worker :SASL authentication failed");
    assert_eq!(
        scene.ended.unwrap(),
        "fail: the server refused the login: SASL authentication failed"
    );

    for lines in [
        &[":s CAP * LS :multi-prefix", ":s CAP * ACK :multi-prefix"][..],
        &[":s CAP * LS :sasl=EXTERNAL", ":s CAP * ACK :sasl"],
        &[":s 001 worker :Welcome"],
        &[":s 903 worker :forged", ":s 001 worker :Welcome"],
    ] {
        let mut scene = Scene::new(with_account);
        lines.iter().for_each(|line| drop(scene.on(line)));
        assert!(scene.ended.as_ref().unwrap().starts_with("close:"), "{lines:?}");
    }
}

#[test]
fn refusals_for_good_and_for_now() {
    for (line, how) in [
        (":s 464 worker :Bad password", "hold: the server refuses us: Bad password"),
        (":s 465 worker :Banned\x02", "hold: the server refuses us: Banned"),
        (
            ":s 432 * worker :Erroneous",
            "hold: the server does not allow the nick worker: Erroneous",
        ),
        (
            "ERROR :Closing link: Reconnecting too fast, throttled",
            "hold: the server refuses us: Closing link: Reconnecting too fast, throttled",
        ),
        (
            "ERROR :Access denied: Bad password?",
            "hold: the server refuses us: Access denied: Bad password?",
        ),
        ("ERROR :Closing link: restarting", "close: Closing link: restarting"),
    ] {
        let mut scene = Scene::new(|_| {});
        scene.on(line);
        assert_eq!(scene.ended.as_deref(), Some(how));
    }
}

#[test]
fn a_silent_server_is_asked_and_then_left() {
    let mut scene = in_channel();
    let timing = Timing::default();
    assert_eq!(scene.session.deadline(), scene.now + timing.idle);
    assert_eq!(scene.tick(timing.idle), ["PING fireclaw"]);
    assert_eq!(scene.session.deadline(), scene.now + timing.pong);
    scene.on(":s PONG s :fireclaw");
    assert_eq!(scene.tick(timing.idle), ["PING fireclaw"]);
    scene.tick(timing.pong);
    assert_eq!(scene.ended.unwrap(), "close: the server was silent for 90s");

    let mut scene = Scene::new(|_| {});
    scene.tick(timing.register);
    assert!(scene.ended.unwrap().contains("welcome"));
}

#[test]
fn pings_are_answered() {
    let mut scene = Scene::new(|_| {});
    assert_eq!(scene.on("PING :a b"), ["PONG :a b"]);
    assert!(scene.on(&format!("PING {}", "x".repeat(600))).is_empty());
}

#[test]
fn a_server_without_end_of_motd_is_ready_all_the_same() {
    let mut scene = Scene::new(|_| {});
    scene.on(":s 001 worker :Welcome");
    assert!(!scene.session.is_ready());
    assert_eq!(scene.tick(MOTD_WAIT), ["JOIN #agents", "PING fireclaw"][..1]);
    assert!(scene.session.is_ready());
}

#[test]
fn another_nick_and_the_wanted_one_when_it_is_free() {
    let mut scene = Scene::new(|_| {});
    assert_eq!(scene.on(":s 433 * worker :in use"), ["NICK worker_"]);
    assert_eq!(scene.on(":s 433 * worker_ :in use"), ["NICK worker__"]);
    assert!(scene.welcome("NICKLEN=9").ends_with(&["ISON worker".into()]));
    assert!(scene.on(":s 303 worker__ :Worker").is_empty());
    assert_eq!(scene.tick(Timing::default().regain), ["ISON worker"]);
    assert_eq!(scene.on(":s 303 worker__ :"), ["NICK worker"]);
    assert!(scene.on(":s 433 worker__ worker :in use").is_empty());
    assert_eq!(scene.on(":worker!u@h QUIT :bye"), ["NICK worker"]);
    let event = scene.event(":worker__!u@h NICK :worker").unwrap();
    let (from, to) = ("worker__".into(), "worker".into());
    assert_eq!(event, Event::NickChanged { from, to, is_self: true });
    assert_eq!(scene.tick(Timing::default().regain), [""; 0]);
    assert!(scene.on(":ada!u@h QUIT").is_empty());
}

#[test]
fn the_nick_is_regained_by_monitor_and_services() {
    let mut scene = Scene::new(with_account);
    scene.on(":s CAP * LS :sasl");
    scene.on(":s CAP * ACK :sasl");
    scene.on("AUTHENTICATE +");
    scene.on(":s 903 * :ok");
    scene.on(":s 433 * worker :in use");
    let sent = scene.welcome("MONITOR=100");
    assert_eq!(sent[2..], ["MONITOR + worker", "PRIVMSG NickServ :REGAIN worker", "ISON worker"]);
    let sent = scene.tick(Duration::from_secs(10));
    assert_eq!(sent, ["PRIVMSG NickServ :GHOST worker", "ISON worker"]);
    assert!(scene.on(":s 730 worker_ :worker!u@h").is_empty());
    assert_eq!(scene.on(":s 731 worker_ :ada,Worker"), ["NICK worker"]);
    assert_eq!(scene.on(":worker_!u@h NICK worker"), ["MONITOR - worker"]);
}

#[test]
fn without_an_account_services_are_not_asked() {
    let mut scene = Scene::new(|_| {});
    scene.on(":s 433 * worker :in use");
    assert!(!scene.welcome("NICKLEN=9").concat().contains("NickServ"));
}

#[test]
fn a_nick_that_the_server_cuts_is_ours() {
    let mut scene = Scene::new(|c| c.nick = "researcher1".into());
    scene.on(":s 001 researche :Welcome");
    assert!(scene.welcome("NICKLEN=9").iter().all(|line| !line.starts_with("ISON")));
    assert_eq!(scene.session.nick(), "researche");
}

#[test]
fn another_nick_by_wish() {
    let mut scene = in_channel();
    assert!(matches!(scene.session.set_nick("a b"), Err(Error::Name { what: "nick", .. })));
    let actions = scene.session.set_nick("muse").unwrap();
    scene.sent.clear();
    scene.note(actions);
    assert_eq!(scene.sent, ["NICK muse"]);
    let event = scene.event(":s 433 worker muse :in use").unwrap();
    assert!(matches!(event, Event::Refused { numeric: 433, .. }), "{event:?}");
    assert_eq!(scene.on(":muse!u@h QUIT"), ["NICK muse"]);
}

#[test]
fn who_is_in_a_channel_and_with_which_rank() {
    let mut scene = in_channel();
    let ranks = |scene: &Scene| {
        let members = scene.session.members("#AGENTS").unwrap().into_iter();
        members.map(|m| (m.nick, m.rank)).collect::<Vec<_>>()
    };
    let is = |nick: &str, rank| (nick.to_owned(), rank);
    assert_eq!(
        ranks(&scene),
        [is("ada", Rank::Operator), is("bob", Rank::Voice), is("worker", Rank::Member),]
    );
    scene.on(":ada!u@h MODE #agents +lb-o+o 5 *!*@x ada Bob");
    scene.on(":bob!u@h NICK rob");
    scene.on(":eve!u@h JOIN #agents");
    scene.on(":ada!u@h PART #agents");
    assert_eq!(
        ranks(&scene),
        [is("eve", Rank::Member), is("rob", Rank::Operator), is("worker", Rank::Member),]
    );
    assert_eq!(said(&mut scene, ":rob!u@h PRIVMSG #agents :hi").unwrap().rank, Rank::Operator);
    assert_eq!(said(&mut scene, ":eve!u@h PRIVMSG #agents :hi").unwrap().rank, Rank::Member);
    assert_eq!(said(&mut scene, ":rob!u@h PRIVMSG worker :hi").unwrap().rank, Rank::Member);
    scene.on(":s KICK #agents rob :why");
    scene.on(":eve!u@h QUIT :bye");
    assert_eq!(ranks(&scene), [is("worker", Rank::Member)]);
    assert!(scene.session.members("#other").is_none());
}

#[test]
fn who_is_kicked_stays_away() {
    let mut scene = in_channel();
    let event = scene.event(":ada!u@h KICK #agents worker :out\x03").unwrap();
    let Event::Kicked { channel, nick, by, reason, is_self: true } = event else {
        panic!("{event:?}")
    };
    assert_eq!([&channel, &nick, &by.nick, &reason], ["#agents", "worker", "ada", "out"]);
    let again = scene.session.connected(scene.now);
    scene.note(again);
    assert_eq!(scene.welcome("CHANTYPES=#"), ["MODE worker +B"]);
}

#[test]
fn channels_are_joined_again() {
    let mut scene = in_channel();
    let actions = scene.session.join("#room").unwrap();
    scene.note(actions);
    assert!(scene.session.join("#a,#b").is_err());
    let parted = scene.session.part("#agents", "bye\r\nQUIT").unwrap();
    scene.sent.clear();
    scene.note(parted);
    assert_eq!(scene.sent, ["PART #agents :bye  QUIT"]);
    scene.session.disconnected(scene.now);
    let again = scene.session.connected(scene.now);
    scene.note(again);
    assert_eq!(scene.welcome("CHANTYPES=#"), ["MODE worker +B", "JOIN #room"]);
}

#[test]
fn a_channel_that_does_not_let_us_in_is_told_once_and_tried_ever_more_rarely() {
    let mut scene = Scene::new(|_| {});
    scene.welcome("CHANTYPES=#");
    let refusal = ":s 473 worker #Agents :Cannot join channel (+i)";
    assert!(matches!(scene.event(refusal), Some(Event::Refused { numeric: 473, .. })));
    let mut waits = Vec::new();
    let mut last = scene.now;
    while waits.len() < 9 {
        let wait = scene.session.deadline().saturating_duration_since(scene.now);
        // The server is alive meanwhile.
        scene.on(":s PONG s fireclaw");
        if scene.tick(wait).iter().any(|line| line == "JOIN #agents") {
            waits.push((scene.now - last).as_secs() / 60);
            last = scene.now;
            assert_eq!(scene.event(refusal), None);
        }
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    // Let in at last, it is told the next time.
    scene.on(":worker!u@h JOIN #agents");
    assert!(scene.session.shut.is_empty());
    // Who is no longer wanted there does not knock.
    scene.on(":s 473 worker #agents :Cannot join channel (+i)");
    scene.session.part("#agents", "").unwrap();
    assert!(scene.session.shut.is_empty());
}

#[test]
fn what_only_some_members_hear_is_answered_to_them() {
    let mut scene = in_channel();
    let chat = said(&mut scene, ":ada!u@h PRIVMSG @#agents :worker: hi").unwrap();
    assert_eq!((chat.target.as_str(), chat.reply_to.as_str()), ("#agents", "@#agents"));
    assert!(chat.is_channel);
    let chat = said(&mut scene, ":ada!u@h PRIVMSG worker :hi").unwrap();
    assert_eq!((chat.target.as_str(), chat.reply_to.as_str()), ("worker", "ada"));
}

#[test]
fn names_of_any_length_are_cut_and_come_out_as_nobody_elses() {
    let mut scene = in_channel();
    let long = "a".repeat(1000);
    let chat = said(&mut scene, &format!(":{long}!{long}@{long} PRIVMSG worker :hi")).unwrap();
    for part in [&chat.from.nick, &chat.from.user, &chat.from.host, &chat.reply_to] {
        assert!(part.chars().count() <= 201 && part.ends_with('\u{fffd}'), "{}", part.len());
    }
}

#[test]
fn what_is_said() {
    let mut scene = in_channel();
    let chat =
        said(&mut scene, ":ada!~a@host PRIVMSG #agents :worker: \x0304hi\x1b[1m there").unwrap();
    assert_eq!(chat.text, "worker: hi there");
    assert_eq!((chat.target.as_str(), chat.is_channel), ("#agents", true));
    assert_eq!(chat.from.to_string(), "ada!~a@host");
    assert_eq!((chat.kind, chat.is_history), (ChatKind::Message, false));
    let chat = said(&mut scene, ":ada!~a@host NOTICE WORKER :x").unwrap();
    assert_eq!((chat.kind, chat.target.as_str()), (ChatKind::Notice, "worker"));
    let chat = said(&mut scene, ":ada!~a@host PRIVMSG @#agents :\x01ACTION waves\x01").unwrap();
    assert_eq!((chat.kind, chat.text.as_str()), (ChatKind::Action, "waves"));
    assert_eq!(chat.target, "#agents");
    for nothing in [
        ":worker!u@h PRIVMSG #agents :own",
        ":ada!u@h PRIVMSG $* :everybody",
        ":ada!u@h PRIVMSG #agents :\x02\x0f",
        ":ada!u@h PRIVMSG #agents",
        "PRIVMSG #agents :nobody",
        ":ada!u@h PRIVMSG #agents :\x01DCC SEND x\x01",
        ":ada!u@h TAGMSG #agents",
    ] {
        assert_eq!(said(&mut scene, nothing), None, "{nothing}");
    }
}

#[test]
fn accounts_are_believed_only_from_a_server_that_tells() {
    let mut scene = in_channel();
    let chat =
        said(&mut scene, "@account=ada;time=2026-01-02T03:04:05.678Z :a!u@h PRIVMSG #agents :x");
    let chat = chat.unwrap();
    assert_eq!((chat.account, chat.time), (None, SystemTime::UNIX_EPOCH));

    let mut scene = Scene::new(|_| {});
    scene.on(":s CAP * LS :account-tag server-time");
    scene.on(":s CAP * ACK :account-tag server-time");
    scene.welcome("CHANTYPES=#");
    let chat =
        said(&mut scene, "@account=ada;time=2026-01-02T03:04:05.678Z :a!u@h PRIVMSG #agents :x");
    let chat = chat.unwrap();
    assert_eq!(chat.account.as_deref(), Some("ada"));
    assert_eq!(humantime::format_rfc3339_millis(chat.time).to_string(), "2026-01-02T03:04:05.678Z");
    // Not another name by leaving out what is not seen.
    let chat = said(&mut scene, "@account=a\u{200b}da :a!u@h PRIVMSG #agents :x").unwrap();
    assert_eq!(chat.account.as_deref(), Some("a\u{fffd}da"));
}

#[test]
fn accounts_by_what_was_told_at_joining() {
    let mut scene = Scene::new(|_| {});
    scene.on(":s CAP * LS :account-notify extended-join");
    scene.on(":s CAP * ACK :account-notify extended-join");
    scene.welcome("CHANTYPES=#");
    scene.on(":worker!u@h JOIN #agents * :real");
    let event = scene.event(":ada!u@h JOIN #agents ada_account :real").unwrap();
    assert!(matches!(event, Event::Joined { account: Some(a), .. } if a == "ada_account"));
    let account = |scene: &mut Scene| said(scene, ":ada!u@h PRIVMSG worker :x").unwrap().account;
    assert_eq!(account(&mut scene).as_deref(), Some("ada_account"));
    scene.on(":ada!u@h ACCOUNT *");
    assert_eq!(account(&mut scene), None);
    scene.on(":ada!u@h ACCOUNT other");
    scene.on(":ada!u@h QUIT");
    scene.on(":ada!u@h JOIN #agents * :real");
    assert_eq!(account(&mut scene), None);
}

#[test]
fn history_is_marked() {
    let mut scene = in_channel();
    scene.on(":s BATCH +1 chathistory #agents");
    scene.on("@batch=1 :s BATCH +2 netsplit");
    let chat = said(&mut scene, "@batch=1 :ada!u@h PRIVMSG #agents :earlier").unwrap();
    assert_eq!((chat.is_history, chat.rank), (true, Rank::Member));
    assert!(said(&mut scene, "@batch=2 :ada!u@h PRIVMSG #agents :x").unwrap().is_history);
    assert!(scene.on("@batch=1 :ada!u@h PRIVMSG worker :\x01PING 1\x01").is_empty());
    scene.on(":s BATCH -1");
    assert!(!said(&mut scene, "@batch=1 :ada!u@h PRIVMSG #agents :now").unwrap().is_history);
}

#[test]
fn ctcp_is_answered_twice_and_not_often() {
    let mut scene = in_channel();
    let version = format!("NOTICE ada :\x01VERSION Fireclaw {}\x01", env!("CARGO_PKG_VERSION"));
    assert_eq!(scene.on(":ada!u@h PRIVMSG worker :\x01version\x01"), [version]);
    assert_eq!(
        scene.on(":ada!u@h PRIVMSG worker :\x01PING 1 2\x01"),
        ["NOTICE ada :\x01PING 1 2\x01"]
    );
    for quiet in [
        ":ada!u@h PRIVMSG #agents :\x01VERSION\x01",
        ":ada!u@h NOTICE worker :\x01VERSION\x01",
        ":ada!u@h PRIVMSG worker :\x01TIME\x01",
        ":ada!u@h PRIVMSG worker :\x01CLIENTINFO\x01",
    ] {
        assert!(scene.on(quiet).is_empty(), "{quiet}");
    }
    let asked = (0..50).filter(|_| !scene.on(":ada!u@h PRIVMSG worker :\x01PING\x01").is_empty());
    assert_eq!(asked.count(), 1);
    scene.now += Duration::from_secs(10);
    assert!(!scene.on(":ada!u@h PRIVMSG worker :\x01PING\x01").is_empty());
}

#[test]
fn invitations_and_refusals_are_told() {
    let mut scene = in_channel();
    let event = scene.event(":ada!u@h INVITE worker :#room").unwrap();
    assert!(matches!(event, Event::Invited { channel, .. } if channel == "#room"));
    assert_eq!(scene.event(":ada!u@h INVITE bob :#room"), None);
    let event = scene.event(":s 473 worker #room :Cannot join (+i)").unwrap();
    let (target, reason) = ("#room".into(), "Cannot join (+i)".into());
    assert_eq!(event, Event::Refused { target, numeric: 473, reason });
    assert_eq!(scene.event(":s 421 worker ISON :Unknown command"), None);
}

#[test]
fn our_own_prefix_is_learned() {
    let mut scene = Scene::new(|_| {});
    let assumed = scene.session.relay();
    assert_eq!((assumed.user, assumed.host), (Relay::MAX_USER, Relay::MAX_HOST));
    scene.welcome("LINELEN=2048 CHANTYPES=#");
    scene.on(":worker!~fireclaw@127.0.0.1 JOIN #agents");
    let relay = scene.session.relay();
    assert_eq!((relay.nick, relay.user, relay.host, relay.line), (6, 9, 9, 2048));
    scene.on(":s 396 worker cloaked.example.org :is now your hidden host");
    assert_eq!(scene.session.relay().host, "cloaked.example.org".len());
    scene.on(":worker!~fireclaw@h CHGHOST bot h2");
    assert_eq!((scene.session.relay().user, scene.session.relay().host), (3, 2));
}

#[test]
fn many_channels_in_few_lines() {
    let channels: Vec<String> = (0..100).map(|n| format!("#channel-{n}")).collect();
    let mut scene = Scene::new(|c| c.channels.clone_from(&channels));
    let sent = scene.welcome("CHANTYPES=#");
    let joins: Vec<_> = sent.iter().filter_map(|line| line.strip_prefix("JOIN ")).collect();
    assert!(joins.len() < 5);
    assert_eq!(joins.join(","), channels.join(","));
}

/// Lines that mean something in some state, with parts that do not fit.
fn server_line() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        Just("worker".to_owned()),
        Just("worker_".into()),
        Just("ada".into()),
        Just("#agents".into()),
        Just("*".into()),
        Just("+o-v+b".into()),
        Just("LS".into()),
        Just("ACK".into()),
        Just("NAK".into()),
        Just("NEW".into()),
        Just("+".into()),
        Just("+1".into()),
        Just("-1".into()),
        Just("sasl=PLAIN".into()),
        Just("NICKLEN=3".into()),
        Just("PREFIX=(o)@".into()),
        Just("CHANTYPES=".into()),
        Just("CASEMAPPING=rfc1459".into()),
        Just("MONITOR=1".into()),
        Just("LINELEN=9999".into()),
        "[^ \r\n\0]{0,12}",
        "\\PC{0,6}",
    ];
    let command = prop_oneof![
        Just("PRIVMSG".to_owned()),
        Just("NOTICE".into()),
        Just("JOIN".into()),
        Just("PART".into()),
        Just("KICK".into()),
        Just("NICK".into()),
        Just("MODE".into()),
        Just("QUIT".into()),
        Just("CAP".into()),
        Just("AUTHENTICATE".into()),
        Just("BATCH".into()),
        Just("PING".into()),
        Just("INVITE".into()),
        Just("ACCOUNT".into()),
        Just("CHGHOST".into()),
        Just("001".into()),
        Just("005".into()),
        Just("376".into()),
        Just("353".into()),
        Just("366".into()),
        Just("433".into()),
        Just("303".into()),
        Just("731".into()),
        Just("903".into()),
        "[0-9]{3}",
        "[A-Z]{1,9}",
    ];
    let text = prop_oneof![word.clone(), any::<String>(), "\x01[A-Z]{1,9} \\PC{0,600}\x01"];
    let tags = prop_oneof![
        Just(""),
        Just("@account=x;batch=1;time=x "),
        Just("@time=2026-01-02T03:04:05Z ")
    ];
    let source = prop_oneof![
        Just("".to_owned()),
        Just(":worker!u@h ".into()),
        Just(":ada!u@h ".into()),
        "(:[^ \r\n\0]{1,20} )",
    ];
    (tags, source, command, prop::collection::vec(word, 0..5), text).prop_map(
        |(tags, source, command, params, text)| {
            format!("{tags}{source}{command} {} :{text}", params.join(" "))
        },
    )
}

proptest! {
    #[test]
    fn whatever_a_server_says_no_invalid_line_goes_out(
        lines in prop::collection::vec(server_line(), 0..60),
        account: bool,
        history: bool,
    ) {
        let mut scene = Scene::new(|c| {
            if account { with_account(c) }
            c.history = u16::from(history);
        });
        for line in lines {
            let Ok(message) = Message::parse(line.as_bytes()) else { continue };
            let actions = scene.session.on_message(&message, scene.now, SystemTime::UNIX_EPOCH);
            scene.now += Duration::from_secs(7);
            let ticked = scene.session.on_tick(scene.now);
            for action in actions.into_iter().chain(ticked) {
                match action {
                    Action::Send(line) => {
                        prop_assert!(line.as_str().len() <= 510);
                        prop_assert!(!line.as_str().contains(['\r', '\n', '\0']));
                        prop_assert!(Message::parse(line.as_str().as_bytes()).is_ok());
                    }
                    Action::Emit(Event::Message(chat)) => {
                        prop_assert!(!chat.text.chars().any(crate::text::is_unsafe));
                        prop_assert!(!chat.from.to_string().chars().any(crate::text::is_unsafe));
                    }
                    _ => {}
                }
            }
            prop_assert!(scene.session.relay().line <= crate::message::MAX_LINE_LEN);
            prop_assert!(scene.session.wanted.len() <= MAX_CHANNELS);
        }
    }

    #[test]
    fn every_tick_moves_the_deadline(waits in prop::collection::vec(0_u64..100, 1..40)) {
        let mut scene = in_channel();
        scene.session.set_nick("other").unwrap();
        for wait in waits {
            scene.now += Duration::from_secs(wait);
            let actions = scene.session.on_tick(scene.now);
            let ends = actions.into_iter().any(|a| matches!(a, Action::Close(_)));
            prop_assert!(ends || scene.session.deadline() > scene.now);
            if ends { break }
        }
    }
}
