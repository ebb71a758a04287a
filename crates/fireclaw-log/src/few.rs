//! How much one of many may say where everybody is heard: in the people's channel, in a log.

use std::time::{Duration, Instant};

/// The time in which so many are told.
const EACH: Duration = Duration::from_secs(60);

/// What was told in the last minute.
#[derive(Debug)]
pub struct Few {
    most: u32,
    since: Instant,
    told: u32,
    left_out: u32,
}

impl Few {
    /// Nothing was told; at most so many are in a minute.
    pub fn new(most: u32, now: Instant) -> Self {
        Self { most, since: now, told: 0, left_out: 0 }
    }

    /// Whether another one is told; if not, it is counted.
    pub fn take(&mut self, now: Instant) -> bool {
        if now.duration_since(self.since) <= EACH && self.told >= self.most {
            self.left_out += 1;
            return false;
        }
        if now.duration_since(self.since) > EACH {
            (self.since, self.told) = (now, 0);
        }
        self.told += 1;
        true
    }

    /// How many were left out, once their time is over.
    pub fn left_out(&mut self, now: Instant) -> Option<u32> {
        if self.left_out == 0 || now.duration_since(self.since) <= EACH {
            return None;
        }
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_notes_is_told_in_part_and_its_size_in_the_end() {
        let start = Instant::now();
        let mut notes = Few::new(8, start);
        let told = (0..1000).filter(|_| notes.take(start)).count();
        assert_eq!(told, 8);
        assert_eq!(notes.left_out(start + EACH), None, "not before the time is over");
        let later = start + EACH + Duration::from_millis(1);
        assert_eq!(notes.left_out(later), Some(992));
        assert_eq!(notes.left_out(later), None, "once");
        assert!(notes.take(later));
    }
}
