//! The client against servers that follow a script: TLS, SASL, and servers that
//! are slow or mad.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Bot, LIMIT, config};
use fireclaw_host::Secret;
use fireclaw_irc::client::{Config, Event, Rate, Sasl, Tls, Typing};
use fireclaw_irc::message::Message;
use fireclaw_irc::{Client, Error};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;
use tokio_rustls::rustls::{ServerConfig, crypto};

/// The server's end of one connection.
struct Script<S> {
    stream: BufReader<S>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Script<S> {
    fn new(stream: S) -> Self {
        Self { stream: BufReader::new(stream) }
    }

    async fn say(&mut self, line: &str) {
        self.bytes(format!("{line}\r\n").as_bytes()).await;
    }

    async fn bytes(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).await.unwrap();
        self.stream.get_mut().flush().await.unwrap();
    }

    /// The client's next line, which is valid.
    async fn next(&mut self) -> String {
        let mut line = String::new();
        timeout(LIMIT, self.stream.read_line(&mut line)).await.expect("no line").unwrap();
        assert!(line.is_empty() || line.ends_with("\r\n") && line.len() <= 512, "{line:?}");
        assert!(line.is_empty() || Message::parse(line.as_bytes()).is_ok(), "{line:?}");
        line.trim_end().to_owned()
    }

    /// Reads lines until `wanted`.
    async fn hears(&mut self, wanted: &str) {
        let mut seen = Vec::new();
        loop {
            let line = self.next().await;
            if line == wanted {
                return;
            }
            assert!(!line.is_empty(), "the client left, but {wanted:?} awaited after {seen:?}");
            seen.push(line);
        }
    }

    /// Lets the client in without capabilities.
    async fn welcome(&mut self) {
        self.hears("USER fireclaw 0 * worker").await;
        self.say(":s 001 worker :Welcome").await;
        self.say(":s 005 worker CHANTYPES=# NICKLEN=31 :are supported").await;
        self.say(":s 376 worker :End of MOTD").await;
        self.hears("JOIN #agents").await;
    }
}

async fn listen() -> (TcpListener, Config) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = config(listener.local_addr().unwrap().port(), "worker");
    (listener, config)
}

async fn connected(bot: &mut Bot) {
    bot.until("a connection", |event| matches!(event, Event::Connected { .. }).then_some(())).await;
}

async fn lost(bot: &mut Bot) -> String {
    bot.until("the loss", |event| match event {
        Event::Disconnected { reason, .. } => Some(reason),
        _ => None,
    })
    .await
}

/// A certificate for `name` and an acceptor that shows it.
fn certificate(name: &str) -> (String, TlsAcceptor) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "a test");
    let certificate = params.self_signed(&key).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        )
        .unwrap();
    (certificate.pem(), TlsAcceptor::from(Arc::new(config)))
}

#[tokio::test]
async fn over_tls_to_a_server_that_proves_itself() {
    let (pem, acceptor) = certificate("localhost");
    let dir = tempfile::tempdir().unwrap();
    let ca_file = dir.path().join("ca.pem");
    std::fs::write(&ca_file, pem).unwrap();
    let (listener, mut config) = listen().await;
    config.tls = Some(Tls { ca_file: Some(ca_file), server_name: Some("localhost".into()) });
    let mut bot = Bot::start(config);
    let tcp = listener.accept().await.unwrap().0;
    let mut server = Script::new(acceptor.accept(tcp).await.unwrap());
    server.welcome().await;
    connected(&mut bot).await;
    server.say(":ada!u@h PRIVMSG worker :hi").await;
    assert_eq!(bot.heard().await.text, "hi");
    bot.handle.say("ada", "hello").await.unwrap();
    server.hears("PRIVMSG ada hello").await;
    let handle = bot.handle.clone();
    let quitting = tokio::spawn(async move { handle.quit("bye").await });
    server.hears("QUIT bye").await;
    assert!(!quitting.is_finished());
    drop(server);
    quitting.await.unwrap();
}

#[tokio::test]
async fn a_server_that_proves_to_be_another_gets_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let ca_file = dir.path().join("ca.pem");
    for (shown, trusted, wanted) in [
        ("other.example", None, "localhost"),
        ("localhost", Some(certificate("localhost").0), "localhost"),
    ] {
        let (pem, acceptor) = certificate(shown);
        std::fs::write(&ca_file, trusted.unwrap_or(pem)).unwrap();
        let (listener, mut config) = listen().await;
        let server_name = Some(wanted.to_owned());
        config.tls = Some(Tls { ca_file: Some(ca_file.clone()), server_name });
        config.password = Some(Secret::new("hunter2"));
        let mut bot = Bot::start(config);
        let tcp = listener.accept().await.unwrap().0;
        let (accepted, reason) = tokio::join!(acceptor.accept(tcp), lost(&mut bot));
        assert!(reason.contains("certificate"), "{reason}");
        if let Ok(tls) = accepted {
            assert_eq!(Script::new(tls).stream.read_line(&mut String::new()).await.unwrap_or(0), 0);
        }
    }
}

