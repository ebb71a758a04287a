//! The client against a real ngircd.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::io::Write as _;
use std::time::Duration;

use common::{Bot, LIMIT, Raw, config, text_of};
use fireclaw_chat::addressed;
use fireclaw_host::Secret;
use fireclaw_irc::Error;
use fireclaw_irc::client::{ChatKind, Event, Member, Rank, Typing};
use fireclaw_irc::server::{Options, PrivateServer};
use fireclaw_irc::text::{Formatting, fold};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tempfile::TempDir;

struct Place {
    dir: TempDir,
    server: PrivateServer,
}

impl Place {
    async fn new() -> Self {
        Self::with(&Options::default()).await
    }

    async fn with(options: &Options) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = PrivateServer::start(dir.path(), options).await.unwrap();
        Self { dir, server }
    }

    fn port(&self) -> u16 {
        self.server.port()
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.server.pid().unwrap().cast_signed()).unwrap()
    }
}

#[tokio::test]
async fn two_clients_talk_in_a_channel_and_in_private() {
    let place = Place::new().await;
    let mut worker = Bot::join(place.port(), "worker").await;
    let mut muse = Bot::join(place.port(), "muse").await;
    assert_eq!(muse.handle.say("#agents", "worker: what's your uptime?").await.unwrap(), 1);
    let chat = worker.heard().await;
    assert_eq!((chat.from.nick.as_str(), chat.target.as_str()), ("muse", "#agents"));
    assert_eq!((chat.kind, chat.rank, chat.is_history), (ChatKind::Message, Rank::Member, false));
    let status = worker.handle.status();
    assert!(status.connected);
    assert_eq!(
        addressed(&chat.text, &status.nick, status.case.into()),
        Some("what's your uptime?")
    );

    worker.handle.say("muse", "three days").await.unwrap();
    let chat = muse.heard().await;
    assert_eq!((chat.text.as_str(), chat.target.as_str()), ("three days", "muse"));
    assert_eq!((chat.from.user.as_str(), chat.from.host.as_str()), ("~fireclaw", "127.0.0.1"));
    assert!(!chat.is_channel);
    // The first one in is its operator.
    worker.handle.notice("#agents", "done").await.unwrap();
    let chat = muse.heard().await;
    assert_eq!((chat.kind, chat.rank), (ChatKind::Notice, Rank::Operator));
    // Not offered by ngircd, and so nothing happens.
    worker.handle.typing("#agents", Typing::Active).await.unwrap();
    let members = worker.handle.members("#AGENTS").await.unwrap().unwrap();
    let member = |nick: &str, rank| Member { nick: nick.into(), rank };
    assert_eq!(members, [member("muse", Rank::Member), member("worker", Rank::Operator)]);
    assert_eq!(worker.handle.members("#other").await.unwrap(), None);
}

#[tokio::test]
async fn it_is_marked_as_a_bot() {
    let place = Place::new().await;
    let _worker = Bot::join(place.port(), "worker").await;
    let mut ada = Raw::join(place.port(), "ada").await;
    ada.send("WHOIS worker").await;
    let line = ada.line("the bot's mark", |line| line.contains(" 335 ") || line.contains(" 318 "));
    let line = line.await;
    assert!(line.contains("335"), "{line}");
}

#[tokio::test]
async fn invited_it_can_join_and_kicked_it_stays_away() {
    let place = Place::new().await;
    let mut ada = Raw::join(place.port(), "ada").await;
    let mut worker = Bot::join(place.port(), "worker").await;
    ada.send("JOIN #room\r\nMODE #room +i\r\nINVITE worker #room").await;
    let (channel, by) = worker
        .until("the invitation", |event| match event {
            Event::Invited { channel, by, .. } => Some((channel, by)),
            _ => None,
        })
        .await;
    assert_eq!((channel.as_str(), by.nick.as_str()), ("#room", "ada"));
    worker.handle.join(&channel).await.unwrap();
    ada.line("worker in #room", |line| line.starts_with(":worker!") && line.contains(" JOIN "))
        .await;
    ada.send("KICK #room worker :enough").await;
    let (reason, by) = worker
        .until("the kick", |event| match event {
            Event::Kicked { channel, by, reason, is_self: true, .. } if channel == "#room" => {
                Some((reason, by.nick))
            }
            _ => None,
        })
        .await;
    assert_eq!((reason.as_str(), by.as_str()), ("enough", "ada"));
    // Nobody lets it in again, and it says so.
    worker.handle.join("#room").await.unwrap();
    let numeric = worker
        .until("a refusal", |event| match event {
            Event::Refused { target, numeric, .. } if target == "#room" => Some(numeric),
            _ => None,
        })
        .await;
    assert_eq!(numeric, 473);
    worker.handle.part("#agents", "that's it").await.unwrap();
    let part = ada.line("the part", |line| line.contains(" PART ")).await;
    assert!(part.starts_with(":worker!") && part.contains("that's it"), "{part}");
}

