//! One request, from the queue to its end.

use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::Event;
use super::state::{Ended, QueueSlot};
use crate::{ChatRequest, Error, Result, Step, Stepped, step};

/// Ends an answer that reached the most tokens or was cut.
const CUT: &str = " […]";

/// Waits for its turn, asks, and tells what comes. Dropped with its ticket.
pub async fn run(
    mut slot: QueueSlot,
    turn: oneshot::Receiver<()>,
    request: ChatRequest,
    events: UnboundedSender<Event>,
) {
    if turn.await.is_err() {
        return;
    }
    slot.start();
    let _ = events.send(Event::Started);
    let seconds = slot.shared.limits.max_seconds_per_request;
    let answer = timeout(Duration::from_secs(seconds), patiently(&slot, &request, &events)).await;
    let last = match answer.unwrap_or(Err(Error::TimedOut { seconds })) {
        Ok(Stepped { step, usage, truncated, .. }) => {
            let step = match step {
                Step::Say(said) if truncated => Step::Say(said + CUT),
                step => step,
            };
            slot.end = Ended::Answered(usage);
            Event::Done(step, usage)
        }
        Err(error) => {
            slot.shared.tell(&error);
            slot.end = Ended::Failed;
            Event::Failed(error)
        }
    };
    // Whoever hears the end may rely on the slot being free and counted.
    drop(slot);
    let _ = events.send(last);
}

/// Tries again what the server could not take.
async fn patiently(
    slot: &QueueSlot,
    request: &ChatRequest,
    events: &UnboundedSender<Event>,
) -> Result<Stepped> {
    let limits = &slot.shared.limits;
    let mut retry = 0;
    loop {
        let mut heard = false;
        match once(slot, request, events, &mut heard).await {
            // Words that were heard would be heard twice.
            Err(error) if error.is_transient() && !heard && retry < limits.max_retries => {
                let asked = error.retry_after().unwrap_or_default();
                sleep(limits.wait(retry).max(asked)).await;
                retry += 1;
            }
            other => return other,
        }
    }
}

async fn once(
    slot: &QueueSlot,
    request: &ChatRequest,
    events: &UnboundedSender<Event>,
    heard: &mut bool,
) -> Result<Stepped> {
    let shared = &slot.shared;
    let abilities = shared.abilities(&request.model).await?;
    let mut on_text = |text: &str| {
        *heard = true;
        let _ = events.send(Event::Text(text.to_owned()));
    };
    let stepped = step(shared.model.as_ref(), abilities, request, &mut on_text).await;
    match &stepped {
        Ok(stepped) if !request.tools.is_empty() => {
            shared.learn(&request.model, abilities, stepped.mode);
        }
        Err(Error::ModelMissing { .. } | Error::Down { .. }) => {
            shared.forget_abilities(&request.model);
        }
        _ => {}
    }
    stepped
}
