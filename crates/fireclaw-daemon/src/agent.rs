//! One agent: a VM that is kept alive, a program in it, and a connection to the chat server.

mod hearing;
mod live;
mod thinking;

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use fireclaw_chat::{Bot, Connection, Events as Hearing};
use fireclaw_protocol::agent;
use fireclaw_template::Template;
use fireclaw_vm::{Commands, RunDir};
use futures_util::StreamExt;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tracing::field::Empty;
use tracing::{Instrument, Span, info_span};

use crate::lifecycle::{Condition, Lifecycle, Status};
use crate::log::Log;
use crate::question::Question;
use crate::sandboxes::{Request, Sandbox};
use crate::shared::Shared;
use crate::state::{AgentRow, Wanted};
use crate::{Error, Event, Result};
use hearing::Recent;
use live::{End, Live};

/// How many VMs may be lost in a row before it is given up.
const MOST_LOSSES: u32 = 5;

/// The first wait before a lost VM is replaced; it doubles with each.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// A VM that lived so long was no loss in a row.
const STABLE: Duration = Duration::from_secs(600);

/// What an agent is asked.
#[derive(Debug)]
pub enum Order {
    /// To leave, saying why; answered when nothing of it is left but its workspace.
    Leave {
        /// What it says as it goes.
        reason: String,
        /// Answered at the end.
        done: oneshot::Sender<()>,
    },
    /// To take its row and template on as they are now.
    Reload,
    /// To stop where it is, or go on.
    Pause(bool),
    /// To take a question's answer.
    Answered(Box<Question>),
    /// For what starts commands in its VM.
    Commands {
        /// That, if the VM is up.
        done: oneshot::Sender<Result<Commands>>,
    },
    /// For the last lines of its log.
    Logs {
        /// How many.
        lines: usize,
        /// The lines.
        done: oneshot::Sender<Vec<String>>,
    },
    /// To let go of everything without ending it: the daemon is ending.
    Release,
}

/// How the rest of the daemon reaches an agent.
#[derive(Debug)]
pub struct AgentHandle {
    /// Orders to it.
    pub orders: mpsc::Sender<Order>,
    /// How it is.
    pub status: watch::Receiver<Status>,
}

/// An agent as it runs.
pub struct Agent {
    shared: Rc<Shared>,
    row: AgentRow,
    template: Template,
    orders: mpsc::Receiver<Order>,
    life: Lifecycle,
    log: Log,
    connection: Arc<dyn Connection>,
    heard: Hearing,
    /// Whether nothing more will be heard: the chat server does not want it.
    deaf: bool,
    /// What was said last in each channel.
    recent: Recent,
    /// Where people with the right to have asked it to come.
    invited: Vec<String>,
    /// When somebody was last told that they may not invite it.
    declined: Option<Instant>,
    /// How often each message was handed to the program.
    handed: HashMap<u64, u32>,
}

/// Starts an agent of which there is a row.
pub fn start(shared: &Rc<Shared>, row: AgentRow, template: Template) -> Result<AgentHandle> {
    let mut channels = shared.state.borrow().channels(&row.name)?;
    // What is said there commands.
    channels.retain(|channel| !channel.eq_ignore_ascii_case(&shared.config.control));
    let bot = Bot { nick: row.nick.clone(), channels, joins_pastes: true };
    let (connection, heard) = shared.config.chat.connect(bot)?;
    shared.ours.borrow_mut().has_nick(&row.name, &row.nick, Instant::now());
    let (give, orders) = mpsc::channel(64);
    let (life, status) = Lifecycle::new(&row.nick);
    let path = shared.sandboxes.agent_directory(&row.name).join("agent.log");
    let span = info_span!("agent", agent = %row.name, sandbox = Empty);
    let shared = Rc::clone(shared);
    let run = async move {
        let log = Log::open(path, shared.logs.clone()).await;
        let agent = Agent {
            shared,
            row,
            template,
            orders,
            life,
            log,
            connection,
            heard,
            deaf: false,
            recent: Recent::default(),
            invited: Vec::new(),
            declined: None,
            handed: HashMap::new(),
        };
        agent.run().await;
    };
    tokio::task::spawn_local(run.instrument(span));
    Ok(AgentHandle { orders: give, status })
}

