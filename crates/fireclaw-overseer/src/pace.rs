//! How fast one person may have the overseer speak: its voice is everybody's.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Commands that an owner may give at once, and how long until there may be another.
const OWNER: (u32, Duration) = (60, Duration::from_millis(250));

/// The same for anybody else, who can only ask.
const OTHER: (u32, Duration) = (5, Duration::from_secs(3));

/// How many people are kept in mind; those who were quiet longest go first.
const MOST: usize = 1024;

/// Whether a command is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It is.
    Yes,
    /// It is not, and that has yet to be said.
    No,
    /// It is not, and that was said.
    Told,
}

/// Who has asked how much.
#[derive(Debug, Default)]
pub struct Pace {
    /// By nick: when all that was taken will be over, and whether a refusal was told.
    people: HashMap<String, (Instant, bool)>,
}

impl Pace {
    /// Takes a command of somebody, if not too many came before.
    pub fn takes(&mut self, who: &str, is_owner: bool, now: Instant) -> Taken {
        let (burst, each) = if is_owner { OWNER } else { OTHER };
        if self.people.len() >= MOST && !self.people.contains_key(who) {
            self.people.retain(|_, (until, _)| *until > now);
            if self.people.len() >= MOST {
                // Nobody's crowd turns an owner away.
                return if is_owner { Taken::Yes } else { Taken::Told };
            }
        }
        let (until, told) = self.people.entry(who.to_owned()).or_insert((now, false));
        let next = (*until).max(now) + each;
        if next > now + each * burst {
            return if std::mem::replace(told, true) { Taken::Told } else { Taken::No };
        }
        (*until, *told) = (next, false);
        Taken::Yes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_refused_once_aloud_and_harms_nobody_else() {
        let now = Instant::now();
        let mut pace = Pace::default();
        let mut asks = |who: &str, later| pace.takes(who, false, now + Duration::from_secs(later));
        for _ in 0..OTHER.0 {
            assert_eq!(asks("mallory", 0), Taken::Yes);
        }
        assert_eq!(asks("mallory", 0), Taken::No);
        for _ in 0..600 {
            assert_eq!(asks("mallory", 1), Taken::Told);
        }
        assert_eq!(asks("ann", 1), Taken::Yes);
        assert_eq!(asks("mallory", 3), Taken::Yes);
        assert_eq!(asks("mallory", 3), Taken::No);
    }

    #[test]
    fn people_without_end_take_no_memory_without_end() {
        let now = Instant::now();
        let mut pace = Pace::default();
        for n in 0..3 * MOST {
            pace.takes(&n.to_string(), false, now);
        }
        assert_eq!(pace.people.len(), MOST);
        assert_eq!(pace.takes("bob", false, now), Taken::Told);
        assert_eq!(pace.takes("ann", true, now), Taken::Yes);
        let later = now + OTHER.1 * 2;
        assert_eq!(pace.takes("ann", true, later), Taken::Yes);
    }
}
