//! The client's task: socket, clock and owner around the session.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot, watch};

use super::config::Config;
use super::connect::{Prover, Stream, open};
use super::event::{Event, Typing};
use super::handle::{Command, Status};
use super::lines::LineBuffer;
use super::outbox::{Lane, MIN_BUDGET, Outbox, Verb};
use super::paste::Paste;
use super::rate::Backoff;
use super::session::{Action, Actions, Session};
use crate::message::{LINE_LEN, Line, Message};
use crate::names;
use crate::text::lines;
use crate::{Error, Result};

/// Events that wait for the owner before the server is no longer read. It then
/// holds up the server, and in the end loses the connection, but no event.
const MAX_EVENTS: usize = 1024;

/// Lines on their way to a server that takes its time, before it is given up.
const MAX_UNSENT: usize = 256;

/// When to look again whether a server that takes its time has taken some.
const SLOW_SERVER: Duration = Duration::from_millis(50);

/// The least between two signs of typing (IRCv3 `+typing`).
const TYPING_PAUSE: Duration = Duration::from_secs(3);

/// The longest reason of a QUIT, in bytes: ngircd cuts at 127.
const MAX_REASON: usize = 120;

/// Why a connection or the wait for one is over.
#[derive(Debug)]
enum Disconnect {
    /// Broken, refused or timed out: try again.
    Lost(String),
    /// The server does not want us now: try again much later.
    Held(String),
    /// The server will never take us.
    Failed(String),
    /// The owner wants no more.
    Stopped,
}

pub(super) struct Driver {
    config: Arc<Config>,
    prover: Option<Prover>,
    session: Session,
    outbox: Outbox,
    commands: mpsc::Receiver<Command>,
    events: mpsc::Sender<Event>,
    pending: VecDeque<Event>,
    status: watch::Sender<Status>,
    typed: Option<(String, Instant)>,
    /// Whether a server let us in since it last refused us.
    was_in: bool,
    /// Which of a server's addresses is tried first: another each time, should one of them
    /// take connections and nothing more.
    address: usize,
    paste: Paste,
    /// Who waits for the end.
    quitting: Vec<oneshot::Sender<()>>,
}

