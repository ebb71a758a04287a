//! A line of a history.

use serde::{Deserialize, Serialize};

/// What is kept of a question and of an answer, in bytes each.
pub const MAX_TEXT: usize = 8 * 1024;

/// A question and its answer. They are one line, so a crash cannot part them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exchange {
    /// The message's number.
    pub id: u64,
    /// When it was answered, in seconds since 1970.
    pub at: u64,
    /// Who asked.
    pub from: String,
    /// What.
    pub text: String,
    /// What the agent said.
    pub answer: String,
}

impl Exchange {
    /// How many bytes its line takes.
    pub fn size(&self) -> usize {
        serde_json::to_string(self).map_or(0, |line| line.len() + 1)
    }
}

/// What a history's file holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    /// The lines that can be read.
    pub exchanges: Vec<Exchange>,
    /// How many lines cannot, although they have an end.
    pub bad: usize,
}

/// Reads a history. A last line without an end is one that was being written when the
/// agent ended: it counts if it is whole, and is skipped if not.
pub fn parse(bytes: &[u8]) -> Parsed {
    let mut parsed = Parsed::default();
    for line in bytes.split_inclusive(|b| *b == b'\n') {
        match serde_json::from_slice(line) {
            Ok(exchange) => parsed.exchanges.push(exchange),
            Err(_) if !line.ends_with(b"\n") => {}
            Err(_) => parsed.bad += 1,
        }
    }
    parsed
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn exchange() -> impl Strategy<Value = Exchange> {
        (any::<u64>(), any::<u64>(), "\\PC{0,9}", "(\\PC|\n){0,30}", "(\\PC|\n){0,30}")
            .prop_map(|(id, at, from, text, answer)| Exchange { id, at, from, text, answer })
    }

    fn lines(exchanges: &[Exchange]) -> Vec<u8> {
        let line = |e| format!("{}\n", serde_json::to_string(e).unwrap()).into_bytes();
        exchanges.iter().flat_map(line).collect()
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(exchanges in prop::collection::vec(exchange(), 0..5)) {
            prop_assert_eq!(parse(&lines(&exchanges)), Parsed { exchanges, bad: 0 });
        }

        #[test]
        fn a_torn_file_has_what_came_before(
            exchanges in prop::collection::vec(exchange(), 1..5), cut in 0.0..1.0
        ) {
            let bytes = lines(&exchanges);
            let cut = (bytes.len() as f64 * cut) as usize;
            let parsed = parse(&bytes[..cut]);
            prop_assert_eq!(parsed.bad, 0);
            prop_assert!(exchanges.starts_with(&parsed.exchanges));
            let whole = bytes[..cut].iter().filter(|b| **b == b'\n').count();
            prop_assert!((whole..=whole + 1).contains(&parsed.exchanges.len()));
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let ends = bytes.iter().filter(|b| **b == b'\n').count();
            let parsed = parse(&bytes);
            prop_assert!(parsed.bad <= ends && parsed.exchanges.len() <= ends + 1);
        }
    }
}
