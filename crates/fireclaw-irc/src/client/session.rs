//! The protocol without a socket: lines and moments in, actions out.
//!
//! Nothing here waits, and nothing a server sends makes it panic, grow without
//! bound, or send a line that is not valid.

mod batches;
mod caps;
mod channels;
mod chat;
mod isupport;
mod nick;
mod register;
mod sasl;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::config::Config;
use super::event::{Event, Member, Typing};
use super::rate::Bucket;
use crate::client::config::Rate;
use crate::message::{LINE_LEN, Line, Message, Source};
use crate::text::Relay;

pub(crate) use isupport::Isupport;

/// The longest reason given for leaving, in bytes: ngircd cuts at 127.
const MAX_REASON: usize = 120;

/// The most channels that one client is in or wants to be in.
const MAX_CHANNELS: usize = 256;

/// How long after the welcome a server without a message of the day may take.
const MOTD_WAIT: Duration = Duration::from_secs(10);

/// What servers write into an ERROR, in lower case, to who should not come again soon:
/// ngircd, InspIRCd, UnrealIRCd, Solanum, ircu.
const UNWANTED: [&str; 14] = [
    "bad password",
    "password mismatch",
    "invalid password",
    "access denied",
    "too fast",
    "throttle",
    "too many connections",
    "too many host connections",
    "too many user connections",
    "maximum connections",
    "-lined",
    "-line:",
    "banned",
    "not authorized",
];

/// What the driver is to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Send this now, before what is waiting.
    Send(Line),
    /// Tell the owner.
    Emit(Event),
    /// Close the connection and connect again later.
    Close(String),
    /// Close the connection and connect again much later: the server does not want us now,
    /// and likes us less the more often we come.
    Hold(String),
    /// Close the connection and stop.
    Fail(String),
}

/// What is to be done, in order.
#[derive(Debug, Default)]
pub(crate) struct Actions(Vec<Action>);

impl Actions {
    /// Only a line.
    pub fn one(line: Line) -> Self {
        Self(vec![Action::Send(line)])
    }

    /// A line to be sent. What does not form a line came from the server, such
    /// as a token longer than a line: it stays unanswered.
    fn send(&mut self, command: &str, params: &[&str]) {
        if let Ok(line) = Line::new(command, params) {
            self.0.push(Action::Send(line));
        }
    }

    fn emit(&mut self, event: Event) {
        self.0.push(Action::Emit(event));
    }

    fn close(&mut self, reason: impl Into<String>) {
        self.0.push(Action::Close(reason.into()));
    }

    fn hold(&mut self, reason: impl Into<String>) {
        self.0.push(Action::Hold(reason.into()));
    }

    fn fail(&mut self, reason: impl Into<String>) {
        self.0.push(Action::Fail(reason.into()));
    }
}

impl IntoIterator for Actions {
    type Item = Action;
    type IntoIter = std::vec::IntoIter<Action>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Until the welcome (`001`).
    Registering,
    /// Until the end of the message of the day, when all limits are known.
    Welcomed,
    /// Chatting.
    Ready,
}

/// The client's side of the protocol, over all its connections.
#[derive(Debug)]
pub(crate) struct Session {
    config: Arc<Config>,
    /// The nick to have.
    wanted_nick: String,
    /// The channels to be in.
    wanted: Vec<String>,
    /// Those that did not let us in, for when it is tried again.
    shut: Vec<channels::Shut>,
    link: Link,
}

/// What is known about the present connection.
#[derive(Debug)]
struct Link {
    phase: Phase,
    since: Instant,
    heard: Instant,
    /// When the server was asked for a sign of life and has not given one.
    asked: Option<Instant>,
    nick: String,
    /// Our own prefix as the server shows it.
    shown: Option<Source>,
    caps: caps::Caps,
    sasl: sasl::Progress,
    isupport: Isupport,
    bot_mode: Option<char>,
    regain: nick::Regain,
    channels: channels::Channels,
    batches: batches::Batches,
    ctcp: Bucket,
}

impl Link {
    fn new(nick: &str, now: Instant) -> Self {
        Self {
            phase: Phase::Registering,
            since: now,
            heard: now,
            asked: None,
            nick: nick.to_owned(),
            shown: None,
            caps: caps::Caps::default(),
            sasl: sasl::Progress::default(),
            isupport: Isupport::default(),
            bot_mode: None,
            regain: nick::Regain::default(),
            channels: channels::Channels::default(),
            batches: batches::Batches::default(),
            ctcp: Bucket::new(Rate { burst: 3, interval: Duration::from_secs(10) }, now),
        }
    }

