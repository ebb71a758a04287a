//! Calls and what they gave back, cut to what there is room for.

use fireclaw_protocol::chat::{Message, ToolCall};
use serde_json::Value;

use crate::cut;
use crate::told::Told;

/// What a message costs besides its text, in bytes: role and separators, about four tokens.
pub const OVERHEAD: usize = 14;

/// The most of a result that is kept of earlier rounds when there is no room, in bytes.
const SHORT_RESULT: usize = 200;

/// Calls that the model made at once, with their results.
#[derive(Debug, Clone)]
pub struct Round {
    pub calls: Vec<ToolCall>,
    /// One for each call.
    pub results: Vec<Told>,
}

impl Round {
    /// As the model reads it: its calls, then what each gave back.
    pub fn messages(&self) -> impl Iterator<Item = Message> {
        let results = self.calls.iter().zip(&self.results);
        let results = results.map(|(call, told)| Message::result(&call.id, told.shown()));
        std::iter::once(Message::calls(self.calls.clone())).chain(results)
    }

    /// How many bytes it takes in a prompt.
    pub fn size(&self) -> usize {
        let calls = self.calls.iter().map(size_of_call).sum::<usize>();
        let results = self.results.iter().map(|told| told.size() + OVERHEAD).sum::<usize>();
        OVERHEAD + calls + results
    }

    /// The same in about `max` bytes: what is left of the longest texts in it is the same.
    pub fn shortened(&self, max: usize) -> Self {
        let mut round = self.clone();
        let mut most = max;
        while round.size() > max && most > 0 {
            most /= 2;
            round.results.iter_mut().for_each(|told| *told = told.shortened(most));
            round.calls.iter_mut().for_each(|call| shorten_value(&mut call.arguments, most));
        }
        round
    }
}

/// The newest rounds that fit. The last one is always there, shortened if it must be;
/// earlier ones are shortened before they are left out.
pub fn fit(rounds: &[Round], mut room: usize) -> Vec<Round> {
    let mut kept = Vec::new();
    for (age, round) in rounds.iter().rev().enumerate() {
        let fits = |round: &Round| round.size() <= room;
        let shorter = match age {
            _ if fits(round) => round.clone(),
            0 => round.shortened(room),
            _ => round.shortened((SHORT_RESULT + OVERHEAD) * (round.calls.len() + 1)),
        };
        if age > 0 && !fits(&shorter) {
            break;
        }
        room = room.saturating_sub(shorter.size());
        kept.push(shorter);
    }
    kept.reverse();
    kept
}

pub fn size_of_call(call: &ToolCall) -> usize {
    // The id is in the call and in the result.
    OVERHEAD + 2 * call.id.len() + call.name.len() + call.arguments.to_string().len()
}

/// Cuts every text in a value to `most` bytes.
pub fn shorten_value(value: &mut Value, most: usize) {
    match value {
        Value::String(text) => *text = cut::middle(text, most),
        Value::Array(values) => values.iter_mut().for_each(|value| shorten_value(value, most)),
        Value::Object(values) => values.values_mut().for_each(|value| shorten_value(value, most)),
        _ => {}
    }
}