#[tokio::test]
async fn certificates_that_cannot_be_read_are_said_to_be() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca.pem");
    let mut config = config(1, "worker");
    config.tls = Some(Tls { ca_file: Some(path.clone()), server_name: None });
    assert!(matches!(Client::spawn(config.clone()), Err(Error::File(_))));
    std::fs::write(&path, "nothing").unwrap();
    assert!(matches!(Client::spawn(config), Err(Error::Config { setting: "ca_file", .. })));
}

fn with_account(mut config: Config) -> Config {
    config.sasl = Some(Sasl { account: "bot".into(), password: Secret::new("hunter2") });
    config
}

#[tokio::test]
async fn it_logs_in_before_anything_else() {
    let (listener, config) = listen().await;
    let mut bot = Bot::start(with_account(config));
    let mut server = Script::new(listener.accept().await.unwrap().0);
    server.hears("CAP LS 302").await;
    server.say(":s CAP * LS * :account-tag server-time echo-message").await;
    server.say(":s CAP * LS :message-tags sasl=EXTERNAL,PLAIN").await;
    server.hears("CAP REQ :account-tag server-time message-tags sasl").await;
    server.say(":s CAP * ACK :account-tag server-time message-tags sasl").await;
    server.hears("AUTHENTICATE PLAIN").await;
    server.say("AUTHENTICATE +").await;
    // printf 'bot\0bot\0hunter2' | base64
    server.hears("AUTHENTICATE Ym90AGJvdABodW50ZXIy").await;
    server.say(":s 900 worker worker!u@h bot :You are now logged in as bot").await;
    server.say(":s 903 worker :SASL authentication successful").await;
    server.hears("CAP END").await;
    server.say(":s 001 worker :Welcome").await;
    server.say(":s 005 worker CHANTYPES=# BOT=b :are supported").await;
    server.say(":s 422 worker :no MOTD").await;
    server.hears("MODE worker +b").await;
    server.hears("JOIN #agents").await;
    connected(&mut bot).await;
    server.say("@time=2026-01-02T03:04:05.678Z;account=ada :a!u@h PRIVMSG worker :hi").await;
    let chat = bot.heard().await;
    assert_eq!(chat.account.as_deref(), Some("ada"));
    bot.handle.typing("ada", Typing::Active).await.unwrap();
    bot.handle.typing("ada", Typing::Active).await.unwrap();
    bot.handle.typing("ada", Typing::Done).await.unwrap();
    assert_eq!(server.next().await, "@+typing=active TAGMSG ada");
    assert_eq!(server.next().await, "@+typing=done TAGMSG ada");
}

#[tokio::test]
async fn a_refused_login_is_final() {
    let (listener, config) = listen().await;
    let mut bot = Bot::start(with_account(config));
    let mut server = Script::new(listener.accept().await.unwrap().0);
    server.say(":s CAP * LS :sasl").await;
    server.say(":s CAP * ACK :sasl").await;
    server.say("AUTHENTICATE +").await;
    server.say(":s 904 worker :SASL authentication failed").await;
    let reason = bot.until("the failure", |event| match event {
        Event::Failed { reason } => Some(reason),
        _ => None,
    });
    let reason = reason.await;
    assert!(reason.contains("authentication failed") && !reason.contains("hunter2"), "{reason}");
    bot.ended().await;
    assert!(matches!(bot.handle.join("#a").await, Err(Error::Stopped)));
}

#[tokio::test]
async fn a_server_without_the_login_is_tried_again() {
    let (listener, config) = listen().await;
    let mut bot = Bot::start(with_account(config));
    for _ in 0..2 {
        let mut server = Script::new(listener.accept().await.unwrap().0);
        server.say(":s CAP * LS :multi-prefix").await;
        server.hears("CAP REQ multi-prefix").await;
        server.say(":s CAP * ACK :multi-prefix").await;
        assert!(lost(&mut bot).await.contains("SASL"));
    }
}

#[tokio::test]
async fn nonsense_of_a_server_does_no_harm() {
    let (listener, config) = listen().await;
    let mut bot = Bot::start(config);
    let mut server = Script::new(listener.accept().await.unwrap().0);
    server.welcome().await;
    let endless = vec![b'x'; 200_000];
    server.bytes(&endless).await;
    server.bytes(b"\r\n\r\n\n:\r\n@\r\n: \0\r\n\xff\xfe\r\n:s 005\r\n:s 353\r\nMODE\r\n").await;
    server.bytes(b":a PRIVMSG worker :caf\xe9 \x01\xf0\r\n").await;
    assert_eq!(bot.heard().await.text, "caf\u{fffd} \u{fffd}");
    server.say("PING :still there").await;
    server.hears("PONG :still there").await;
}

#[tokio::test]
async fn a_server_that_floods_while_nobody_listens_is_held_up() {
    let (listener, config) = listen().await;
    let mut bot = Bot::start(config);
    let mut server = Script::new(listener.accept().await.unwrap().0);
    server.welcome().await;
    const COUNT: usize = 20_000;
    let flood = tokio::spawn(async move {
        for n in 0..COUNT {
            server.say(&format!(":ada!u@h PRIVMSG worker :{n} {}", "x".repeat(400))).await;
        }
        server
    });
    for n in 0..COUNT {
        let chat = bot.heard().await;
        assert!(chat.text.starts_with(&format!("{n} ")), "{n}: {}", chat.text);
    }
    let mut server = flood.await.unwrap();
    bot.handle.say("ada", "all heard").await.unwrap();
    server.hears("PRIVMSG ada :all heard").await;
}

