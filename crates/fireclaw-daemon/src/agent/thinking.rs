//! Asking the model for an agent, with signs of life to who waits.

use std::time::{Duration, Instant};

use fireclaw_irc::Handle;
use fireclaw_irc::client::Typing;
use fireclaw_llm::{Event, Ticket};
use fireclaw_protocol::agent::Step;

/// A wait that is worth telling of.
const LONG: Duration = Duration::from_secs(10);

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
    voice: Handle,
    place: String,
) -> Thought {
    let mut told = false;
    let mut shown: Option<Instant> = None;
    let step = loop {
        let event = match ticket.next().await {
            Some(event) => event,
            None => break Err("the model was lost".to_owned()),
        };
        match event {
            Event::Queued { position, estimate } => {
                if !told && estimate.is_some_and(|wait| wait > LONG) {
                    told = true;
                    let seconds = estimate.unwrap_or_default().as_secs();
                    let text =
                        format!("the model is busy: {position} before you, about {seconds} s");
                    let _ = voice.say(&place, &text).await;
                }
            }
            Event::Started | Event::Text(_) => {
                if shown.is_none_or(|at| at.elapsed() > SHOWN) {
                    shown = Some(Instant::now());
                    let _ = voice.typing(&place, Typing::Active).await;
                }
            }
            Event::Done(step, _) => break Ok(step),
            Event::Failed(e) => break Err(e.to_string()),
        }
    };
    Thought { ask, message, step }
}