    fn is_me(&self, nick: &str) -> bool {
        self.isupport.case.same(&self.nick, nick)
    }
}

impl Session {
    /// A session that is not connected.
    pub fn new(config: Arc<Config>, now: Instant) -> Self {
        let link = Link::new(&config.nick, now);
        let wanted_nick = config.nick.clone();
        let mut session = Self { config, wanted_nick, wanted: Vec::new(), shut: Vec::new(), link };
        for channel in session.config.channels.clone() {
            session.want(&channel);
        }
        session
    }

    /// A connection stands: registers with the server.
    pub fn connected(&mut self, now: Instant) -> Actions {
        self.link = Link::new(&self.wanted_nick, now);
        let mut out = Actions::default();
        self.register(&mut out);
        out
    }

    /// The connection is gone, and what was known about it.
    pub fn disconnected(&mut self, now: Instant) {
        self.link = Link::new(&self.wanted_nick, now);
    }

    /// The server sent something, be it valid or not.
    pub fn heard(&mut self, now: Instant) {
        self.link.heard = now;
        self.link.asked = None;
    }

    /// The server sent a message, received at `time` by our clock.
    pub fn on_message(&mut self, message: &Message, now: Instant, time: SystemTime) -> Actions {
        let mut out = Actions::default();
        self.learn_own_prefix(message);
        match message.command.as_str() {
            "PING" => out.send("PONG", &[message.param(0)]),
            "ERROR" => self.on_error(message, &mut out),
            "CAP" => self.on_cap(message, &mut out),
            "AUTHENTICATE" => self.on_authenticate(message, &mut out),
            "PRIVMSG" | "NOTICE" => self.on_chat(message, now, time, &mut out),
            "BATCH" => self.link.batches.on_batch(message),
            "JOIN" => self.on_join(message, &mut out),
            "PART" => self.on_part(message, &mut out),
            "KICK" => self.on_kick(message, &mut out),
            "QUIT" => self.on_quit(message, &mut out),
            "NICK" => self.on_nick(message, &mut out),
            "MODE" => self.on_mode(message, &mut out),
            "INVITE" => self.on_invite(message, &mut out),
            "ACCOUNT" => self.on_account(message),
            "CHGHOST" => self.on_chghost(message),
            numeric => {
                if let Ok(numeric @ 1..=999) = numeric.parse() {
                    self.on_numeric(numeric, message, now, &mut out);
                }
            }
        }
        out
    }

    fn on_numeric(&mut self, numeric: u16, message: &Message, now: Instant, out: &mut Actions) {
        match numeric {
            1 => self.on_welcome(message, now, out),
            4 => self.on_my_info(message),
            5 => {
                let inner = message.params.iter().skip(1);
                let count = inner.len().saturating_sub(1);
                inner.take(count).for_each(|token| self.link.isupport.set(token));
            }
            303 => self.on_ison(message, out),
            353 => self.on_names(message),
            366 => self.on_names_end(message, out),
            376 | 422 => self.on_ready(now, out),
            396 => self.on_host_shown(message),
            464 | 465 if self.link.phase == Phase::Registering => {
                out.hold(format!("the server refuses us: {}", words(message.trailing())));
            }
            431..=433 | 436 | 437 => self.on_nick_refused(numeric, message, now, out),
            730 => self.on_monitor(message, false, out),
            731 => self.on_monitor(message, true, out),
            900 | 902..=908 => self.on_sasl(numeric, message, out),
            405 | 471 | 473..=475 | 477 | 489 => self.on_shut(numeric, message, now, out),
            // Other errors, but those about commands that a server need not know.
            400..=599 if !matches!(numeric, 421 | 422 | 451 | 461 | 462) => {
                self.on_refused(numeric, message, out);
            }
            _ => {}
        }
    }

    /// `ERROR :words`, after which the server closes the connection.
    fn on_error(&self, message: &Message, out: &mut Actions) {
        let reason = words(message.trailing());
        // Servers have no numbers for these; ngircd says nothing else to a wrong password.
        let lower = reason.to_ascii_lowercase();
        let unwanted = UNWANTED.iter().any(|words| lower.contains(words));
        if unwanted && self.link.phase == Phase::Registering {
            out.hold(format!("the server refuses us: {reason}"));
        } else {
            out.close(reason);
        }
    }

    /// An error about a channel or a nick: `client target :words`.
    pub(super) fn on_refused(&self, numeric: u16, message: &Message, out: &mut Actions) {
        if self.link.phase == Phase::Ready && message.params.len() > 2 {
            let target = name(message.param(1));
            out.emit(Event::Refused { target, numeric, reason: words(message.trailing()) });
        }
    }