/// The wall clock does not matter here; this one can be paused in tests.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl Driver {
    pub fn new(
        config: Arc<Config>,
        prover: Option<Prover>,
        commands: mpsc::Receiver<Command>,
        events: mpsc::Sender<Event>,
    ) -> (Self, watch::Receiver<Status>) {
        let session = Session::new(Arc::clone(&config), now());
        let outbox = Outbox::new(config.rate, now());
        let (status, watching) = watch::channel(status_of(&session));
        let driver = Self {
            config,
            prover,
            session,
            outbox,
            commands,
            events,
            pending: VecDeque::new(),
            status,
            typed: None,
            was_in: false,
            address: 0,
            paste: Paste::default(),
            quitting: Vec::new(),
        };
        (driver, watching)
    }

    /// Keeps a connection until the owner quits or the server refuses for good.
    pub async fn run(mut self) {
        let (mut backoff, mut refused) = (Backoff::default(), Backoff::default());
        // Why we were refused last, as the owner was told.
        let mut told = None;
        let failed = loop {
            match self.once(&mut backoff).await {
                Disconnect::Stopped => break None,
                Disconnect::Failed(reason) => break Some(reason),
                Disconnect::Lost(reason) => {
                    let timing = &self.config.timing;
                    let wait = backoff.next(timing.retry_first, timing.retry_max, random());
                    self.pending.push_back(Event::Disconnected { reason, retry_in: wait });
                    if self.meanwhile(tokio::time::sleep(wait)).await.is_none() {
                        break None;
                    }
                }
                Disconnect::Held(reason) => {
                    if std::mem::take(&mut self.was_in) {
                        (refused, told) = (Backoff::default(), None);
                    }
                    let timing = &self.config.timing;
                    let wait = refused.next(timing.refused_first, timing.refused_max, random());
                    if told.as_ref() != Some(&reason) {
                        told = Some(reason.clone());
                        self.pending.push_back(Event::Held { reason, retry_in: wait });
                    }
                    if self.meanwhile(tokio::time::sleep(wait)).await.is_none() {
                        break None;
                    }
                }
            }
        };
        if let Some(reason) = failed {
            self.pending.push_back(Event::Failed { reason });
            // Nothing can be asked any more, but what happened is still told.
            self.commands.close();
            while let Some(event) = self.pending.pop_front() {
                if self.events.send(event).await.is_err() {
                    break;
                }
            }
        }
        // Dropping what is left answers those who wait for the end.
    }

    /// Connects once and stays for as long as it lasts.
    async fn once(&mut self, backoff: &mut Backoff) -> Disconnect {
        let opening = open(Arc::clone(&self.config), self.prover.clone(), self.address);
        self.address = self.address.wrapping_add(1);
        let stream = match self.meanwhile(opening).await {
            None => return Disconnect::Stopped,
            Some(Err(reason)) => return Disconnect::Lost(reason),
            Some(Ok(stream)) => stream,
        };
        let end = self.converse(stream).await;
        self.pending.extend(self.paste.take());
        self.was_in |= self.session.is_ready();
        let stood = self.session.ready_since().map(|since| now() - since);
        if stood.is_some_and(|stood| stood >= self.config.timing.stable) {
            backoff.reset();
        }
        self.session.disconnected(now());
        self.publish();
        end
    }

    /// Waits for something while there is no connection, and serves the owner
    /// meanwhile; `None` if he stops us.
    async fn meanwhile<F: Future>(&mut self, something: F) -> Option<F::Output> {
        let mut something = pin!(something);
        let events = self.events.clone();
        loop {
            tokio::select! {
                done = &mut something => return Some(done),
                command = self.commands.recv() => match command {
                    None => return None,
                    Some(Command::Quit { .. }) => return None,
                    Some(command) => drop(self.obey(command)),
                },
                permit = events.reserve(), if !self.pending.is_empty() => {
                    deliver(permit, &mut self.pending);
                }
                () = events.closed() => return None,
            }
        }
    }

    /// The life of one connection.
    async fn converse(&mut self, stream: Box<dyn Stream>) -> Disconnect {
        let (mut reader, writer) = tokio::io::split(stream);
        let (wire, unsent) = mpsc::channel(MAX_UNSENT);
        let mut wire = Some(wire);
        let mut writing = pin!(write_lines(writer, unsent));
        let mut wrote = false;
        let mut buffer = Vec::with_capacity(16 * 1024);
        let mut incoming = LineBuffer::default();
        let mut quit_by = None;
        let events = self.events.clone();
        let actions = self.session.connected(now());
        if let Some(end) = self.act(actions, &wire) {
            return end;
        }
        loop {
            let chat = match self.chat(&wire) {
                Ok(next) => next,
                Err(end) => return end,
            };
            match self.outbox.dropped() {
                0 => {}
                lines => self.pending.push_back(Event::Dropped { lines }),
            }
            self.pending.extend(self.paste.due(now()));
            self.publish();
            buffer.clear();
            let deadline = self.session.deadline();
            let next =
                [chat, self.paste.until()].into_iter().flatten().fold(deadline, Instant::min);
            let deadline = quit_by.unwrap_or(next);
            let leaving = tokio::select! {
                read = reader.read_buf(&mut buffer), if self.pending.len() < MAX_EVENTS => {
                    match read {
                        Ok(1..) => {}
                        _ if quit_by.is_some() => return Disconnect::Stopped,
                        Ok(0) => return Disconnect::Lost("the server closed the connection".into()),
                        Err(e) => return Disconnect::Lost(format!("the connection broke: {e}")),
                    }
                    self.session.heard(now());
                    if let Some(end) = self.take(&buffer, &mut incoming, &wire) {
                        return if quit_by.is_some() { Disconnect::Stopped } else { end };
                    }
                    None
                }
                done = &mut writing, if !wrote => {
                    wrote = true;
                    if let Err(e) = done && quit_by.is_none() {
                        return Disconnect::Lost(format!("the connection broke: {e}"));
                    }
                    None
                }
                command = self.commands.recv(), if quit_by.is_none() => match command {
                    None => Some(String::new()),
                    Some(Command::Quit { reason, reply }) => {
                        self.quitting.push(reply);
                        Some(reason)
                    }
                    Some(command) => {
                        let actions = self.obey(command);
                        if let Some(end) = self.act(actions, &wire) {
                            return end;
                        }
                        None
                    }
                },
                permit = events.reserve(), if !self.pending.is_empty() => {
                    deliver(permit, &mut self.pending);
                    None
                }
                () = events.closed(), if quit_by.is_none() => Some(String::new()),
                () = tokio::time::sleep_until(deadline.into()) => {
                    if quit_by.is_some() {
                        return Disconnect::Stopped;
                    }
                    let actions = self.session.on_tick(now());
                    if let Some(end) = self.act(actions, &wire) {
                        return end;
                    }
                    None
                }
            };
            if let Some(reason) = leaving {
                let reason = lines(&reason, MAX_REASON, self.config.formatting);
                let line = Line::new("QUIT", &[reason.first().map_or("", String::as_str)]);
                if let Some(end) = line.ok().and_then(|line| send(&wire, line)) {
                    return end;
                }
                // Nothing comes after it: the writer ends when it is out.
                wire = None;
                quit_by = Some(now() + self.config.timing.quit);
            }
        }
    }

    /// Sends what may be said now, and says when there is more to be sent.
    fn chat(
        &mut self,
        wire: &Option<mpsc::Sender<Line>>,
    ) -> std::result::Result<Option<Instant>, Disconnect> {
        let Some(room) = wire.as_ref().filter(|_| self.session.is_ready()) else { return Ok(None) };
        // The other half is for what the protocol asks of us.
        while room.capacity() > MAX_UNSENT / 2 {
            let Some(line) = self.outbox.pop(&self.session.relay(), now()) else {
                return Ok(self.outbox.next(now()));
            };
            if let Some(end) = send(wire, line) {
                return Err(end);
            }
        }
        Ok(Some(now() + SLOW_SERVER))
    }

    /// Takes what the server sent; an end if it leads to one.
    fn take(
        &mut self,
        bytes: &[u8],
        incoming: &mut LineBuffer,
        wire: &Option<mpsc::Sender<Line>>,
    ) -> Option<Disconnect> {
        let mut end = None;
        incoming.feed(bytes, |line| {
            if end.is_none()
                && let Ok(message) = Message::parse(line)
            {
                let actions = self.session.on_message(&message, now(), SystemTime::now());
                end = self.act(actions, wire);
            }
        });
        end
    }

    fn act(&mut self, actions: Actions, wire: &Option<mpsc::Sender<Line>>) -> Option<Disconnect> {
        for action in actions {
            match action {
                Action::Send(line) => match send(wire, line) {
                    None => {}
                    end => return end,
                },
                Action::Emit(event) if self.config.joins_pastes => {
                    let us = (self.session.nick(), self.session.isupport().case.into());
                    self.pending.extend(self.paste.add(event, us, now()));
                }
                Action::Emit(event) => self.pending.push_back(event),
                Action::Close(reason) => return Some(Disconnect::Lost(reason)),
                Action::Hold(reason) => return Some(Disconnect::Held(reason)),
                Action::Fail(reason) => return Some(Disconnect::Failed(reason)),
            }
        }
        None
    }

    /// Does what the owner asks, but for quitting. An answer that nobody waits
    /// for any more is dropped.
    fn obey(&mut self, command: Command) -> Actions {
        let mut actions = Actions::default();
        let mut acted = |done: Result<Actions>| done.map(|new| actions = new);
        match command {
            Command::Say { lane, verb, target, text, sent, reply } => {
                let _ = reply.send(self.queue(lane, verb, &target, &text, sent));
            }
            Command::Join { channel, reply } => {
                let _ = reply.send(acted(self.session.join(&channel)));
            }
            Command::Part { channel, reason, reply } => {
                let _ = reply.send(acted(self.session.part(&channel, &reason)));
            }
            Command::Nick { nick, reply } => {
                let _ = reply.send(acted(self.session.set_nick(&nick)));
            }
            Command::Typing { target, typing, reply } => {
                let _ = reply.send(acted(self.typing(&target, typing)));
            }
            Command::Members { channel, reply } => {
                let _ = reply.send(self.session.members(&channel));
            }
            Command::Quit { reply, .. } => self.quitting.push(reply),
        }
        actions
    }

    fn queue(
        &mut self,
        lane: Lane,
        verb: Verb,
        target: &str,
        text: &str,
        sent: Option<oneshot::Sender<()>>,
    ) -> Result<usize> {
        let budget = self.session.relay().budget(verb.command(), target);
        if !self.is_target(target) || budget < MIN_BUDGET {
            return Err(Error::name("target", target));
        }
        let lines = lines(text, budget, self.config.formatting);
        let count = lines.len();
        self.outbox.push(lane, verb, target, lines, sent, now())?;
        Ok(count)
    }

    fn is_target(&self, target: &str) -> bool {
        let isupport = self.session.isupport();
        // Signs before a channel: for some of its members only.
        let bare = target.trim_start_matches(|c| isupport.status_message.contains(c));
        let target = if isupport.is_channel(bare) { bare } else { target };
        match isupport.is_channel(target) {
            true => names::is_channel(target, &isupport.channel_types, isupport.channel_len),
            false => names::is_recipient(target),
        }
    }

    fn typing(&mut self, target: &str, typing: Typing) -> Result<Actions> {
        if !self.is_target(target) {
            return Err(Error::name("target", target));
        }
        let recent = self.typed.as_ref().is_some_and(|(to, when)| {
            to == target && now().saturating_duration_since(*when) < TYPING_PAUSE
        });
        let Some(line) = self.session.typing(target, typing) else { return Ok(Actions::default()) };
        if typing == Typing::Active && recent || !self.outbox.spare(now()) {
            return Ok(Actions::default());
        }
        self.typed = (typing == Typing::Active).then(|| (target.to_owned(), now()));
        Ok(Actions::one(line))
    }

    fn publish(&self) {
        let status = status_of(&self.session);
        self.status.send_if_modified(|old| {
            let changed = *old != status;
            *old = status;
            changed
        });
    }
}