#[tokio::test]
async fn a_taken_nick_is_got_back_when_its_owner_leaves_the_channel() {
    let place = Place::new().await;
    let mut owner = Raw::join(place.port(), "worker").await;
    let mut worker = Bot::start(config(place.port(), "worker"));
    let nick = |event| match event {
        Event::Connected { nick } => Some(nick),
        _ => None,
    };
    assert_eq!(worker.until("a connection", nick).await, "worker_");
    worker.in_channel().await;
    owner.send("QUIT :mine no more").await;
    let changed = |event| match event {
        Event::NickChanged { from, to, is_self: true } => Some((from, to)),
        _ => None,
    };
    let (from, to) = worker.until("the nick", changed).await;
    assert_eq!((from.as_str(), to.as_str()), ("worker_", "worker"));
    assert_eq!(worker.handle.status().nick, "worker");
}

#[tokio::test]
async fn a_taken_nick_is_got_back_from_somebody_not_seen() {
    let place = Place::new().await;
    let mut owner = Raw::register(place.port(), "worker").await;
    let mut config = config(place.port(), "worker");
    config.timing.regain = Duration::from_millis(50);
    let mut worker = Bot::start(config);
    worker.in_channel().await;
    owner.send("NICK other").await;
    worker
        .until("the nick", |event| match event {
            Event::NickChanged { to, is_self: true, .. } if to == "worker" => Some(()),
            _ => None,
        })
        .await;
}

#[tokio::test]
async fn it_comes_back_after_the_server_was_away() {
    let Place { dir, server } = Place::new().await;
    let port = server.port();
    let mut worker = Bot::join(port, "worker").await;
    worker.handle.join("#room").await.unwrap();
    worker
        .until("the room", |event| match event {
            Event::Members { channel, .. } if channel == "#room" => Some(()),
            _ => None,
        })
        .await;
    drop(server);
    worker
        .until("the loss", |event| match event {
            Event::Disconnected { retry_in, .. } => Some(retry_in),
            _ => None,
        })
        .await;
    let reason = worker
        .until("a refused connection", |event| match event {
            Event::Disconnected { reason, .. } => Some(reason),
            _ => None,
        })
        .await;
    assert!(reason.contains("refused"), "{reason}");
    let options = Options { port: Some(port), ..Options::default() };
    let server = PrivateServer::start(dir.path(), &options).await.unwrap();
    let mut joined = Vec::new();
    worker
        .until("both channels", |event| {
            if let Event::Joined { channel, is_self: true, .. } = event {
                joined.push(channel);
            }
            (joined.len() == 2).then_some(())
        })
        .await;
    joined.sort();
    assert_eq!(joined, ["#agents", "#room"]);
    let mut ada = Raw::join(port, "ada").await;
    worker.handle.say("#agents", "back").await.unwrap();
    assert!(ada.said_until("back").await.is_empty());
    drop(server);
}

#[tokio::test]
async fn what_was_said_without_a_server_is_said_to_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let server = PrivateServer::start(dir.path(), &Options::default()).await.unwrap();
    let port = server.port();
    drop(server);
    let mut worker = Bot::start(config(port, "worker"));
    worker.handle.say("ada", "early").await.unwrap();
    worker
        .until("a refused connection", |event| {
            matches!(event, Event::Disconnected { .. }).then_some(())
        })
        .await;
    let options = Options { port: Some(port), ..Options::default() };
    let _server = PrivateServer::start(dir.path(), &options).await.unwrap();
    // Nobody called ada is there: the server's answer proves that it was sent.
    let reason = worker
        .until("the answer", |event| match event {
            Event::Refused { target, numeric: 401, reason } if target == "ada" => Some(reason),
            _ => None,
        })
        .await;
    assert!(!reason.is_empty());
}