    fn on_ready(&mut self, now: Instant, out: &mut Actions) {
        if self.link.phase != Phase::Welcomed {
            return;
        }
        self.link.phase = Phase::Ready;
        out.emit(Event::Connected { nick: self.link.nick.clone() });
        let bot = self.link.isupport.bot.or(self.link.bot_mode).filter(|_| self.config.bot);
        if let Some(letter) = bot {
            out.send("MODE", &[&self.link.nick, &format!("+{letter}")]);
        }
        self.join_wanted(out);
        self.start_regain(now, out);
    }

    /// The next moment at which [`Session::on_tick`] has something to do.
    pub fn deadline(&self) -> Instant {
        let timing = &self.config.timing;
        let link = &self.link;
        let silence = match link.asked {
            Some(asked) => asked + timing.pong,
            None => link.heard + timing.idle,
        };
        match link.phase {
            Phase::Registering => link.since + timing.register,
            Phase::Welcomed => (link.since + MOTD_WAIT).min(silence),
            Phase::Ready => {
                let knock = self.shut.iter().map(|shut| shut.again).min();
                [link.regain.next, knock].into_iter().flatten().fold(silence, Instant::min)
            }
        }
    }

    /// Time went by.
    pub fn on_tick(&mut self, now: Instant) -> Actions {
        let mut out = Actions::default();
        let timing = self.config.timing;
        match self.link.phase {
            Phase::Registering if now >= self.link.since + timing.register => {
                out.close("the server did not welcome us in time");
                return out;
            }
            Phase::Registering => return out,
            Phase::Welcomed if now >= self.link.since + MOTD_WAIT => self.on_ready(now, &mut out),
            Phase::Welcomed => {}
            Phase::Ready => {
                self.tick_regain(now, &mut out);
                self.knock(now, &mut out);
            }
        }
        match self.link.asked {
            Some(asked) if now >= asked + timing.pong => {
                out.close(format!("the server was silent for {:?}", now - self.link.heard));
            }
            None if now >= self.link.heard + timing.idle => {
                self.link.asked = Some(now);
                out.send("PING", &["fireclaw"]);
            }
            _ => {}
        }
        out
    }

    /// Whether chat can be sent.
    pub fn is_ready(&self) -> bool {
        self.link.phase == Phase::Ready
    }

    /// When the present connection was made, if it came as far as chatting.
    pub fn ready_since(&self) -> Option<Instant> {
        self.is_ready().then_some(self.link.since)
    }

    /// The present nick.
    pub fn nick(&self) -> &str {
        &self.link.nick
    }

    /// What the server says about itself.
    pub fn isupport(&self) -> &Isupport {
        &self.link.isupport
    }

    /// What the server puts around our words.
    pub fn relay(&self) -> Relay {
        let assumed = Relay::assumed(&self.link.nick, &self.config.user);
        let line = self.link.isupport.line_len;
        match &self.link.shown {
            Some(shown) => {
                Relay { user: shown.user.len(), host: shown.host.len(), line, ..assumed }
            }
            None => Relay { line, ..assumed },
        }
    }

    /// Who is in a channel, if this client is.
    pub fn members(&self, channel: &str) -> Option<Vec<Member>> {
        self.link.channels.members(channel, &self.link.isupport)
    }

    /// The line that shows or hides that an answer is being made; none where the
    /// server does not pass it on.
    pub fn typing(&self, target: &str, typing: Typing) -> Option<Line> {
        let able = self.is_ready()
            && self.link.caps.has("message-tags")
            && !self.link.isupport.typing_denied;
        let value = match typing {
            Typing::Active => "active",
            Typing::Done => "done",
        };
        able.then(|| Line::compose(&[("+typing", value)], "TAGMSG", &[target], LINE_LEN).ok())?
    }
}

/// Words of a server or its users, without anything but text.
fn words(text: &str) -> String {
    crate::text::scrub(text, crate::text::Formatting::Remove)
}

/// The longest name that is shown, in characters: beyond all that servers give.
const MAX_NAME: usize = 200;

/// A source whose parts are safe to show.
fn clean(source: Source) -> Source {
    Source { nick: name(&source.nick), user: name(&source.user), host: name(&source.host) }
}

/// A name that decides about rights, safe to show. What is not text is replaced,
/// not removed, and what is cut off leaves a mark, so that no other name comes out.
fn name(name: &str) -> String {
    let safe = |c| if crate::text::is_unsafe(c) { '\u{fffd}' } else { c };
    let cut = name.chars().nth(MAX_NAME).map(|_| '\u{fffd}');
    name.chars().take(MAX_NAME).map(safe).chain(cut).collect()
}

#[cfg(test)]
mod tests;
