//! Saving and finding memories.

use fireclaw_protocol::agent::Incoming;

use crate::queue::place_of;
use crate::recall::{Candidate, rank};
use crate::shared::Shared;
use crate::{clock, cut};

/// The most that is shown of what was found, in bytes each.
const MAX_SHOWN: usize = 800;

pub fn save(shared: &Shared, name: &str, text: &str) -> Result<String, String> {
    let file =
        shared.memory.save(name, text).map_err(|e| format!("It was not remembered: {e}."))?;
    Ok(format!("Saved in {file}."))
}

/// Searches memories and what was said in the same place: not elsewhere, because others
/// may listen here.
pub fn recall(shared: &Shared, incoming: &Incoming, query: &str) -> Result<String, String> {
    let mut history = shared.history.borrow_mut();
    let said = history.of(&place_of(incoming)).0.iter().map(|exchange| Candidate {
        title: format!("said here on {}", clock::date(exchange.at)),
        text: format!("{}: {}\nyou: {}", exchange.from, exchange.text, exchange.answer),
    });
    let memories = shared.memory.all();
    let saved = memories.into_iter().map(|m| Candidate { title: m.name, text: m.text });
    let found = rank(query, said.chain(saved).collect());
    if found.is_empty() {
        return Ok(format!("Nothing is remembered about {:?}.", cut::line(query, 200)));
    }
    let shown = found
        .iter()
        .map(|found| format!("{}:\n{}", found.title, cut::middle(found.text.trim(), MAX_SHOWN)));
    Ok(shown.collect::<Vec<_>>().join("\n\n"))
}