#[tokio::test]
async fn a_server_that_hangs_is_noticed() {
    let place = Place::new().await;
    let mut config = config(place.port(), "worker");
    config.timing.idle = Duration::from_millis(300);
    config.timing.pong = Duration::from_millis(300);
    let mut worker = Bot::start(config);
    worker.in_channel().await;
    kill_process(place.pid(), Signal::STOP).unwrap();
    let reason = worker
        .until("the loss", |event| match event {
            Event::Disconnected { reason, .. } => Some(reason),
            _ => None,
        })
        .await;
    assert!(reason.contains("silent"), "{reason}");
    kill_process(place.pid(), Signal::CONT).unwrap();
    worker.in_channel().await;
}

#[tokio::test]
async fn long_lines_arrive_whole_and_within_512_bytes() {
    let place = Place::new().await;
    let mut ada = Raw::join(place.port(), "ada").await;
    let worker = Bot::join(place.port(), "worker").await;
    let words: String = (0..600).map(|n| format!("wörd-{n} ")).collect();
    let family = "👩‍👩‍👧".repeat(60);
    let unbroken = "x".repeat(2000);
    let text = format!("{words}\n{family}\n{unbroken}");
    let count = worker.handle.say("#agents", &text).await.unwrap();
    worker.handle.say("#agents", "end").await.unwrap();
    let said = ada.said_until("end").await;
    assert_eq!(said.len(), count);
    let longest = said.iter().map(Vec::len).max().unwrap();
    // None is cut, and none is much shorter than it could be.
    assert!((500..=512).contains(&longest), "{longest}");
    let texts: Vec<_> = said.iter().map(|line| String::from_utf8(line.clone()).unwrap()).collect();
    let heard: String = texts.iter().map(|line| text_of(line)).collect();
    let letters = |text: &str| text.replace([' ', '\n'], "");
    assert_eq!(letters(&heard), letters(&text));
    assert!(texts.iter().all(|line| !text_of(line).starts_with('\u{200d}')));
    // The same in private, where the target is another.
    worker.handle.say("ada", &unbroken).await.unwrap();
    worker.handle.say("ada", "end").await.unwrap();
    let said = ada.said_until("end").await;
    assert_eq!(said[0].len(), 512);
    assert!(said.iter().all(|line| line.len() <= 512));
}

#[tokio::test]
async fn a_long_answer_is_folded_to_what_the_caller_allows() {
    let place = Place::new().await;
    let mut ada = Raw::join(place.port(), "ada").await;
    let worker = Bot::join(place.port(), "worker").await;
    let answer = "Line of an answer.\n\n".repeat(5000); // 100 kB
    let folded = fold(&answer, worker.handle.budget("#agents"), 4, Formatting::Remove);
    assert!(folded.rest && folded.lines.len() == 4);
    worker.handle.say("#agents", &folded.lines.join("\n")).await.unwrap();
    worker.handle.say("#agents", "end").await.unwrap();
    assert_eq!(ada.said_until("end").await.len(), 4);
    let refused = worker.handle.say("#agents", &answer).await;
    assert!(matches!(refused, Err(Error::QueueFull { .. })), "{refused:?}");
}

#[tokio::test]
async fn fifty_messages_at_once_all_arrive_in_order() {
    let place = Place::new().await;
    let mut ada = Raw::join(place.port(), "ada").await;
    let mut worker = Bot::join(place.port(), "worker").await;
    for n in 0..50 {
        worker.handle.say("#agents", &format!("message {n}")).await.unwrap();
    }
    worker.handle.say("#agents", "end").await.unwrap();
    let said = ada.said_until("end").await;
    let said: Vec<_> =
        said.iter().map(|line| text_of(std::str::from_utf8(line).unwrap()).to_owned()).collect();
    assert_eq!(said, (0..50).map(|n| format!("message {n}")).collect::<Vec<_>>());
    // And the other way.
    let flood: Vec<_> = (0..50).map(|n| format!("PRIVMSG #agents :worker: {n}")).collect();
    ada.send(&flood.join("\r\n")).await;
    for n in 0..50 {
        assert_eq!(worker.heard().await.text, format!("worker: {n}"));
    }
}

#[tokio::test]
async fn the_rate_is_kept() {
    let place = Place::new().await;
    let mut ada = Raw::join(place.port(), "ada").await;
    let mut config = config(place.port(), "worker");
    config.rate.burst = 2;
    config.rate.interval = Duration::from_millis(100);
    let mut worker = Bot::start(config);
    worker.in_channel().await;
    let start = std::time::Instant::now();
    worker.handle.say("#agents", "1\n2\n3\n4\n5\nend").await.unwrap();
    assert_eq!(ada.said_until("end").await.len(), 5);
    assert!(start.elapsed() >= Duration::from_millis(390), "{:?}", start.elapsed());
}

