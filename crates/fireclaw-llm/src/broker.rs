//! The queue before one model server.
//!
//! Agents ask through a broker, which alone knows the server's key. It is fair over agents,
//! bounds what they ask, tries again what a busy server refused, and counts what they use.

mod event;
mod limits;
mod queue;
mod request;
mod schemas;
mod state;
mod ticket;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

pub use event::Event;
pub use limits::Limits;
pub use ticket::Ticket;

use crate::{ChatModel, ChatRequest, ModelInfo, Result, Usage};
use state::Dispatcher;

/// What an agent has used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Requests that were answered.
    pub answered: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Requests that the asker gave up, waiting or under way.
    pub cancelled: u64,
    /// Tokens of the requests that were answered.
    pub usage: Usage,
    /// How long the server worked for it.
    pub busy: Duration,
}

/// The queue before one model server. Clones share it.
#[derive(Clone)]
pub struct Broker {
    shared: Arc<Dispatcher>,
}

impl Broker {
    /// A queue before `model`.
    pub fn new(model: Arc<dyn ChatModel>, limits: Limits) -> Self {
        Self { shared: Arc::new(Dispatcher::new(model, limits)) }
    }

    /// Asks for an agent's next step. What comes of it, even a refusal, is told by the
    /// ticket; dropping that cancels the request. Call it on a tokio runtime.
    pub fn ask(&self, agent: &str, mut request: ChatRequest) -> Ticket {
        let (events, heard) = mpsc::unbounded_channel();
        if let Err(error) = self.shared.limits.apply(&mut request) {
            return Ticket::refused(error);
        }
        let (go, turn) = oneshot::channel();
        match Dispatcher::enter(&self.shared, agent, &request.model, go, events.clone()) {
            Ok(slot) => {
                let id = slot.id;
                let task = tokio::spawn(request::run(slot, turn, request, events));
                Ticket::new(heard, self.shared.clone(), id, task)
            }
            Err(error) => Ticket::refused(error),
        }
    }

    /// The models that the server has, without waiting in the queue.
    ///
    /// # Errors
    /// Those of [`ChatModel::models`].
    pub async fn models(&self) -> Result<Vec<ModelInfo>> {
        self.shared.model.models().await
    }

    /// Makes sure that the server has a model.
    ///
    /// # Errors
    /// [`crate::Error::ModelMissing`] and others of [`ChatModel::abilities`].
    pub async fn check(&self, model: &str) -> Result<()> {
        // What was known may be why it is asked.
        self.shared.forget_abilities(model);
        self.shared.abilities(model).await.map(|_| ())
    }

    /// What each agent has used.
    pub fn totals(&self) -> BTreeMap<String, Totals> {
        self.shared.totals()
    }

    /// Forgets what an agent has used, because it is gone.
    pub fn forget(&self, agent: &str) {
        self.shared.forget(agent);
    }
}

#[cfg(test)]
mod tests;
