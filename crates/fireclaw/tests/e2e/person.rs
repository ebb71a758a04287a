//! Somebody on an IRC server, with a plain socket.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Instant;

use crate::harness::{timeout, wait_until};

/// Somebody with a plain socket.
pub struct Person {
    nick: String,
    socket: TcpStream,
    lines: Receiver<String>,
}

impl Person {
    /// Joins both channels of the server on this port.
    pub fn join(port: u16, nick: &str) -> Self {
        Self::join_with(port, nick, None)
    }

    /// The same with the server's password.
    pub fn join_with(port: u16, nick: &str, password: Option<&str>) -> Self {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (tell, lines) = channel();
        let mut reader = BufReader::new(socket.try_clone().unwrap());
        let mut pong = socket.try_clone().unwrap();
        thread::spawn(move || {
            let mut line = Vec::new();
            while matches!(reader.read_until(b'\n', &mut line), Ok(1..)) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                line.clear();
                if let Some(rest) = text.strip_prefix("PING") {
                    let _ = pong.write_all(format!("PONG{rest}\r\n").as_bytes());
                } else if tell.send(text).is_err() {
                    return;
                }
            }
        });
        if let Some(password) = password {
            write!(socket, "PASS {password}\r\n").unwrap();
        }
        write!(socket, "NICK {nick}\r\nUSER {nick} 0 * :{nick}\r\n").unwrap();
        let mut person = Self { nick: nick.to_owned(), socket, lines };
        // The end of the message of the day, or that there is none.
        person.until_any(&[" 376 ", " 422 "]);
        person.send("JOIN #control,#agents");
        person.until("366 ");
        person.until("366 ");
        person
    }

    /// Sends a line of IRC.
    pub fn send(&mut self, line: &str) {
        self.socket.write_all(format!("{line}\r\n").as_bytes()).unwrap();
    }

    /// Says something.
    pub fn say(&mut self, place: &str, text: &str) {
        self.send(&format!("PRIVMSG {place} :{text}"));
    }

    /// Gives a command in the control channel and waits for what must be answered.
    #[track_caller]
    pub fn command(&mut self, command: &str, answer: &str) -> String {
        self.say("#control", command);
        self.hears("overseer", "#control", answer)
    }

    /// Waits until somebody says something with these words, and gives all of it.
    #[track_caller]
    pub fn hears(&mut self, from: &str, place: &str, words: &str) -> String {
        let place = if place == "me" { self.nick.clone() } else { place.to_owned() };
        let (start, middle) = (format!(":{from}!"), format!(" PRIVMSG {place} :"));
        let mut seen = Vec::new();
        let deadline = Instant::now() + timeout();
        loop {
            let line = self.next(deadline, words, &seen);
            if line.starts_with(&start)
                && let Some((_, said)) = line.split_once(&middle)
                && said.contains(words)
            {
                return said.to_owned();
            }
            seen.push(line);
        }
    }

    /// Waits for a line of IRC with these words.
    #[track_caller]
    pub fn until(&mut self, words: &str) -> String {
        self.until_any(&[words])
    }

    /// The same with one of several words.
    #[track_caller]
    fn until_any(&mut self, words: &[&str]) -> String {
        self.all_until(words).pop().unwrap()
    }

    /// All lines until one with some of these words comes, and that.
    #[track_caller]
    pub fn all_until(&mut self, words: &[&str]) -> Vec<String> {
        let deadline = Instant::now() + timeout();
        let mut seen = Vec::new();
        loop {
            let line = self.next(deadline, &words.join(" or "), &seen);
            seen.push(line);
            if words.iter().any(|words| seen.last().unwrap().contains(words)) {
                return seen;
            }
        }
    }

    #[track_caller]
    fn next(&mut self, deadline: Instant, wanted: &str, seen: &[String]) -> String {
        match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => panic!("no {wanted:?} in {seen:#?}"),
            Err(RecvTimeoutError::Disconnected) => panic!("the server ended: {seen:#?}"),
        }
    }

    /// Waits until somebody is in a channel that this person is in.
    #[track_caller]
    pub fn sees(&mut self, channel: &str, nick: &str) {
        wait_until("somebody to join", || {
            self.send(&format!("NAMES {channel}"));
            let names = self.until(" 353 ");
            self.until(" 366 ");
            names.split([' ', ':', '@', '+']).any(|name| name == nick)
        });
    }

    /// Gives a command, and gives everything that comes until the answer is said, with it:
    /// what must not have been said is not in it.
    #[track_caller]
    pub fn quiet_until(&mut self, place: &str, text: &str, answer: &str) -> Vec<String> {
        self.say(place, text);
        let lines = self.all_until(&[&format!(" :{answer}")]);
        lines
            .into_iter()
            .filter(|line| line.contains(" PRIVMSG ") || line.contains(" NOTICE "))
            .collect()
    }

    /// All lines that have come so far.
    pub fn all(&mut self) -> Vec<String> {
        self.lines.try_iter().collect()
    }
}