#[tokio::test]
async fn others_see_why_it_quits() {
    let place = Place::new().await;
    let mut ada = Raw::join(place.port(), "ada").await;
    let mut worker = Bot::join(place.port(), "worker").await;
    worker.handle.say("#agents", "last words").await.unwrap();
    worker.handle.quit("stopped by ada\r\nPRIVMSG #agents :x").await;
    let said = ada.line("last words", |line| line.contains(" PRIVMSG ")).await;
    assert_eq!(text_of(&said), "last words");
    let quit = ada.line("the quit", |line| line.contains(" QUIT ")).await;
    assert!(quit.starts_with(":worker!") && quit.contains("stopped by ada"), "{quit}");
    assert!(!quit.contains("PRIVMSG"), "{quit}");
    worker.ended().await;
    assert!(matches!(worker.handle.say("#agents", "x").await, Err(Error::Stopped)));
    worker.handle.quit("again").await;
}

#[tokio::test]
async fn a_client_without_owner_quits() {
    let place = Place::new().await;
    let mut ada = Raw::join(place.port(), "ada").await;
    let worker = Bot::join(place.port(), "worker").await;
    drop(worker.handle);
    ada.line("the quit", |line| line.starts_with(":worker!") && line.contains(" QUIT ")).await;
    let muse = Bot::join(place.port(), "muse").await;
    drop(muse.events);
    ada.line("the quit", |line| line.starts_with(":muse!") && line.contains(" QUIT ")).await;
}

#[tokio::test]
async fn hostile_words_never_pass() {
    let place = Place::new().await;
    let mut ada = Raw::join(place.port(), "ada").await;
    let worker = Bot::join(place.port(), "worker").await;
    for text in [
        "a\r\nQUIT :gone",
        "a\nPRIVMSG ada :forged\r",
        "\x01ACTION pretends\x01",
        "\x01DCC SEND evil 1 2\x01",
        "\x0304red\x03 \x02bold\x1d\x1f\x16\x0f",
        "\x1b[2J\x1b]0;title\x07cleared\x1b",
        "\u{9b}31mC1\u{85}next",
        "a\0b",
        "\u{202e}gnp.exe\u{2066}",
        "tab\tand\x07bell\x08\x7f",
        ":colon first",
        "/quit",
    ] {
        worker.handle.say("#agents", text).await.unwrap();
        worker.handle.notice("#agents", text).await.unwrap();
    }
    for target in [
        "#agents,ada",
        "#agents :x",
        "ada\r\nQUIT",
        "",
        " ",
        ":ada",
        "$*.internal",
        "@#agents",
        "ada!~ada@127.0.0.1",
        "#\x07",
        "#agents\0",
    ] {
        let refused = worker.handle.say(target, "x").await;
        assert!(matches!(refused, Err(Error::Name { .. })), "{target:?}: {refused:?}");
        assert!(worker.handle.typing(target, Typing::Active).await.is_err(), "{target:?}");
    }
    for bad in ["a b", "a\r\nQUIT", "", "#x", "1"] {
        assert!(matches!(worker.handle.nick(bad).await, Err(Error::Name { .. })), "{bad:?}");
        assert!(matches!(worker.handle.join(&format!("x{bad}")).await, Err(Error::Name { .. })));
    }
    worker.handle.part("#nowhere", "\r\nQUIT :x").await.unwrap();
    worker.handle.say("#agents", "end").await.unwrap();
    let mut texts = Vec::new();
    for line in ada.said_until("end").await {
        assert!(line.starts_with(b":worker!~fireclaw@127.0.0.1 "));
        assert!(line.ends_with(b"\r\n") && line.len() <= 512);
        let line = String::from_utf8(line).unwrap();
        let text = text_of(&line);
        assert!(!text.chars().any(char::is_control), "{text:?}");
        assert!(!text.contains(['\u{202e}', '\u{2066}']), "{text:?}");
        texts.push(text.to_owned());
    }
    for kept in [
        "QUIT :gone",
        "ACTION pretends",
        "red bold",
        "cleared",
        "C1",
        "ab",
        "gnp.exe",
        ":colon first",
        "/quit",
    ] {
        assert!(texts.iter().any(|text| text == kept), "{kept}: {texts:?}");
    }
    // It is still there, under its name.
    assert_eq!(worker.handle.status().nick, "worker");
}

