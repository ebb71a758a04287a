//! What the daemon and its agents share.

use std::cell::RefCell;
use std::rc::Rc;

use fireclaw_chat::{Case, Sender};
use fireclaw_llm::Broker;
use fireclaw_policy::{Network, Target};
use fireclaw_template::{Store, Template};
use tokio::sync::{Notify, broadcast};
use tokio::time::Instant;

use crate::log::Writer;
use crate::ours::Ours;
use crate::question::Question;
use crate::sandboxes::Sandboxes;
use crate::state::State;
use crate::talk::Talk;
use crate::{Config, Event, Result, event};

/// What agents share.
pub struct Shared {
    pub config: Config,
    pub state: RefCell<State>,
    pub templates: Store,
    pub broker: Broker,
    pub sandboxes: Rc<dyn Sandboxes>,
    /// Writes the logs of agents.
    pub logs: Writer,
    /// Writes what the programs of sandboxes write.
    pub outputs: Writer,
    pub talk: RefCell<Talk>,
    pub ours: RefCell<Ours>,
    /// Nicks of the operators of the control channel, as the overseer sees them.
    pub operators: RefCell<Vec<String>>,
    pub events: broadcast::Sender<Event>,
    /// VMs that ran before there was anything in the state.
    pub unknown: RefCell<Vec<String>>,
    /// Has the schedule look again: something is due that was not.
    pub due: Notify,
    /// The same of the clock for questions.
    pub asked: Notify,
}

impl Shared {
    /// Tells everybody who listens. It is in the log before.
    pub fn tell(&self, event: Event) {
        event::tell(&self.events, event);
    }

    /// Tells everybody that something could not be done.
    pub fn trouble(&self, problem: impl Into<String>) {
        self.tell(Event::Trouble { agent: None, problem: problem.into() });
    }

    /// Puts a question to the people, whole; false if nobody would read that much.
    pub fn put(&self, question: &Question) -> bool {
        if question.lines().is_none() {
            return false;
        }
        self.tell(Event::Asked(Box::new(question.clone())));
        true
    }

    /// Whether somebody on the chat network is one of our own connections.
    pub fn is_ours(&self, from: &Sender, case: Case) -> bool {
        let own = self.config.chat.account();
        let is_other = |account: &str| !own.is_some_and(|own| case.same(own, account));
        let is_other = from.account.as_deref().is_some_and(is_other);
        self.ours.borrow().includes(from, is_other, case, Instant::now())
    }

    /// Whether somebody may have agents do something: never one of our own connections.
    /// `is_operator` says whether they may moderate the control channel; if absent, that is
    /// looked for by their nick.
    pub fn may(&self, from: &Sender, is_operator: Option<bool>, case: Case) -> bool {
        let has_nick = || self.operators.borrow().iter().any(|o| case.same(o, &from.nick));
        let is_operator = is_operator.unwrap_or_else(has_nick);
        !self.is_ours(from, case) && self.config.owners.may(from, is_operator, case)
    }

    /// The agent that has this nick now.
    pub fn agent_with_nick(&self, nick: &str, case: Case) -> Option<String> {
        self.ours.borrow().with_nick(nick, case).map(str::to_owned)
    }

    /// The policy of an agent: its template's, with what people allowed.
    pub fn policy(&self, agent: &str, template: &Template) -> Result<Network> {
        let mut policy = template.network.clone();
        if let Network::Allow { allow, .. } = &mut policy {
            let targets = self.state.borrow().allowed(agent)?;
            allow.extend(targets.iter().filter_map(|target| Target::parse(target).ok()));
        }
        Ok(policy)
    }
}