impl Agent {
    async fn run(mut self) {
        let mut losses = 0;
        loop {
            let since = Instant::now();
            let end = match self.come_up().await {
                Ok(sandbox) => {
                    self.life.has_vm(sandbox.vmm_pid());
                    Live::run(&mut self, sandbox).await
                }
                Err(end) => end,
            };
            match end {
                End::Released => return,
                End::Left { reason, done } => return self.leave(&reason, done).await,
                End::Lost(why) => {
                    losses = if since.elapsed() > STABLE { 1 } else { losses + 1 };
                    let wait = (losses < MOST_LOSSES).then(|| FIRST_WAIT * 2u32.pow(losses - 1));
                    self.life.lost(&why, wait.is_some());
                    self.log.add(&format!("lost: {why}"));
                    self.clear().await;
                    self.tell(Event::Lost { agent: self.name(), why, losses, retry_in: wait });
                    match self.idle(wait).await {
                        None => {}
                        Some(End::Left { reason, done }) => return self.leave(&reason, done).await,
                        Some(_) => return,
                    }
                    if wait.is_none() {
                        losses = 0;
                    }
                }
            }
        }
    }

    /// Has no VM: for so long, or until it is resumed.
    async fn idle(&mut self, wait: Option<Duration>) -> Option<End> {
        let over = async {
            match wait {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(over);
        loop {
            tokio::select! {
                () = &mut over => return None,
                order = self.orders.recv() => match order {
                    Some(Order::Pause(false)) if wait.is_none() => return None,
                    Some(order) => if let Some(end) = self.without_machine(order) {
                        return Some(end);
                    },
                    None => return Some(End::Released),
                },
                heard = self.heard.next(), if !self.deaf => self.hear_for_later(heard),
            }
        }
    }

    /// Deals with an order that needs no VM.
    fn without_machine(&mut self, order: Order) -> Option<End> {
        match order {
            Order::Leave { reason, done } => return Some(End::Left { reason, done }),
            Order::Release => return Some(End::Released),
            Order::Reload => self.reload(),
            Order::Logs { lines, done } => {
                let _ = done.send(self.log.last(lines));
            }
            Order::Commands { done } => {
                let (name, condition) = (self.name(), self.life.condition());
                let _ = done.send(Err(Error::NotNow { name, condition, problem: None }));
            }
            Order::Answered(question) => self.tell_asker(&question),
            Order::Pause(_) => {}
        }
        None
    }

    /// Takes over the VM that is there, or starts one. Orders are heard
    /// meanwhile.
    async fn come_up(&mut self) -> std::result::Result<Box<dyn Sandbox>, End> {
        self.life.to(Condition::Starting);
        let (shared, row, template) =
            (Rc::clone(&self.shared), self.row.clone(), self.template.clone());
        let coming = async move { sandbox(&shared, &row, &template).await };
        tokio::pin!(coming);
        loop {
            tokio::select! {
                sandbox = &mut coming => return sandbox.map_err(|e| End::Lost(e.to_string())),
                order = self.orders.recv() => {
                    let end = match order {
                        Some(order) => self.without_machine(order),
                        None => Some(End::Released),
                    };
                    if let Some(end) = end {
                        return Err(end);
                    }
                }
                heard = self.heard.next(), if !self.deaf => self.hear_for_later(heard),
            }
        }
    }

    /// Says goodbye and frees everything but the workspace.
    async fn leave(mut self, reason: &str, done: oneshot::Sender<()>) {
        self.life.to(Condition::Leaving);
        self.log.add(&format!("leaves: {reason}"));
        // First the connection: nobody should speak to who is not there.
        self.connection.quit(reason).await;
        self.clear().await;
        self.shared.ours.borrow_mut().is_gone(&self.row.name, Instant::now());
        self.shared.talk.borrow_mut().forget(&self.row.name);
        self.shared.broker.forget(&self.row.name);
        if let Err(e) = self.shared.state.borrow().remove(&self.row.name) {
            self.trouble(format!("could not be forgotten: {e}"));
        }
        let _ = done.send(());
    }

    /// Ends the VM and forgets it.
    async fn clear(&mut self) {
        let cleared = clear(&self.shared, &self.row.name).await;
        if let Err(e) = cleared {
            let problem = format!("its VM could not be removed: {e}");
            self.log.add(&problem);
            self.trouble(problem);
        }
    }

    /// Takes the row and the template on as they are now.
    fn reload(&mut self) {
        if let Ok(Some(row)) = self.shared.state.borrow().agent(&self.row.name) {
            self.row = row;
        }
        match self.shared.templates.get(&self.row.template) {
            Ok(template) => self.template = template,
            Err(e) => {
                self.tell(Event::Unchanged { agent: self.name(), problem: e.to_string() });
            }
        }
    }

    /// An agent that came by a schedule ends with its task.
    fn end_if_done(&self) {
        if self.row.ends.is_none() || self.template.task.is_empty() {
            return;
        }
        let state = self.shared.state.borrow();
        if state.pending(&self.row.name).is_ok_and(|pending| pending.is_empty())
            && state.end_now(&self.row.name).is_ok()
        {
            self.shared.due.notify_one();
        }
    }

    /// Who the agent is now.
    fn config(&self) -> agent::Config {
        let mut config = self.template.config(&self.row.name, &self.row.nick);
        if let Some(model) = &self.row.model {
            config.model.clone_from(model);
        }
        if let Some(persona) = &self.row.persona {
            config.persona.clone_from(persona);
        }
        config
    }

    /// What is wanted of it now.
    fn wanted(&self) -> Option<Wanted> {
        let row = self.shared.state.borrow().agent(&self.row.name).ok()??;
        Some(row.wanted)
    }

    fn name(&self) -> String {
        self.row.name.clone()
    }

    fn tell(&self, event: Event) {
        self.shared.tell(event);
    }

    fn trouble(&self, problem: impl std::fmt::Display) {
        self.tell(Event::trouble(&self.row.name, problem));
    }
}

/// The sandbox that an agent has, or a new one.
async fn sandbox(shared: &Shared, row: &AgentRow, template: &Template) -> Result<Box<dyn Sandbox>> {
    let row = shared.state.borrow().agent(&row.name)?.unwrap_or_else(|| row.clone());
    let (agent, policy) = (row.name.as_str(), shared.policy(&row.name, template)?);
    let tell = |text: &str| shared.tell(Event::Note { text: text.to_owned() });
    if let (Some(id), Some(process)) = (&row.machine, row.process) {
        Span::current().record("sandbox", id);
        let wanted = Request { agent, template, policy: policy.clone(), id };
        match shared.sandboxes.adopt(wanted, process, &tell).await {
            Ok(sandbox) => return Ok(sandbox),
            Err(e) => {
                shared.tell(Event::Replaced { agent: row.name.clone(), why: e.to_string() });
            }
        }
    }
    // Written down before it is made, so that whatever is left is found.
    clear(shared, agent).await?;
    let id = RunDir::fresh_id()?;
    Span::current().record("sandbox", &id);
    shared.state.borrow().set_machine(agent, Some(&id))?;
    let wanted = Request { agent, template, policy, id: &id };
    let sandbox = shared.sandboxes.start(wanted, &tell).await?;
    // Only now is it worth being taken over: until its guest has an identity and
    // a workspace, another is made as fast.
    if let Some(process) = sandbox.stamp() {
        shared.state.borrow().set_process(agent, process)?;
    }
    Ok(sandbox)
}

/// Ends an agent's VM, whether it is known to run or not, and forgets it.
pub async fn clear(shared: &Shared, name: &str) -> Result<()> {
    let row = shared.state.borrow().agent(name)?;
    if let Some(id) = row.and_then(|row| row.machine) {
        shared.sandboxes.clear(&id).await?;
        shared.state.borrow().set_machine(name, None)?;
    }
    Ok(())
}
