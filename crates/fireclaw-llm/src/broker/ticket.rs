//! What an asker holds while its request waits and is answered.

use std::fmt;
use std::sync::Arc;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinHandle;

use super::Event;
use super::state::Dispatcher;
use crate::{Error, Result, Step, Usage};

/// A request in a broker's hands. Dropping it cancels the request, wherever it is.
pub struct Ticket {
    // Without a bound of its own: a reply's length has one.
    events: Option<UnboundedReceiver<Event>>,
    refused: Option<Error>,
    under_way: Option<UnderWay>,
}

struct UnderWay {
    shared: Arc<Dispatcher>,
    id: u64,
    task: JoinHandle<()>,
}

impl Ticket {
    pub(super) fn new(
        events: UnboundedReceiver<Event>,
        shared: Arc<Dispatcher>,
        id: u64,
        task: JoinHandle<()>,
    ) -> Self {
        let under_way = Some(UnderWay { shared, id, task });
        Self { events: Some(events), refused: None, under_way }
    }

    pub(super) fn refused(error: Error) -> Self {
        Self { events: None, refused: Some(error), under_way: None }
    }

    /// What happened next; nothing after the end. It may be dropped and called again.
    pub async fn next(&mut self) -> Option<Event> {
        if let Some(error) = self.refused.take() {
            return Some(Event::Failed(error));
        }
        let event = match self.events.as_mut()?.recv().await {
            Some(event) => event,
            // The runtime ended the task.
            None => Event::Failed(Error::Cancelled),
        };
        if matches!(event, Event::Done(..) | Event::Failed(_)) {
            self.events = None;
        }
        Some(event)
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// What [`Event::Failed`] tells.
    pub async fn done(mut self) -> Result<(Step, Usage)> {
        while let Some(event) = self.next().await {
            match event {
                Event::Done(step, usage) => return Ok((step, usage)),
                Event::Failed(error) => return Err(error),
                _ => {}
            }
        }
        Err(Error::Cancelled)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(UnderWay { shared, id, task }) = self.under_way.take() {
            task.abort();
            // The task ends soon, but who asks next should find the slot free now.
            shared.withdraw(id);
        }
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("refused", &self.refused).finish_non_exhaustive()
    }
}
