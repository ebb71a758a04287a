//! What the main command has written, as far as it is kept for who reads it later.

use std::collections::VecDeque;

use fireclaw_protocol::message::{MAX_OUTPUT, OutputStream};

/// How much is kept, in bytes: what a log that is started anew may miss meanwhile.
const MOST: u64 = 1024 * 1024;

/// What keeping a piece costs besides its bytes: a command that writes single bytes must not
/// take the guest's memory.
const EACH: u64 = 64;

/// What may come before it is asked again whether there is room: as much as each of both
/// streams brings at once.
const AT_ONCE: u64 = 2 * (64 * 1024 + 8 * EACH);

/// Output by position: the number of bytes that were written before.
#[derive(Debug, Default)]
pub struct Record {
    pieces: VecDeque<Piece>,
    /// Where the next piece begins.
    end: u64,
    cost: u64,
    /// Up to where a log has written it down.
    taken: u64,
}

#[derive(Debug)]
struct Piece {
    start: u64,
    stream: OutputStream,
    bytes: Vec<u8>,
}

impl Piece {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    fn cost(&self) -> u64 {
        self.bytes.len() as u64 + EACH
    }
}

/// What stands at a position.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// These bytes, not all of which may be written yet.
    Output(OutputStream, &'a [u8]),
    /// Nothing any more, for so many bytes.
    Lost(u64),
    /// Nothing yet.
    Nothing,
}

impl Record {
    /// The position of what is written next.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Up to where a log has written it down.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// A log has written down what is before this position.
    pub fn take(&mut self, position: u64) {
        self.taken = self.taken.max(position.min(self.end));
        self.shorten();
    }

    /// Whether no more fits without losing what no log has written down.
    pub fn is_full(&self) -> bool {
        self.cost + AT_ONCE > MOST
            && self.pieces.front().is_some_and(|oldest| oldest.end() > self.taken)
    }

    /// Adds what was written. The oldest goes if it is too much.
    pub fn add(&mut self, stream: OutputStream, bytes: &[u8]) {
        for bytes in bytes.chunks(MAX_OUTPUT) {
            self.cost += bytes.len() as u64;
            match self.pieces.back_mut() {
                Some(last)
                    if last.stream == stream && last.bytes.len() + bytes.len() <= MAX_OUTPUT =>
                {
                    last.bytes.extend_from_slice(bytes);
                }
                _ => {
                    self.cost += EACH;
                    self.pieces.push_back(Piece { start: self.end, stream, bytes: bytes.to_vec() });
                }
            }
            self.end += bytes.len() as u64;
        }
        self.shorten();
    }

    fn shorten(&mut self) {
        while self.cost > MOST
            && let Some(oldest) = self.pieces.pop_front()
        {
            self.cost -= oldest.cost();
        }
    }

    /// What stands at a position.
    pub fn at(&self, position: u64) -> Found<'_> {
        let Some(oldest) = self.pieces.front() else {
            return match self.end.saturating_sub(position) {
                0 => Found::Nothing,
                lost => Found::Lost(lost),
            };
        };
        if position < oldest.start {
            return Found::Lost(oldest.start - position);
        }
        let place = self.pieces.partition_point(|piece| piece.end() <= position);
        match self.pieces.get(place) {
            None => Found::Nothing,
            Some(piece) => {
                let skip = usize::try_from(position - piece.start).unwrap_or(usize::MAX);
                Found::Output(piece.stream, piece.bytes.get(skip..).unwrap_or_default())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use OutputStream::{Stderr, Stdout};

    /// Everything from a position on.
    fn read(record: &Record, mut position: u64) -> (Vec<u8>, u64) {
        let (mut all, mut lost) = (Vec::new(), 0);
        loop {
            match record.at(position) {
                Found::Output(_, bytes) => {
                    assert!(!bytes.is_empty() && bytes.len() <= MAX_OUTPUT);
                    all.extend_from_slice(bytes);
                    position += bytes.len() as u64;
                }
                Found::Lost(bytes) => {
                    lost += bytes;
                    position += bytes;
                }
                Found::Nothing => return (all, lost),
            }
        }
    }

    #[test]
    fn what_is_kept_is_bounded_whatever_the_size_of_its_pieces() {
        for size in [1, 100, 70_000] {
            let mut record = Record::default();
            let bytes = vec![b'x'; size];
            for n in 0..3_000_000 / size {
                record.add(if n % 2 == 0 { Stdout } else { Stderr }, &bytes);
                assert!(record.cost <= MOST && record.pieces.len() as u64 * EACH <= MOST);
            }
            let (kept, lost) = read(&record, 0);
            assert_eq!(kept.len() as u64 + lost, record.end());
            assert!(lost > 0 && record.is_full());
        }
    }

    #[test]
    fn nothing_is_lost_before_it_is_full_and_it_is_until_a_log_has_taken_the_oldest() {
        let mut record = Record::default();
        for size in [1, 1000, 4096, 4095, 16 * 1024, 64 * 1024] {
            record = Record::default();
            while !record.is_full() {
                // As both streams may bring it before it is looked again.
                record.add(Stdout, &vec![0; size]);
                record.add(Stderr, &vec![0; size]);
            }
            assert_eq!(read(&record, 0).1, 0, "{size}");
        }
        record.take(1);
        assert!(record.is_full());
        record.take(record.end());
        assert!(!record.is_full());
        record.take(u64::MAX);
        assert_eq!(record.taken(), record.end());
    }

    proptest! {
        #[test]
        fn whoever_reads_from_anywhere_gets_the_rest(
            pieces in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 1..40)), 0..40),
            from in 0u64..900,
        ) {
            let mut record = Record::default();
            let mut all = Vec::new();
            for (stream, bytes) in &pieces {
                record.add(if *stream { Stdout } else { Stderr }, bytes);
                all.extend_from_slice(bytes);
            }
            prop_assert_eq!(record.end(), all.len() as u64);
            let rest = all.get(usize::try_from(from).unwrap()..).unwrap_or_default();
            prop_assert_eq!(read(&record, from), (rest.to_vec(), 0));
        }
    }
}
