//! Batches (IRCv3 `batch`), of which only one thing matters: whether what comes
//! in them is history.

use crate::message::Message;

/// The batches that are open.
#[derive(Debug, Default)]
pub(super) struct Batches {
    open: Vec<(String, bool)>,
}

impl Batches {
    /// The most batches open at once, and the longest name of one, in bytes.
    const MAX: usize = 64;

    /// `BATCH +name type …` or `BATCH -name`.
    pub fn on_batch(&mut self, message: &Message) {
        let name = message.param(0);
        if let Some(name) = name.strip_prefix('-') {
            self.open.retain(|(open, _)| open != name);
        } else if let Some(name) = name.strip_prefix('+')
            && name.len() <= Self::MAX
            && self.open.len() < Self::MAX
        {
            let history = matches!(message.param(1), "chathistory" | "znc.in/playback");
            self.open.push((name.to_owned(), history || self.is_history(message)));
        }
    }

    /// Whether a message is in a batch of history, or in one within such.
    pub fn is_history(&self, message: &Message) -> bool {
        message
            .tag("batch")
            .is_some_and(|name| self.open.iter().any(|(open, history)| open == name && *history))
    }
}
