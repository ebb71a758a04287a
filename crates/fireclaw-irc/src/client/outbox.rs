//! What waits to be said.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::config::Rate;
use super::rate::Bucket;
use crate::message::Line;
use crate::text::{Relay, split};
use crate::{Error, Result};

/// The most ordinary lines that wait.
pub(super) const MAX_WAITING: usize = 512;

/// The most urgent lines that wait, in room of their own: questions to people and
/// answers to their commands, which are short and few.
pub(super) const MAX_URGENT: usize = 128;

/// The smallest budget, in bytes, that is worth a line. Only names of absurd
/// lengths leave less.
pub(super) const MIN_BUDGET: usize = 32;

/// How long a line may wait for a server to come back. An answer later than
/// that is about something nobody remembers.
const MAX_AGE: Duration = Duration::from_secs(300);

/// PRIVMSG or NOTICE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Say,
    Notice,
}

impl Verb {
    pub fn command(self) -> &'static str {
        match self {
            Self::Say => "PRIVMSG",
            Self::Notice => "NOTICE",
        }
    }
}

/// What goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// Before everything ordinary.
    Urgent,
    /// In its turn.
    Ordinary,
}

#[derive(Debug)]
struct Waiting {
    since: Instant,
    verb: Verb,
    target: String,
    text: String,
    /// Who wants to know when it was sent.
    sent: Option<oneshot::Sender<()>>,
}

/// Two bounded queues of chat with one rate.
#[derive(Debug)]
pub(super) struct Outbox {
    urgent: VecDeque<Waiting>,
    ordinary: VecDeque<Waiting>,
    bucket: Bucket,
    /// Lines that became too old and were not told of yet.
    dropped: usize,
}

impl Outbox {
    pub fn new(rate: Rate, now: Instant) -> Self {
        let bucket = Bucket::new(rate, now);
        Self { urgent: VecDeque::new(), ordinary: VecDeque::new(), bucket, dropped: 0 }
    }

    fn lane(&mut self, lane: Lane) -> (&mut VecDeque<Waiting>, usize) {
        match lane {
            Lane::Urgent => (&mut self.urgent, MAX_URGENT),
            Lane::Ordinary => (&mut self.ordinary, MAX_WAITING),
        }
    }

    /// Takes all lines, or none and says that there is no room. When the last of them was
    /// sent is told to `sent`, which is dropped if that will not be.
    pub fn push(
        &mut self,
        lane: Lane,
        verb: Verb,
        target: &str,
        lines: Vec<String>,
        sent: Option<oneshot::Sender<()>>,
        now: Instant,
    ) -> Result<()> {
        let (waiting, most) = self.lane(lane);
        if waiting.len() + lines.len() > most {
            return Err(Error::QueueFull { waiting: waiting.len() });
        }
        let target = target.to_owned();
        let (last, mut sent) = (lines.len(), sent);
        for (n, text) in (1..).zip(lines) {
            let sent = if n == last { sent.take() } else { None };
            waiting.push_back(Waiting { since: now, verb, target: target.clone(), text, sent });
        }
        Ok(())
    }

    /// The next line if one may go now. What no longer fits, because the server
    /// shows us by a longer name than when it was said, is cut again.
    pub fn pop(&mut self, relay: &Relay, now: Instant) -> Option<Line> {
        while self.next(now).is_some_and(|next| next <= now) {
            let lane = if self.urgent.is_empty() { Lane::Ordinary } else { Lane::Urgent };
            let waiting = self.lane(lane).0;
            let mut chat = waiting.pop_front()?;
            if now.saturating_duration_since(chat.since) > MAX_AGE {
                self.dropped += 1;
                continue;
            }
            let budget = relay.budget(chat.verb.command(), &chat.target).max(MIN_BUDGET);
            let pieces = split(&chat.text, budget);
            let (Some(first), rest) = (pieces.first().copied(), pieces.get(1..)) else { continue };
            let line = Line::compose(&[], chat.verb.command(), &[&chat.target, first], relay.line);
            let rest = rest.unwrap_or_default().join(" ");
            let mut sent = None;
            if rest.is_empty() {
                sent = chat.sent;
            } else {
                chat.text = rest;
                waiting.push_front(chat);
            }
            if let Ok(line) = line {
                self.bucket.take(now);
                // Who no longer waits for it need not know.
                let _ = sent.map(|sent| sent.send(()));
                return Some(line);
            }
        }
        None
    }

    /// How many lines became too old to be said since this was asked last.
    pub fn dropped(&mut self) -> usize {
        std::mem::take(&mut self.dropped)
    }

    fn is_empty(&self) -> bool {
        self.urgent.is_empty() && self.ordinary.is_empty()
    }

    /// Whether a line that is not worth waiting for may go now.
    pub fn spare(&mut self, now: Instant) -> bool {
        self.is_empty() && self.bucket.take(now)
    }

