//! Saving and finding memories.

use fireclaw_protocol::agent::Incoming;

use crate::context::AgentContext;
use crate::memory::Audience;
use crate::queue::conversation_of;
use crate::recall::{Candidate, rank};
use crate::told::Told;
use crate::{clock, cut};

/// The most that is shown of what was found, in bytes each.
const MAX_SHOWN: usize = 800;

/// How a person says that everyone may know something, at the beginning of a message. The
/// model does not decide that: it takes anybody's word for it.
const FOR_EVERYONE: [&str; 2] = ["remember for everyone", "remember for everybody"];

/// Saves something for the conversation where it was said, or for everyone if who asks says so.
pub fn save(
    shared: &AgentContext,
    incoming: &Incoming,
    name: &str,
    text: &str,
) -> Result<String, String> {
    let conversation = conversation_of(incoming);
    let audience = match is_for_everyone(&incoming.text) {
        true => Audience::Everyone,
        false => Audience::Conversation(&conversation),
    };
    let saved = shared.memory.save(audience, name, text);
    Ok(format!("Saved in {}.", saved.map_err(|e| format!("It was not remembered: {e}."))?))
}

fn is_for_everyone(text: &str) -> bool {
    let words: Vec<&str> = text.split_whitespace().take(3).collect();
    let beginning = words.join(" ").to_lowercase();
    FOR_EVERYONE.contains(&beginning.trim_end_matches([':', ',']))
}

/// Searches what is for everyone, and what was saved and said in the same conversation: not
/// elsewhere, because others may listen here.
pub fn recall(shared: &AgentContext, incoming: &Incoming, query: &str) -> Told {
    let conversation = conversation_of(incoming);
    let mut history = shared.history.borrow_mut();
    let said = history.of(&conversation).0.iter().map(|exchange| Candidate {
        title: format!("said here on {}", clock::date(exchange.at)),
        text: format!(
            "{} asked: {}\nThe answer was: {}",
            exchange.from, exchange.text, exchange.answer
        ),
    });
    let memories = shared.memory.all(&conversation);
    let saved = memories.into_iter().map(|m| Candidate { title: m.name, text: m.text });
    let found = rank(query, said.chain(saved).collect());
    if found.is_empty() {
        return Told::note(format!(
            "Nothing is remembered about {:?}. If it is about this machine, run a command.",
            cut::line(query, 200)
        ));
    }
    let shown = found
        .iter()
        .map(|found| format!("{}:\n{}", found.title, cut::middle(found.text.trim(), MAX_SHOWN)));
    Told::data(shown.collect::<Vec<_>>().join("\n\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_asker_makes_a_memory_public() {
        for yes in [
            "Remember for everyone: x",
            "remember  for everybody that x",
            "REMEMBER FOR EVERYONE, x",
        ] {
            assert!(is_for_everyone(yes), "{yes}");
        }
        for no in [
            "remember that x",
            "this is not for everyone",
            "do not remember for everyone",
            "remember for everyones",
            "",
        ] {
            assert!(!is_for_everyone(no), "{no}");
        }
    }
}
