//! What a broker's requests share.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fireclaw_log::Few;
use fireclaw_say::say;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::info;

use super::queue::FairQueue;
use super::{Event, Limits, Totals};
use crate::error::escape;
use crate::{Abilities, ChatModel, Error, Mode, Result, Usage};

/// How much the newest duration counts in the average.
const NEWEST: f64 = 0.3;

/// How long it is believed what a model can do.
const ABILITIES_KEPT: Duration = Duration::from_secs(600);

/// How often whoever runs the server is told why it fails.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// How many requests of an agent are logged in a minute: a guest decides how many there are.
const MOST_LOGGED: u32 = 60;

/// The most models whose abilities are remembered.
const MAX_ABILITIES: usize = 256;

/// How often a model's own tool calling may fail before it is not tried any more: each
/// failure costs a whole reply.
const MAX_FALLBACKS: u32 = 2;

pub struct Dispatcher {
    pub model: Arc<dyn ChatModel>,
    pub limits: Limits,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    queue: FairQueue<Waiting>,
    next_id: u64,
    /// The requests that were let go.
    running: HashSet<u64>,
    average: Option<Duration>,
    told: Option<Instant>,
    totals: BTreeMap<String, Totals>,
    logged: HashMap<String, Few>,
    abilities: HashMap<String, Known>,
}

struct Waiting {
    id: u64,
    go: oneshot::Sender<()>,
    events: UnboundedSender<Event>,
    told: Option<usize>,
}

struct Known {
    abilities: Abilities,
    since: Instant,
    fallbacks: u32,
}

impl Dispatcher {
    pub fn new(model: Arc<dyn ChatModel>, limits: Limits) -> Self {
        Self { model, limits, state: Mutex::default() }
    }

    /// Takes a slot in the queue. `go` is told when it is its turn.
    pub fn enter(
        shared: &Arc<Self>,
        agent: &str,
        model: &str,
        go: oneshot::Sender<()>,
        events: UnboundedSender<Event>,
    ) -> Result<QueueSlot> {
        let mut state = shared.state();
        let waiting = state.queue.waiting(agent);
        if waiting >= shared.limits.max_queue_per_agent {
            return Err(Error::Busy { agent: agent.to_owned(), waiting });
        }
        let id = state.next_id;
        state.next_id += 1;
        state.queue.push(agent, Waiting { id, go, events, told: None });
        shared.dispatch(&mut state);
        drop(state);
        Ok(QueueSlot {
            shared: shared.clone(),
            agent: agent.to_owned(),
            model: model.to_owned(),
            id,
            entered: Instant::now(),
            started: None,
            end: Ended::Cancelled,
        })
    }

    /// Takes a request out of the queue, if it is still there.
    pub fn withdraw(&self, id: u64) {
        let mut state = self.state();
        state.queue.remove(|waiting| waiting.id == id);
        self.dispatch(&mut state);
    }

    /// Starts what can start, and tells the others where they are.
    fn dispatch(&self, state: &mut State) {
        while state.running.len() < self.limits.slots {
            let Some(next) = state.queue.pop() else { break };
            // It fails if the asker just gave up.
            if next.go.send(()).is_ok() {
                state.running.insert(next.id);
            }
        }
        let slots = u32::try_from(self.limits.slots).unwrap_or(u32::MAX).max(1);
        let average = state.average;
        for (position, waiting) in (1..).zip(state.queue.in_order()) {
            if waiting.told.replace(position) != Some(position) {
                let ahead = u32::try_from(position).unwrap_or(u32::MAX);
                let estimate = average.map(|average| average.saturating_mul(ahead) / slots);
                let _ = waiting.events.send(Event::Queued { position, estimate });
            }
        }
    }

    /// What a model can do, asked once in a while.
    pub async fn abilities(&self, model: &str) -> Result<Abilities> {
        if let Some(known) = self.state().abilities.get(model)
            && known.since.elapsed() < ABILITIES_KEPT
        {
            return Ok(known.abilities);
        }
        let abilities = self.model.abilities(model).await?;
        let mut state = self.state();
        if state.abilities.len() >= MAX_ABILITIES {
            state.abilities.clear();
        }
        let known = Known { abilities, since: Instant::now(), fallbacks: 0 };
        state.abilities.insert(model.to_owned(), known);
        Ok(abilities)
    }

