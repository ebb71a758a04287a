//! Which addresses the allowed names have: those of our resolver's answers, for as long as
//! they are valid.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// The most addresses that are kept; of more, those that end first go.
const MAX: usize = 4096;
/// The most names of one address.
const MAX_NAMES: usize = 16;
/// An answer counts for this long at least: the program that asked has yet to connect.
const SHORTEST: Duration = Duration::from_secs(30);
/// And for this long at most, whatever its server says.
const LONGEST: Duration = Duration::from_secs(3600);

/// Names by address.
#[derive(Debug, Default)]
pub(super) struct Pins {
    addresses: HashMap<Ipv4Addr, Pinned>,
}

/// The names of one address, with their ends.
#[derive(Debug)]
struct Pinned {
    names: HashMap<String, Instant>,
    /// The last of them.
    ends: Instant,
}

impl Pins {
    /// Notes that a name has an address for the life of an answer.
    pub fn pin(&mut self, name: &str, address: Ipv4Addr, life: Duration, now: Instant) {
        if self.addresses.len() >= MAX && !self.addresses.contains_key(&address) {
            self.make_room();
        }
        let ends = now + life.clamp(SHORTEST, LONGEST);
        let none = || Pinned { names: HashMap::new(), ends };
        let pinned = self.addresses.entry(address).or_insert_with(none);
        pinned.ends = pinned.ends.max(ends);
        let names = &mut pinned.names;
        if names.len() >= MAX_NAMES && !names.contains_key(name) {
            let first = names.iter().min_by_key(|(_, ends)| **ends);
            if let Some(first) = first.map(|(name, _)| name.clone()) {
                names.remove(&first);
            }
        }
        let entry = names.entry(name.to_owned()).or_insert(ends);
        *entry = ends.max(*entry);
    }

    /// The names that an address has now.
    pub fn names(&self, address: Ipv4Addr, now: Instant) -> Vec<String> {
        let names = self.addresses.get(&address).into_iter().flat_map(|pinned| &pinned.names);
        names.filter(|(_, ends)| **ends > now).map(|(name, _)| name.clone()).collect()
    }

    /// Whether an address had names whose answers have expired.
    pub fn expired(&self, address: Ipv4Addr, now: Instant) -> bool {
        self.addresses.get(&address).is_some_and(|pinned| pinned.ends <= now)
    }

    /// The guest chooses how often this is done, so it looks at addresses and not at names.
    fn make_room(&mut self) {
        let first = self.addresses.iter().min_by_key(|(_, pinned)| pinned.ends);
        if let Some(address) = first.map(|(address, _)| *address) {
            self.addresses.remove(&address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);

    #[test]
    fn a_name_has_its_address_for_the_life_of_the_answer() {
        let now = Instant::now();
        let mut pins = Pins::default();
        pins.pin("a.org", A, Duration::from_secs(100), now);
        assert_eq!(pins.names(A, now), ["a.org"]);
        assert_eq!(pins.names(A, now + Duration::from_secs(99)), ["a.org"]);
        assert!(pins.names(A, now + Duration::from_secs(101)).is_empty());
        assert!(pins.expired(A, now + Duration::from_secs(101)));
        assert!(!pins.expired(A, now + Duration::from_secs(99)));
        assert!(!pins.expired(Ipv4Addr::new(203, 0, 113, 2), now));
        assert!(pins.names(Ipv4Addr::new(203, 0, 113, 2), now).is_empty());
        // A shorter answer takes nothing back.
        pins.pin("a.org", A, Duration::ZERO, now);
        assert_eq!(pins.names(A, now + Duration::from_secs(99)), ["a.org"]);
    }

    #[test]
    fn lives_are_bounded() {
        let now = Instant::now();
        let mut pins = Pins::default();
        pins.pin("a.org", A, Duration::ZERO, now);
        assert_eq!(pins.names(A, now + SHORTEST / 2), ["a.org"]);
        pins.pin("b.org", A, Duration::from_secs(1 << 40), now);
        assert!(pins.names(A, now + LONGEST).is_empty());
    }

    #[test]
    fn there_is_room_for_so_many() {
        let now = Instant::now();
        let mut pins = Pins::default();
        for n in 0..u32::try_from(MAX).unwrap() + 10 {
            let life = SHORTEST + Duration::from_secs(n.into()).min(LONGEST / 2);
            pins.pin("a.org", Ipv4Addr::from(n), life, now);
        }
        assert_eq!(pins.addresses.len(), MAX);
        assert!(pins.names(Ipv4Addr::from(0), now).is_empty(), "the first to end went");
        for n in 0..MAX_NAMES + 10 {
            pins.pin(&format!("{n}.org"), A, LONGEST, now);
        }
        assert_eq!(pins.names(A, now).len(), MAX_NAMES);
    }
}
