//! How fast lines may go out.

use std::time::{Duration, Instant};

use super::config::Rate;

/// A token bucket.
#[derive(Debug)]
pub(super) struct Bucket {
    rate: Rate,
    /// When the bucket was or will be full.
    full_at: Instant,
}

impl Bucket {
    /// A full bucket.
    pub fn new(rate: Rate, now: Instant) -> Self {
        Self { rate, full_at: now }
    }

    /// Takes a token if there is one.
    pub fn take(&mut self, now: Instant) -> bool {
        let free = self.next(now) <= now;
        if free {
            self.full_at = self.full_at.max(now) + self.rate.interval;
        }
        free
    }

    /// When there is a token, `now` if there is one already.
    pub fn next(&self, now: Instant) -> Instant {
        let spare = self.rate.interval * self.rate.burst.saturating_sub(1);
        self.full_at.checked_sub(spare).map_or(now, |next| next.max(now))
    }
}

/// How long to wait before connecting again.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// The next wait: twice the one before, up to `max`, times a half to one and
    /// a half by `random`.
    pub fn next(&mut self, first: Duration, max: Duration, random: u32) -> Duration {
        let wait = first.saturating_mul(1 << self.attempts.min(20)).min(max);
        self.attempts = self.attempts.saturating_add(1);
        wait.mul_f64(0.5 + f64::from(random) / f64::from(u32::MAX)).min(max)
    }

    /// Starts again from the first wait.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_burst_and_then_one_at_a_time() {
        let start = Instant::now();
        let mut bucket = Bucket::new(Rate::default(), start);
        assert_eq!((0..9).filter(|_| bucket.take(start)).count(), 5);
        assert_eq!(bucket.next(start), start + Duration::from_secs(2));
        assert!(!bucket.take(start + Duration::from_millis(1999)));
        assert!(bucket.take(start + Duration::from_secs(2)));
        assert!(!bucket.take(start + Duration::from_secs(2)));
        let later = start + Duration::from_secs(1000);
        assert_eq!((0..9).filter(|_| bucket.take(later)).count(), 5);
    }

    #[test]
    fn no_limit() {
        let start = Instant::now();
        let mut bucket = Bucket::new(Rate { burst: 1, interval: Duration::ZERO }, start);
        assert!((0..1000).all(|_| bucket.take(start)));
    }

    proptest! {
        #[test]
        fn never_more_than_the_rate(steps in prop::collection::vec(0_u64..5000, 1..80)) {
            let start = Instant::now();
            let mut bucket = Bucket::new(Rate::default(), start);
            let (mut now, mut sent) = (start, 0);
            for step in steps {
                now += Duration::from_millis(step);
                sent += u64::from(bucket.take(now));
                let allowed = 5 + (now - start).as_secs() / 2;
                prop_assert!(sent <= allowed);
            }
        }

        #[test]
        fn waits_grow_to_the_most_and_no_further(randoms in prop::collection::vec(any::<u32>(), 1..60)) {
            let (first, max) = (Duration::from_millis(500), Duration::from_secs(300));
            let mut backoff = Backoff::default();
            for (n, random) in randoms.into_iter().enumerate() {
                let wait = backoff.next(first, max, random);
                prop_assert!(wait <= max && wait >= first / 2);
                prop_assert!(n > 0 || wait <= first * 3 / 2);
                prop_assert!(n < 20 || wait >= max / 2);
            }
            backoff.reset();
            prop_assert!(backoff.next(first, max, 0) < first);
        }
    }
}