#[tokio::test]
async fn a_server_that_does_not_read_is_left() {
    let (listener, mut config) = listen().await;
    config.rate = Rate { burst: 1, interval: Duration::ZERO };
    let mut bot = Bot::start(config);
    let mut server = Script::new(listener.accept().await.unwrap().0);
    server.welcome().await;
    // Questions without end, and the answers are not read.
    let flood = tokio::spawn(async move {
        let pings = format!("PING :{}\r\n", "x".repeat(400)).repeat(100);
        while server.stream.get_mut().write_all(pings.as_bytes()).await.is_ok() {}
    });
    let reason = lost(&mut bot).await;
    assert!(reason.contains("does not read"), "{reason}");
    flood.await.unwrap();
}

#[tokio::test]
async fn quitting_ends_though_the_server_does_not_care() {
    let (listener, mut config) = listen().await;
    config.timing.quit = Duration::from_millis(50);
    let mut bot = Bot::start(config);
    let mut server = Script::new(listener.accept().await.unwrap().0);
    server.welcome().await;
    connected(&mut bot).await;
    timeout(LIMIT, bot.handle.quit("bye")).await.unwrap();
    bot.ended().await;
    server.hears("QUIT bye").await;
}

#[tokio::test]
async fn quitting_without_a_connection_ends_at_once() {
    let (listener, mut config) = listen().await;
    drop(listener);
    config.timing.retry_first = Duration::from_secs(1000);
    config.timing.retry_max = Duration::from_secs(1000);
    let mut bot = Bot::start(config);
    lost(&mut bot).await;
    timeout(LIMIT, bot.handle.quit("bye")).await.unwrap();
    bot.ended().await;
}

#[tokio::test(start_paused = true)]
async fn retries_become_rarer() {
    let (listener, mut config) = listen().await;
    drop(listener);
    config.timing = fireclaw_irc::client::Timing::default();
    let mut bot = Bot::start(config);
    let mut waits = Vec::new();
    while waits.len() < 14 {
        if let Some(Event::Disconnected { retry_in, .. }) = bot.events.recv().await {
            waits.push(retry_in);
        }
    }
    assert!(waits[0] <= Duration::from_millis(750), "{waits:?}");
    assert!(waits[13] >= Duration::from_secs(150), "{waits:?}");
    assert!(waits.iter().all(|wait| *wait <= Duration::from_secs(300)), "{waits:?}");
}

#[tokio::test]
async fn operators_are_answered_where_only_they_hear_it() {
    let (listener, config) = listen().await;
    let mut bot = Bot::start(config);
    let mut server = Script::new(listener.accept().await.unwrap().0);
    server.hears("USER fireclaw 0 * worker").await;
    server.say(":s 001 worker :Welcome").await;
    server.say(":s 005 worker CHANTYPES=# STATUSMSG=@+ :are supported").await;
    server.say(":s 376 worker :End of MOTD").await;
    server.hears("JOIN #agents").await;
    server.say(":ada!u@h PRIVMSG @#agents :worker: secret?").await;
    let chat = bot.heard().await;
    assert_eq!((chat.target.as_str(), chat.reply_to.as_str()), ("#agents", "@#agents"));
    bot.handle.say(&chat.reply_to, "a secret").await.unwrap();
    server.hears("PRIVMSG @#agents :a secret").await;
    // Signs that the server does not know are no way around what a target is.
    for target in ["~#agents", "@ada", "@#a,#b", "@"] {
        assert!(matches!(bot.handle.say(target, "x").await, Err(Error::Name { .. })), "{target}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_refuses_is_tried_ever_more_rarely_and_told_of_once() {
    let (listener, mut config) = listen().await;
    config.timing = fireclaw_irc::client::Timing::default();
    let mut bot = Bot::start(config);
    let mut times = Vec::new();
    for n in 0..9 {
        let mut server = Script::new(listener.accept().await.unwrap().0);
        times.push(tokio::time::Instant::now());
        let why = if n == 8 { "K-Lined" } else { "Trying to reconnect too fast." };
        server.say(&format!("ERROR :Closing link: {why}")).await;
        while !server.next().await.is_empty() {}
    }
    let waits: Vec<_> = times.windows(2).map(|two| (two[1] - two[0]).as_secs()).collect();
    assert!(waits[0] >= 60 && waits[7] >= 1800, "{waits:?}");
    assert!(waits.iter().all(|wait| *wait <= 3700), "{waits:?}");
    let mut told = Vec::new();
    while told.len() < 2 {
        match bot.events.recv().await.unwrap() {
            Event::Held { reason, .. } => told.push(reason),
            other => panic!("{other:?}"),
        }
    }
    assert!(told[0].contains("too fast") && told[1].contains("K-Lined"), "{told:?}");
}