#[tokio::test]
async fn hostile_words_are_heard_as_text() {
    let place = Place::new().await;
    let mut ada = Raw::join(place.port(), "ada").await;
    let mut worker = Bot::join(place.port(), "worker").await;
    ada.send("PRIVMSG #agents :\x0304,1red\x03 \x1b[31mx\x1b[0m \u{202e}y").await;
    assert_eq!(worker.heard().await.text, "red x y");
    ada.send("PRIVMSG worker :\x01VERSION\x01").await;
    let answer = ada.line("the version", |line| line.contains(" NOTICE ada ")).await;
    assert!(text_of(&answer).starts_with("\x01VERSION Fireclaw"), "{answer:?}");
}

#[tokio::test]
async fn the_lines_of_a_paste_come_as_one_message() {
    let place = Place::new().await;
    let mut ada = Raw::join(place.port(), "ada").await;
    let mut config = config(place.port(), "worker");
    config.joins_pastes = true;
    let mut worker = Bot::start(config);
    worker.in_channel().await;
    ada.send("PRIVMSG #agents :worker: fix\r\nPRIVMSG #agents :a\r\nPRIVMSG #agents :b").await;
    assert_eq!(worker.heard().await.text, "worker: fix\na\nb");
    ada.send("PRIVMSG #agents :worker: 1\r\nPRIVMSG #agents :worker: 2\r\nQUIT").await;
    assert_eq!(worker.heard().await.text, "worker: 1");
    assert_eq!(worker.heard().await.text, "worker: 2");
}

#[tokio::test]
async fn a_nick_that_is_too_long_here_gives_way_to_one_that_is_told() {
    let options = Options { nick_len: 9, ..Options::default() };
    let place = Place::with(&options).await;
    let mut worker = Bot::start(config(place.port(), "researcher"));
    let said = worker
        .until("an answer", |event| match event {
            Event::Connected { nick } => Some(nick),
            Event::Held { reason, .. } => Some(reason),
            _ => None,
        })
        .await;
    assert!(said.len() <= 9 || said.contains("does not allow the nick"), "{said}");
}

#[tokio::test]
async fn another_nick_by_wish() {
    let place = Place::new().await;
    let mut ada = Raw::join(place.port(), "ada").await;
    let worker = Bot::join(place.port(), "worker").await;
    worker.handle.nick("coder").await.unwrap();
    ada.line("the nick", |line| line.starts_with(":worker!") && line.contains(" NICK ")).await;
}

#[tokio::test]
async fn the_servers_password_is_needed() {
    let password = Some(Secret::new("let me in"));
    let place = Place::with(&Options { password: password.clone(), ..Options::default() }).await;
    let mut config = config(place.port(), "worker");
    config.password = Some(Secret::new("wrong"));
    let mut stranger = Bot::start(config.clone());
    let (reason, retry_in) = stranger
        .until("the refusal", |event| match event {
            Event::Held { reason, retry_in } => Some((reason, retry_in)),
            _ => None,
        })
        .await;
    assert!(reason.contains("password"), "{reason}");
    assert!(retry_in >= Duration::from_secs(60), "{retry_in:?}");
    config.password = password;
    Bot::start(config).in_channel().await;
}

#[tokio::test]
async fn a_taken_port_is_said_to_be() {
    let place = Place::new().await;
    let options = Options { port: Some(place.port()), ..Options::default() };
    let dir = tempfile::tempdir().unwrap();
    let error = PrivateServer::start(dir.path(), &options).await.unwrap_err();
    assert!(error.to_string().contains(&place.port().to_string()), "{error}");
}

#[tokio::test]
async fn a_taken_port_is_left_to_its_owner_where_any_will_do() {
    let place = Place::new().await;
    let options = Options { port: Some(place.port()), any_port: true, ..Options::default() };
    let other = Place::with(&options).await;
    assert_ne!(other.port(), place.port());
    Bot::join(other.port(), "worker").await;
}

#[tokio::test]
async fn nobody_is_an_operator_where_the_channel_was_there_first() {
    let options = Options { channels: vec!["#control".into()], ..Options::default() };
    let place = Place::with(&options).await;
    let mut first = Raw::register(place.port(), "first").await;
    first.send("JOIN #control").await;
    let names = first.line("the names", |line| line.contains(" 353 ")).await;
    assert!(names.ends_with(":first"), "{names}");
    first.send("MODE #control +o first").await;
    first.line("a refusal", |line| line.contains(" 482 ")).await;
    // Nor after all have left and somebody comes again.
    first.send("PART #control\r\nJOIN #control").await;
    let names = first.line("the names", |line| line.contains(" 353 ")).await;
    assert!(names.ends_with(":first"), "{names}");
    // And there is no password for operators of the server.
    first.send("OPER first x").await;
    first.line("a refusal", |line| line.contains(" 491 ") || line.contains(" 464 ")).await;
}