    /// When the next line may go, if one waits.
    pub fn next(&self, now: Instant) -> Option<Instant> {
        (!self.is_empty()).then(|| self.bucket.next(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn relay(nick: usize) -> Relay {
        Relay { nick, user: 4, host: 9, line: 512 }
    }

    #[test]
    fn all_or_none() {
        let now = Instant::now();
        let mut outbox = Outbox::new(Rate::default(), now);
        outbox
            .push(Lane::Ordinary, Verb::Say, "#a", vec!["x".into(); MAX_WAITING - 1], None, now)
            .unwrap();
        let full = outbox.push(Lane::Ordinary, Verb::Say, "#a", vec!["x".into(); 2], None, now);
        assert!(matches!(full, Err(Error::QueueFull { waiting: 511 })), "{full:?}");
        outbox.push(Lane::Ordinary, Verb::Say, "#a", vec!["x".into()], None, now).unwrap();
        assert_eq!(std::iter::from_fn(|| outbox.pop(&relay(6), now)).count(), 5);
        assert_eq!(outbox.next(now), Some(now + Duration::from_secs(2)));
    }

    #[test]
    fn old_lines_are_dropped() {
        let now = Instant::now();
        let mut outbox = Outbox::new(Rate::default(), now);
        outbox.push(Lane::Ordinary, Verb::Say, "#a", vec!["old".into()], None, now).unwrap();
        let later = now + MAX_AGE + Duration::from_secs(1);
        outbox.push(Lane::Ordinary, Verb::Notice, "#a", vec!["new".into()], None, later).unwrap();
        assert_eq!(outbox.pop(&relay(6), later).unwrap().as_str(), "NOTICE #a new");
        assert!(outbox.pop(&relay(6), later).is_none());
        assert_eq!((outbox.dropped(), outbox.dropped()), (1, 0));
    }

    #[test]
    fn it_is_told_when_the_last_line_was_sent_and_when_none_will_be() {
        let now = Instant::now();
        let mut outbox = Outbox::new(Rate::default(), now);
        let (tell, mut sent) = oneshot::channel();
        let lines = vec!["one".to_owned(), "two".to_owned()];
        outbox.push(Lane::Urgent, Verb::Say, "#a", lines, Some(tell), now).unwrap();
        outbox.pop(&relay(6), now).unwrap();
        assert_eq!(sent.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        outbox.pop(&relay(6), now).unwrap();
        assert_eq!(sent.try_recv(), Ok(()));
        let (tell, mut sent) = oneshot::channel();
        outbox.push(Lane::Urgent, Verb::Say, "#a", vec!["x".into()], Some(tell), now).unwrap();
        let later = now + MAX_AGE + Duration::from_secs(1);
        assert!(outbox.pop(&relay(6), later).is_none());
        assert_eq!(sent.try_recv(), Err(oneshot::error::TryRecvError::Closed));
    }

    #[test]
    fn an_urgent_line_passes_a_full_queue() {
        let now = Instant::now();
        let mut outbox = Outbox::new(Rate { burst: 1, interval: Duration::ZERO }, now);
        let full = vec!["notes".to_owned(); MAX_WAITING];
        outbox.push(Lane::Ordinary, Verb::Say, "#a", full, None, now).unwrap();
        for text in ["first", "second"] {
            outbox.push(Lane::Urgent, Verb::Say, "#a", vec![text.into()], None, now).unwrap();
        }
        let said: Vec<_> = std::iter::from_fn(|| outbox.pop(&relay(6), now))
            .map(|line| line.as_str().to_owned())
            .collect();
        assert_eq!(said[..3], ["PRIVMSG #a first", "PRIVMSG #a second", "PRIVMSG #a notes"]);
        assert_eq!(said.len(), MAX_WAITING + 2);
        // It is bounded too, all or none.
        let many = vec!["x".to_owned(); MAX_URGENT + 1];
        let full = outbox.push(Lane::Urgent, Verb::Say, "#a", many, None, now);
        assert!(matches!(full, Err(Error::QueueFull { waiting: 0 })), "{full:?}");
    }

    proptest! {
        #[test]
        fn every_line_fits_when_it_is_sent(text in "[a-zé ]{1,400}", nick in 1_usize..300) {
            let now = Instant::now();
            let mut outbox = Outbox::new(Rate { burst: 1, interval: Duration::ZERO }, now);
            outbox.push(Lane::Ordinary, Verb::Say, "#agents", vec![text.clone()], None, now).unwrap();
            let mut said = String::new();
            while let Some(line) = outbox.pop(&relay(nick), now) {
                let relayed = 1 + nick + 1 + 4 + 1 + 9 + 1 + line.as_str().len() + 1 + 2;
                prop_assert!(relayed <= 513, "{relayed}");
                said.push_str(line.as_str().trim_start_matches("PRIVMSG #agents").trim_start_matches([' ', ':']));
            }
            let letters = |t: &str| t.replace(' ', "");
            prop_assert_eq!(letters(&said), letters(&text));
        }
    }
}
