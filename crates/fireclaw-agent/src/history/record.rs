//! A line of a history.

use fireclaw_protocol::chat::ToolCall;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::rounds::{Round, shorten_value};
use crate::told::Told;

/// What is kept of a question and of an answer, in bytes each.
pub const MAX_TEXT: usize = 8 * 1024;

/// How many calls of an answer are kept, the last ones: they show that the answer came from
/// them, so that the model makes them again when it is asked again.
const MAX_CALLS: usize = 4;

/// What is kept of a call's arguments and of its result, in bytes each.
const MAX_ARGUMENT: usize = 500;
const MAX_RESULT: usize = 300;

/// A call that was made for an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Made {
    /// The tool.
    pub name: String,
    /// What it was called with.
    pub arguments: Value,
    /// What it gave back, shortened.
    pub result: Told,
}

impl Made {
    /// The calls of an answer that are kept, oldest first.
    pub fn of(rounds: &[Round]) -> Vec<Self> {
        let made = rounds.iter().rev().flat_map(|r| r.calls.iter().zip(&r.results).rev());
        let mut kept: Vec<Self> = Vec::new();
        for (call, told) in made {
            let is_kept = kept.iter().any(|m| m.name == call.name && m.arguments == call.arguments);
            if kept.len() < MAX_CALLS && !is_kept {
                let mut arguments = call.arguments.clone();
                shorten_value(&mut arguments, MAX_ARGUMENT);
                let result = told.shortened(MAX_RESULT);
                kept.push(Self { name: call.name.clone(), arguments, result });
            }
        }
        kept.reverse();
        kept
    }
}

/// A question and its answer. They are one line, so a crash cannot part them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Exchange {
    /// The message's number.
    pub id: u64,
    /// When it was answered, in seconds since 1970.
    pub at: u64,
    /// Who asked.
    pub from: String,
    /// What.
    pub text: String,
    /// What was called to answer it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<Made>,
    /// What the agent said.
    pub answer: String,
}

impl Exchange {
    /// How many bytes its line takes.
    pub fn size(&self) -> usize {
        serde_json::to_string(self).map_or(0, |line| line.len() + 1)
    }

    /// Its calls as the model made them, one after the other. Their ids are the same in
    /// every prompt, and nine letters long, as every server takes them.
    pub fn rounds(&self) -> impl Iterator<Item = Round> {
        let number = u32::try_from(self.id & 0x0fff_ffff).unwrap_or_default();
        // A command may have written anything into the file.
        self.calls.iter().take(MAX_CALLS).zip(0..MAX_CALLS).map(move |(made, at)| {
            let id = format!("h{number:07x}{at:x}");
            let (name, arguments) = (made.name.clone(), made.arguments.clone());
            let call = ToolCall { id, name, arguments };
            Round { calls: vec![call], results: vec![made.result.shortened(MAX_RESULT)] }
        })
    }
}

/// What a history's file holds.
#[derive(Debug, Default, PartialEq)]
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
    use serde_json::json;

    fn made() -> impl Strategy<Value = Made> {
        ("[a-z_]{1,9}", "\\PC{0,20}", "(\\PC|\n){0,30}").prop_map(|(name, argument, result)| Made {
            name,
            arguments: json!({ "a": argument }),
            result: Told::data(result),
        })
    }

    fn exchange() -> impl Strategy<Value = Exchange> {
        let text = "(\\PC|\n){0,30}";
        let calls = prop::collection::vec(made(), 0..3);
        (any::<u64>(), any::<u64>(), "\\PC{0,9}", text, calls, text).prop_map(
            |(id, at, from, text, calls, answer)| Exchange { id, at, from, text, calls, answer },
        )
    }

    fn round(command: &str, result: &str) -> Round {
        let arguments = json!({ "command": command });
        let call = ToolCall { id: "1".into(), name: "run_command".into(), arguments };
        Round { calls: vec![call], results: vec![Told::data(result)] }
    }

    #[test]
    fn the_last_calls_are_kept_shortened() {
        let long = "x".repeat(10_000);
        let rounds: Vec<Round> = (0..9).map(|n| round(&format!("{n}{long}"), &long)).collect();
        let kept = Made::of(&rounds);
        let first = |made: &Made| made.arguments["command"].as_str().unwrap()[..1].to_owned();
        assert_eq!(kept.iter().map(first).collect::<String>(), "5678");
        let size = serde_json::to_string(&kept).unwrap().len();
        assert!(size < MAX_CALLS * (MAX_ARGUMENT + MAX_RESULT + 200), "{size}");
        // The same call twice says no more than once.
        assert_eq!(Made::of(&[round("date", "1"), round("date", "1")]).len(), 1);
    }

    #[test]
    fn lines_of_earlier_versions_are_read() {
        let line = br#"{"id":1,"at":2,"from":"ann","text":"q","answer":"a"}"#;
        let parsed = parse(line);
        assert_eq!((parsed.bad, parsed.exchanges[0].calls.len()), (0, 0));
    }

    #[test]
    fn ids_differ_and_suit_every_server() {
        let calls = Made::of(&[round("a", "1"), round("b", "2")]);
        let exchange = |id| Exchange {
            id,
            at: 0,
            from: "ann".into(),
            text: "q".into(),
            calls: calls.clone(),
            answer: "a".into(),
        };
        let rounds =
            [exchange(1), exchange(2), exchange(u64::MAX)].map(|e| e.rounds().collect::<Vec<_>>());
        let mut ids: Vec<_> = rounds.iter().flatten().map(|r| r.calls[0].id.clone()).collect();
        assert!(ids.iter().all(|id| id.len() == 9), "{ids:?}");
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 6);
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