#[tokio::test]
async fn it_starts_again_where_it_listened_and_nobody_else_can() {
    let mut place = Place::new().await;
    let mut worker = Bot::join(place.port(), "worker").await;
    kill_process(place.pid(), Signal::KILL).unwrap();
    let death = tokio::time::timeout(LIMIT, place.server.died()).await.unwrap();
    assert!(death.to_string().contains("ngircd was ended by signal 9"), "{death}");
    let taken = std::net::TcpListener::bind(("127.0.0.1", place.port()));
    assert!(taken.is_err(), "somebody could pass for the server");
    place.server.restart().await.unwrap();
    worker.in_channel().await;
}

#[tokio::test]
async fn the_program_may_lie_beside_where_its_user_cannot_go() {
    let dir = tempfile::tempdir().unwrap();
    let beside = dir.path().join("closed/usr/sbin");
    std::fs::create_dir_all(&beside).unwrap();
    let program = beside.join("ngircd");
    let found = ["/usr/sbin/ngircd", "../../target/tools/ngircd/usr/sbin/ngircd"];
    let found = std::env::var("FIRECLAW_NGIRCD").ok().into_iter().chain(found.map(str::to_owned));
    let found = found.into_iter().find(|path| std::path::Path::new(path).exists());
    std::fs::copy(found.expect("ngircd is installed or unpacked"), &program).unwrap();
    use std::os::unix::fs::PermissionsExt;
    let closed = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(dir.path().join("closed"), closed).unwrap();
    let place = Place::with(&Options { program: Some(program), ..Options::default() }).await;
    Bot::join(place.port(), "worker").await;
}

#[tokio::test]
async fn the_configuration_is_closed_to_others() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new().await;
    let mode = place.server.config().metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(place.server.config().starts_with(place.dir.path()));
}

#[tokio::test]
async fn the_server_does_not_run_as_root() {
    use std::os::unix::fs::MetadataExt;
    let place = Place::new().await;
    let owner = std::fs::metadata(format!("/proc/{}", place.server.pid().unwrap())).unwrap().uid();
    assert_ne!(owner, 0);
}

#[tokio::test]
async fn a_server_that_dies_says_how() {
    let mut place = Place::new().await;
    kill_process(place.pid(), Signal::TERM).unwrap();
    let error = tokio::time::timeout(LIMIT, place.server.died()).await.unwrap();
    let Error::ServerFailed { reason, log } = error else { panic!("{error:?}") };
    assert!(reason.contains("ngircd exited"), "{reason}");
    assert!(log.contains("Terminated"), "{log}");
}

/// In the variable is where a server's files are to be, for the part of
/// [`the_server_ends_with_its_owner`] that is a process of its own.
const OWNED: &str = "FIRECLAW_TEST_OWNED_SERVER";

#[tokio::test]
async fn the_server_ends_with_its_owner() {
    if let Some(directory) = std::env::var_os(OWNED) {
        let server = PrivateServer::start(directory.as_ref(), &Options::default()).await.unwrap();
        writeln!(std::io::stdout(), "pid {}", server.pid().unwrap()).unwrap();
        kill_process(rustix::process::getpid(), Signal::KILL).unwrap();
    }
    let place = Place::new().await;
    let (pid, port) = (place.pid(), place.port());
    drop(place);
    assert!(test_kill_process(pid).is_err());
    assert!(tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err());

    // Also if the owner is killed.
    let dir = tempfile::tempdir().unwrap();
    let mut owner = tokio::process::Command::new(std::env::current_exe().unwrap());
    owner.args(["--exact", "the_server_ends_with_its_owner", "--nocapture"]);
    let output = owner.env(OWNED, dir.path()).output().await.unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&output.status), Some(9));
    let said = String::from_utf8(output.stdout).unwrap();
    let pid = said.lines().find_map(|line| line.strip_prefix("pid ")).unwrap();
    let pid = Pid::from_raw(pid.parse().unwrap()).unwrap();
    // Whoever reaps it then may take a while.
    let ends = async {
        let stat = || std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
        while stat().is_ok_and(|stat| !stat.contains(") Z ")) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, ends).await.unwrap();
}
