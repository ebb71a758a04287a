//! What waits to be said.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::config::Rate;
use super::rate::Bucket;
use crate::message::Line;
use crate::text::{Relay, split};
use crate::{Error, Result};

/// The most lines that wait.
pub(super) const MAX_WAITING: usize = 512;

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

#[derive(Debug)]
struct Waiting {
    since: Instant,
    verb: Verb,
    target: String,
    text: String,
}

/// A bounded queue of chat with a rate.
#[derive(Debug)]
pub(super) struct Outbox {
    waiting: VecDeque<Waiting>,
    bucket: Bucket,
}

impl Outbox {
    pub fn new(rate: Rate, now: Instant) -> Self {
        Self { waiting: VecDeque::new(), bucket: Bucket::new(rate, now) }
    }

    /// Takes all lines, or none and says that there is no room.
    pub fn push(
        &mut self,
        verb: Verb,
        target: &str,
        lines: Vec<String>,
        now: Instant,
    ) -> Result<()> {
        if self.waiting.len() + lines.len() > MAX_WAITING {
            return Err(Error::QueueFull { waiting: self.waiting.len() });
        }
        let target = target.to_owned();
        let wait = |text| Waiting { since: now, verb, target: target.clone(), text };
        self.waiting.extend(lines.into_iter().map(wait));
        Ok(())
    }

    /// The next line if one may go now. What no longer fits, because the server
    /// shows us by a longer name than when it was said, is cut again.
    pub fn pop(&mut self, relay: &Relay, now: Instant) -> Option<Line> {
        while self.next(now).is_some_and(|next| next <= now) {
            let mut chat = self.waiting.pop_front()?;
            if now.saturating_duration_since(chat.since) > MAX_AGE {
                continue;
            }
            let budget = relay.budget(chat.verb.command(), &chat.target).max(MIN_BUDGET);
            let pieces = split(&chat.text, budget);
            let (Some(first), rest) = (pieces.first().copied(), pieces.get(1..)) else { continue };
            let line = Line::compose(&[], chat.verb.command(), &[&chat.target, first], relay.line);
            let rest = rest.unwrap_or_default().join(" ");
            if !rest.is_empty() {
                chat.text = rest;
                self.waiting.push_front(chat);
            }
            if let Ok(line) = line {
                self.bucket.take(now);
                return Some(line);
            }
        }
        None
    }

    /// Whether a line that is not worth waiting for may go now.
    pub fn spare(&mut self, now: Instant) -> bool {
        self.waiting.is_empty() && self.bucket.take(now)
    }

    /// When the next line may go, if one waits.
    pub fn next(&self, now: Instant) -> Option<Instant> {
        (!self.waiting.is_empty()).then(|| self.bucket.next(now))
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
        outbox.push(Verb::Say, "#a", vec!["x".into(); MAX_WAITING - 1], now).unwrap();
        let full = outbox.push(Verb::Say, "#a", vec!["x".into(); 2], now);
        assert!(matches!(full, Err(Error::QueueFull { waiting: 511 })), "{full:?}");
        outbox.push(Verb::Say, "#a", vec!["x".into()], now).unwrap();
        assert_eq!(std::iter::from_fn(|| outbox.pop(&relay(6), now)).count(), 5);
        assert_eq!(outbox.next(now), Some(now + Duration::from_secs(2)));
    }

    #[test]
    fn old_lines_are_dropped() {
        let now = Instant::now();
        let mut outbox = Outbox::new(Rate::default(), now);
        outbox.push(Verb::Say, "#a", vec!["old".into()], now).unwrap();
        let later = now + MAX_AGE + Duration::from_secs(1);
        outbox.push(Verb::Notice, "#a", vec!["new".into()], later).unwrap();
        assert_eq!(outbox.pop(&relay(6), later).unwrap().as_str(), "NOTICE #a new");
        assert!(outbox.pop(&relay(6), later).is_none());
    }

    proptest! {
        #[test]
        fn every_line_fits_when_it_is_sent(text in "[a-zé ]{1,400}", nick in 1_usize..300) {
            let now = Instant::now();
            let mut outbox = Outbox::new(Rate { burst: 1, interval: Duration::ZERO }, now);
            outbox.push(Verb::Say, "#agents", vec![text.clone()], now).unwrap();
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
