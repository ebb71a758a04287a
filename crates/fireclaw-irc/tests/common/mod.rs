//! The other sides: somebody with a plain socket, and an owner of a client.

// Each test program uses a part of it.
#![allow(dead_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use fireclaw_irc::client::{Chat, Client, Config, Event, Handle, Rate};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Nothing is waited for longer than this.
pub const LIMIT: Duration = Duration::from_secs(30);

/// A bot on a server of our own.
pub fn config(port: u16, nick: &str) -> Config {
    let mut config = Config::new("127.0.0.1", port, nick);
    config.channels = vec!["#agents".into()];
    config.rate = Rate::PRIVATE;
    config.timing.retry_first = Duration::from_millis(20);
    config.timing.retry_max = Duration::from_millis(100);
    config
}

/// A client and its events.
pub struct Bot {
    pub handle: Handle,
    pub events: mpsc::Receiver<Event>,
}

impl Bot {
    pub fn start(config: Config) -> Self {
        let (handle, events) = Client::spawn(config).unwrap();
        Self { handle, events }
    }

    /// A bot that is in `#agents`.
    pub async fn join(port: u16, nick: &str) -> Self {
        let mut bot = Self::start(config(port, nick));
        bot.in_channel().await;
        bot
    }

    pub async fn in_channel(&mut self) {
        self.until("the channel's members", |event| match event {
            Event::Members { channel, .. } if channel == "#agents" => Some(()),
            _ => None,
        })
        .await;
    }

    /// Reads events until one is what is waited for.
    pub async fn until<T>(&mut self, what: &str, mut wanted: impl FnMut(Event) -> Option<T>) -> T {
        let found = timeout(LIMIT, async {
            let mut seen = Vec::new();
            loop {
                let Some(event) = self.events.recv().await else {
                    panic!("no more events, but {what} awaited after {seen:?}");
                };
                seen.push(format!("{event:?}"));
                if let Some(found) = wanted(event) {
                    return found;
                }
            }
        });
        found.await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
    }

    pub async fn heard(&mut self) -> Chat {
        self.until("a message", |event| match event {
            Event::Message(chat) => Some(chat),
            _ => None,
        })
        .await
    }

    /// Waits for the end of the events.
    pub async fn ended(&mut self) {
        let end = async { while self.events.recv().await.is_some() {} };
        timeout(LIMIT, end).await.expect("the client did not stop");
    }
}

/// Somebody with a socket and no manners.
pub struct Raw {
    stream: BufReader<TcpStream>,
    pub nick: String,
}

impl Raw {
    /// Registers as `nick` and joins `#agents`.
    pub async fn join(port: u16, nick: &str) -> Self {
        let mut raw = Self::register(port, nick).await;
        raw.send("JOIN #agents").await;
        raw.line("the end of names", |line| line.contains(" 366 ")).await;
        raw
    }

    pub async fn register(port: u16, nick: &str) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut raw = Self { stream: BufReader::new(stream), nick: nick.to_owned() };
        raw.send(&format!("NICK {nick}\r\nUSER {nick} 0 * :{nick}")).await;
        raw.line("the welcome", |line| line.contains(" 376 ") || line.contains(" 422 ")).await;
        raw
    }

    pub async fn send(&mut self, line: &str) {
        let line = format!("{line}\r\n");
        self.stream.get_mut().write_all(line.as_bytes()).await.unwrap();
    }

    /// The bytes of the next line, with CR and LF; none at the end.
    pub async fn bytes(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        timeout(LIMIT, self.stream.read_until(b'\n', &mut bytes))
            .await
            .expect("waited in vain for a line")
            .unwrap();
        if bytes.starts_with(b"PING ") {
            let pong = String::from_utf8_lossy(&bytes).trim_end().replacen("PING", "PONG", 1);
            self.send(&pong).await;
        }
        bytes
    }

    /// Reads lines until one is what is waited for; without CR and LF.
    pub async fn line(&mut self, what: &str, mut wanted: impl FnMut(&str) -> bool) -> String {
        let mut seen = Vec::new();
        loop {
            let bytes = self.bytes().await;
            assert!(!bytes.is_empty(), "no more lines, but {what} awaited after {seen:?}");
            let line = String::from_utf8_lossy(&bytes).trim_end_matches(['\r', '\n']).to_owned();
            if wanted(&line) {
                return line;
            }
            seen.push(line);
        }
    }

    /// What is said by others until `end` is said, each as the whole line.
    pub async fn said_until(&mut self, end: &str) -> Vec<Vec<u8>> {
        let mut said = Vec::new();
        loop {
            let bytes = self.bytes().await;
            assert!(!bytes.is_empty(), "the connection ended before {end:?}");
            let line = String::from_utf8(bytes.clone()).expect("UTF-8");
            let is_chat = line.contains(" PRIVMSG ") || line.contains(" NOTICE ");
            if is_chat && text_of(&line) == end {
                return said;
            }
            if is_chat {
                said.push(bytes);
            }
        }
    }
}

/// The text of a relayed line.
pub fn text_of(line: &str) -> &str {
    let body = line.trim_end_matches(['\r', '\n']);
    body[1..].split_once(" :").map_or("", |(_, text)| text)
}
