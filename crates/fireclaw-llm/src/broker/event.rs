//! What an asker hears of its request.

use std::time::Duration;

use crate::{Error, Step, Usage};

/// What happens to a request.
#[derive(Debug)]
pub enum Event {
    /// It waits. Told again whenever the position changes.
    Queued {
        /// Its place in the queue; 1 is next.
        position: usize,
        /// How long it will wait, going by how long others took; unknown at first.
        estimate: Option<Duration>,
    },
    /// The model works on it.
    Started,
    /// More words of the reply. They are a preview: what counts is [`Event::Done`].
    Text(String),
    /// The end: what the agent does, and the tokens that it took.
    Done(Step, Usage),
    /// The end: why there is no answer.
    Failed(Error),
}
