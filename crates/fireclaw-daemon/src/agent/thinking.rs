//! Asking the model for an agent, with signs of life to who waits.

use std::sync::Arc;
use std::time::Duration;

use fireclaw_chat::Connection;
use fireclaw_llm::{Event, Ticket};
use fireclaw_protocol::agent::Step;
use tokio::time::Instant;

/// A wait that is worth telling of.
const LONG: Duration = Duration::from_secs(10);

/// How long it is waited in silence when nobody knows how long it will be.
const SILENCE: Duration = Duration::from_secs(5);

/// How often it is shown that an answer is being written.
const SHOWN: Duration = Duration::from_secs(4);

/// What came of it.
#[derive(Debug)]
pub struct Thought {
    /// The agent's number for it.
    pub ask: u64,
    /// The message that it is for.
    pub message: u64,
    /// What the model wants, or why it did not answer.
    pub step: std::result::Result<Step, String>,
}

/// Waits for the model. Dropping the future cancels the request.
pub async fn think(
    mut ticket: Ticket,
    ask: u64,
    message: u64,
    connection: Arc<dyn Connection>,
    conversation: String,
) -> Thought {
    let mut told = false;
    let mut shown: Option<Instant> = None;
    // What waits and was not told of: before whom, and since when.
    let mut waits: Option<(usize, Instant)> = None;
    let step = loop {
        let silence = waits.filter(|_| !told).map(|(position, since)| (position, since + SILENCE));
        let event = tokio::select! {
            event = ticket.next() => match event {
                Some(event) => event,
                None => break Err("the model was lost".to_owned()),
            },
            position = over(silence) => {
                told = true;
                let text = format!("the model is busy: {position} before you");
                let _ = connection.say(&conversation, &text).await;
                continue;
            }
        };
        if !matches!(event, Event::Queued { .. }) {
            waits = None;
        }
        match event {
            Event::Queued { position, estimate: Some(wait) } => {
                if !told && wait > LONG {
                    told = true;
                    let seconds = wait.as_secs();
                    let text =
                        format!("the model is busy: {position} before you, about {seconds} s");
                    let _ = connection.say(&conversation, &text).await;
                }
            }
            Event::Queued { position, estimate: None } => {
                let since = waits.map_or_else(Instant::now, |(_, since)| since);
                waits = Some((position, since));
            }
            Event::Started | Event::Text(_) => {
                if shown.is_none_or(|at| at.elapsed() > SHOWN) {
                    shown = Some(Instant::now());
                    let _ = connection.typing(&conversation, true).await;
                }
            }
            Event::Done(step, _) => break Ok(step),
            Event::Failed(e) => break Err(e.to_string()),
        }
    };
    Thought { ask, message, step }
}

/// Ends when a silence has been long enough; with who is before. Never, if there is none.
async fn over(silence: Option<(usize, Instant)>) -> usize {
    match silence {
        Some((position, at)) => {
            tokio::time::sleep_until(at).await;
            position
        }
        None => std::future::pending().await,
    }
}