fn status_of(session: &Session) -> Status {
    Status {
        connected: session.is_ready(),
        nick: session.nick().to_owned(),
        case: session.isupport().case,
        relay: session.relay(),
    }
}

fn send(wire: &Option<mpsc::Sender<Line>>, line: Line) -> Option<Disconnect> {
    let sent = wire.as_ref().map(|wire| wire.try_send(line));
    let full = matches!(sent, Some(Err(mpsc::error::TrySendError::Full(_))));
    full.then(|| Disconnect::Lost("the server does not read what we send".into()))
}

fn deliver(
    permit: std::result::Result<mpsc::Permit<'_, Event>, mpsc::error::SendError<()>>,
    pending: &mut VecDeque<Event>,
) {
    match (permit, pending.pop_front()) {
        (Ok(permit), Some(event)) => permit.send(event),
        // Nobody listens; `closed` says so.
        _ => pending.clear(),
    }
}

/// Writes line by line until there are no more.
async fn write_lines(
    mut writer: impl AsyncWrite + Unpin,
    mut unsent: mpsc::Receiver<Line>,
) -> std::io::Result<()> {
    let mut bytes = Vec::with_capacity(2 * LINE_LEN);
    while let Some(line) = unsent.recv().await {
        bytes.clear();
        bytes.extend_from_slice(line.as_str().as_bytes());
        bytes.extend_from_slice(b"\r\n");
        writer.write_all(&bytes).await?;
        writer.flush().await?;
    }
    Ok(())
}

/// Any number; without the kernel's randomness the middle.
fn random() -> u32 {
    let mut bytes = [0; 4];
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
        Ok(4) => u32::from_ne_bytes(bytes),
        _ => u32::MAX / 2,
    }
}
