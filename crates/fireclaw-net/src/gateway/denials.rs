//! What was refused: counts, and the last ones with their time.

use std::collections::{BTreeMap, VecDeque};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::Denial;

/// How many of the last are kept.
const LAST: usize = 64;
/// How many destinations are counted apart; more are counted together.
const MAX: usize = 512;

/// Everything that was refused.
#[derive(Debug, Default)]
pub(super) struct Denials {
    counts: BTreeMap<(String, Option<u16>, String), (u64, u64)>,
    last: VecDeque<Denial>,
    total: u64,
}

impl Denials {
    /// Counts one.
    pub fn add(&mut self, what: &str, port: Option<u16>, reason: &str) {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.total += 1;
        let mut key = (what.to_owned(), port, reason.to_owned());
        if self.counts.len() >= MAX && !self.counts.contains_key(&key) {
            key = ("other destinations".into(), None, reason.to_owned());
        }
        let (count, last) = self.counts.entry(key).or_default();
        *count += 1;
        *last = time;
        if self.last.len() == LAST {
            self.last.pop_front();
        }
        let (what, reason) = (what.to_owned(), reason.to_owned());
        self.last.push_back(Denial { time, what, port, reason, count: 1 });
    }

    /// How many there were.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The last ones, newest last.
    pub fn last(&self) -> Vec<Denial> {
        self.last.iter().cloned().collect()
    }

    /// All, counted.
    pub fn counts(&self) -> Vec<Denial> {
        let denial =
            |((what, port, reason), (count, time)): (&(String, _, String), &(u64, u64))| {
                let (what, reason) = (what.clone(), reason.clone());
                Denial { time: *time, what, port: *port, reason, count: *count }
            };
        self.counts.iter().map(denial).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_counted_and_the_last_are_kept() {
        let mut denials = Denials::default();
        for n in 0..2000 {
            denials.add(&format!("{n}.org"), Some(443), "not allowed");
            denials.add("a.org", None, "not allowed");
        }
        assert_eq!(denials.total(), 4000);
        assert_eq!(denials.last().len(), LAST);
        assert_eq!(denials.last().last().unwrap().what, "a.org");
        let counts = denials.counts();
        assert!(counts.len() <= MAX + 1);
        assert_eq!(counts.iter().map(|denial| denial.count).sum::<u64>(), 4000);
        let others = counts.iter().find(|denial| denial.what == "other destinations").unwrap();
        assert!(others.count > 1000);
    }
}