    pub fn forget_abilities(&self, model: &str) {
        self.state().abilities.remove(model);
    }

    /// Learns from how a step came about.
    pub fn learn(&self, model: &str, tried: Abilities, mode: Mode) {
        if let Some(known) = self.state().abilities.get_mut(model)
            && tried.native_tools
        {
            known.fallbacks = if mode == Mode::Schema { known.fallbacks + 1 } else { 0 };
            known.abilities.native_tools &= known.fallbacks < MAX_FALLBACKS;
        }
    }

    /// Tells whoever runs the server the reason that people on IRC are not told.
    pub fn tell(&self, error: &Error) {
        let Some(detail) = error.detail() else { return };
        let mut state = self.state();
        if state.told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            state.told = Some(Instant::now());
            drop(state);
            say!("fireclaw: {error}: {detail}");
        }
    }

    pub fn totals(&self) -> BTreeMap<String, Totals> {
        self.state().totals.clone()
    }

    pub fn forget(&self, agent: &str) {
        let mut state = self.state();
        state.totals.remove(agent);
        state.logged.remove(agent);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that holds it can panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a request ended, for the totals.
pub enum Ended {
    Answered(Usage),
    Failed,
    Cancelled,
}

/// A request's place, in the queue and then at the server. Given up when dropped.
pub struct QueueSlot {
    pub shared: Arc<Dispatcher>,
    agent: String,
    model: String,
    pub id: u64,
    entered: Instant,
    started: Option<Instant>,
    pub end: Ended,
}

impl QueueSlot {
    /// Its turn has come.
    pub fn start(&mut self) {
        self.started = Some(Instant::now());
    }
}

impl QueueSlot {
    /// Logs what it cost, in figures alone: what was asked and answered is between them.
    fn log(&self, busy: Option<Duration>) {
        let now = std::time::Instant::now();
        let (left_out, is_told) = {
            let mut state = self.shared.state();
            let few = state.logged.entry(self.agent.clone());
            let few = few.or_insert_with(|| Few::new(MOST_LOGGED, now));
            (few.left_out(now), few.take(now))
        };
        if let Some(count) = left_out {
            info!(agent = self.agent, "{count} more requests to the model were not logged");
        }
        if !is_told {
            return;
        }
        let (outcome, usage) = match &self.end {
            Ended::Answered(usage) => ("answered", *usage),
            Ended::Failed => ("failed", Usage::default()),
            Ended::Cancelled => ("cancelled", Usage::default()),
        };
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let waited = self.entered.elapsed().saturating_sub(busy.unwrap_or_default());
        info!(
            agent = self.agent,
            model = escape(&self.model),
            outcome,
            waited_ms = ms(waited),
            busy_ms = ms(busy.unwrap_or_default()),
            prompt_tokens = usage.prompt_tokens,
            completion_tokens = usage.completion_tokens,
            "a request to the model"
        );
    }
}

impl Drop for QueueSlot {
    fn drop(&mut self) {
        let busy = self.started.map(|started| started.elapsed());
        self.log(busy);
        let mut state = self.shared.state();
        let totals = state.totals.entry(self.agent.clone()).or_default();
        totals.busy += busy.unwrap_or_default();
        match self.end {
            Ended::Answered(usage) => {
                totals.answered += 1;
                totals.usage = totals.usage + usage;
            }
            Ended::Failed => totals.failed += 1,
            Ended::Cancelled => totals.cancelled += 1,
        }
        if let (Ended::Answered(_), Some(took)) = (&self.end, busy) {
            state.average = Some(
                state
                    .average
                    .map_or(took, |average| average.mul_f64(1.0 - NEWEST) + took.mul_f64(NEWEST)),
            );
        }
        let id = self.id;
        if !state.running.remove(&id) {
            state.queue.remove(|waiting| waiting.id == id);
        }
        self.shared.dispatch(&mut state);
    }
}
