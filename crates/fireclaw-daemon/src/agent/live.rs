//! An agent whose VM runs.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use fireclaw_llm::ChatRequest;
use fireclaw_log::Few;
use fireclaw_policy::Network;
use fireclaw_protocol::agent::{Action, Event as Told, Incoming};
use futures_util::StreamExt;
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tracing::info;

use super::hearing::Accepted;
use super::thinking::{Thought, think};
use super::{Agent, Condition, Order};
use crate::Event;
use crate::question::{Asked, Question, is_tool};
use crate::sandboxes::{Health, Program, Said, Sandbox};
use crate::state::{Pending, Wanted};

/// How often what has a time limit is looked at.
const TICK: Duration = Duration::from_secs(1);

/// How often a sandbox is asked whether it is well.
const HEALTH: Duration = Duration::from_secs(30);

/// How often a program may end at once before the VM is given up.
const MOST_ENDS: u32 = 3;
/// A program that ran so long did not end at once.
const RAN: Duration = Duration::from_secs(30);

/// How long the end of a VMM may take to be known after its guest's silence.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// How often a message is handed to a program that does not survive it.
const MOST_TRIES: u32 = 2;

/// What one message may cause, whatever the guest wants.
const MOST_SAYS: u32 = 16;
const MOST_LINES: usize = 16;

/// The last line of an answer that has more lines than that.
const LEFT_OUT: &str = "[the rest is left out]";

/// What a program is told whose question people would not read.
const TOO_LONG: &str = "it is too long to be asked for: put it into a file in smaller steps, \
                        then ask to run that";

/// The same of questions to the model and to people.
const MOST_ASKS: usize = 8;
const MOST_QUESTIONS: usize = 4;

/// What it tells people in a minute: the control channel is everybody's.
const MOST_NOTES: u32 = 8;

/// Actions a second before a program is slowed down.
const PACE: u32 = 100;

/// How it ends.
#[derive(Debug)]
pub enum End {
    /// It was told to leave.
    Left {
        /// What it says as it goes.
        reason: String,
        /// Answered at the end.
        done: oneshot::Sender<()>,
    },
    /// It goes on without this process.
    Released,
    /// Its VM is lost.
    Lost(String),
}

/// A message that the program has and has not dealt with.
struct Active {
    pending: Pending,
    says: u32,
    /// Whether it was told that something failed.
    failed: bool,
    /// Whether the program was told to leave off.
    stopped: bool,
    /// Whether an answer names who asked: several people wait in one conversation.
    named: bool,
}

impl Active {
    /// A text for who asked.
    fn addressed(&self, text: &str) -> String {
        let asker = &self.pending.sender;
        let is_named = text.split_once([':', ',']).is_some_and(|(start, _)| start == asker);
        match self.named && !is_named {
            true => format!("{asker}: {text}"),
            false => text.to_owned(),
        }
    }
}

/// An agent whose VM runs.
pub struct Live<'a> {
    agent: &'a mut Agent,
    sandbox: Box<dyn Sandbox>,
    program: Program,
    started: Instant,
    ends: u32,
    ready: bool,
    paused: bool,
    active: BTreeMap<u64, Active>,
    thoughts: JoinSet<Thought>,
    /// By the agent's number: the message, and how to cancel it.
    asks: HashMap<u64, (u64, AbortHandle)>,
    /// Open questions: by number, the agent's number and the message.
    questions: BTreeMap<u64, (u64, u64)>,
    actions: (Instant, u32),
    notes: Few,
    checked: Instant,
    health: JoinSet<Health>,
}

/// Something that makes the VM useless.
type Lost = String;

impl<'a> Live<'a> {
    /// Serves the agent until it ends.
    pub async fn run(agent: &'a mut Agent, sandbox: Box<dyn Sandbox>) -> End {
        let program = match sandbox.program(&agent.template.command).await {
            Ok(program) => program,
            Err(e) => return End::Lost(e.to_string()),
        };
        let mut live = Self {
            agent,
            sandbox,
            program,
            started: Instant::now(),
            ends: 0,
            ready: false,
            paused: false,
            active: BTreeMap::new(),
            thoughts: JoinSet::new(),
            asks: HashMap::new(),
            questions: BTreeMap::new(),
            actions: (Instant::now(), 0),
            notes: Few::new(MOST_NOTES, Instant::now().into_std()),
            checked: Instant::now(),
            health: JoinSet::new(),
        };
        let end = match live.serve().await {
            Ok(end) => end,
            Err(lost) => End::Lost(live.cause(lost).await),
        };
        live.save(&end).await;
        end
    }

    /// Has the VM write its disks, unless it goes on. One that was lost may still be
    /// able to: its program may be what failed.
    async fn save(&mut self, end: &End) {
        let saved = match end {
            End::Released => return,
            End::Left { .. } | End::Lost(_) => tokio::select! {
                saved = self.sandbox.save() => saved,
                _ = self.sandbox.died() => return,
            },
        };
        if let (Err(e), End::Left { .. }) = (saved, end) {
            self.agent.log.add(&e.to_string());
            self.agent.trouble(e);
        }
    }

    /// What is behind a loss: most often the VMM's end, of which its guest's silence
    /// is heard first at times.
    async fn cause(&mut self, lost: Lost) -> Lost {
        match tokio::time::timeout(LAST_WORDS, self.sandbox.died()).await {
            Ok(death) => death,
            Err(_) => lost,
        }
    }

    async fn serve(&mut self) -> Result<End, Lost> {
        self.configure()?;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                order = self.agent.orders.recv() => match order {
                    Some(order) => if let Some(end) = self.order(order).await? {
                        return Ok(end);
                    },
                    None => return Ok(End::Released),
                },
                heard = self.agent.heard.next(), if !self.agent.deaf => {
                    match self.agent.hear(heard) {
                        Some(Accepted::Message(message)) => self.deliver(message)?,
                        Some(Accepted::Stop { from, conversation, tell }) => {
                            let stopped = self.stop(&from, conversation.as_deref())?;
                            if let (Some(conversation), true) = (conversation, tell) {
                                self.agent.tell_stopped(&from, &conversation, stopped);
                            }
                        }
                        Some(Accepted::Renamed { from, to }) => {
                            for active in self.active.values_mut() {
                                active.pending.rename_sender(&from, &to);
                            }
                        }
                        None => {}
                    }
                }
                said = self.program.next() => self.said(said).await?,
                Some(thought) = self.thoughts.join_next() => {
                    // An error is a thought that was cancelled.
                    if let Ok(thought) = thought {
                        self.thought(thought)?;
                    }
                }
                Some(health) = self.health.join_next() => {
                    match health {
                        _ if self.paused => {}
                        Ok(Health::Silent) => return Err("its VM no longer answers".into()),
                        Ok(Health::ReadOnly) => {
                            return Err("a disk error left its workspace read-only".into());
                        }
                        Ok(Health::Well) | Err(_) => {}
                    }
                }
                death = self.sandbox.died() => return Err(death),
                _ = tick.tick() => self.tick()?,
            }
            self.show();
        }
    }

    fn show(&self) {
        let condition = match (self.paused, self.ready, self.active.is_empty()) {
            (true, ..) => Condition::Paused,
            (_, false, _) => Condition::Starting,
            (_, true, true) => Condition::Ready,
            (_, true, false) => Condition::Busy,
        };
        self.agent.life.to(condition);
    }

    fn tell(&self, event: &Told) -> Result<(), Lost> {
        self.program.tell(event).map_err(|e| e.to_string())
    }

    fn configure(&mut self) -> Result<(), Lost> {
        let event = Told::Configure(self.agent.config());
        self.tell(&event)
    }

    async fn order(&mut self, order: Order) -> Result<Option<End>, Lost> {
        match order {
            Order::Reload => {
                let before = self.agent.config();
                let had_skills = !self.agent.template.skills.is_empty();
                let network = self.agent.template.network.clone();
                self.agent.reload();
                if network != self.agent.template.network {
                    self.refresh_network(&network);
                }
                let after = self.agent.config();
                if had_skills || !self.agent.template.skills.is_empty() {
                    self.refresh_skills();
                }
                if before != after {
                    self.configure()?;
                    let text = format!("[reloaded: model={}]", after.model);
                    self.agent.log.add(&text);
                    let lobby = self.agent.shared.config.lobby.clone();
                    self.agent.say_soon(&lobby, &text);
                }
            }
            Order::Pause(paused) => self.pause(paused)?,
            Order::Answered(question) => self.answered(&question)?,
            Order::Commands { done } if !self.paused => {
                let _ = done.send(Ok(self.sandbox.commands()));
            }
            other => return Ok(self.agent.without_machine(other)),
        }
        Ok(None)
    }

    /// Has the VM's gateway take on another policy, if it has a gateway and still
    /// needs one.
    fn refresh_network(&self, before: &Network) {
        let name = self.agent.row.name.clone();
        let after = &self.agent.template.network;
        if [before, after].contains(&&Network::None) {
            self.agent.tell(Event::policy(&name, after, false));
            return;
        }
        let shared = Rc::clone(&self.agent.shared);
        let (row, template) = (self.agent.row.clone(), self.agent.template.clone());
        tokio::task::spawn_local(async move {
            let changed = async {
                let policy = shared.policy(&row.name, &template)?;
                let id = row.machine.unwrap_or_default();
                shared.sandboxes.set_policy(&id, policy).await
            };
            match changed.await {
                Ok(()) => shared.tell(Event::policy(&name, &template.network, true)),
                Err(e) => {
                    let problem = format!("its network policy was not changed: {e}");
                    shared.tell(Event::trouble(&name, problem));
                }
            }
        });
    }

    /// The program finds them at its next message.
    fn refresh_skills(&self) {
        let (shared, commands) = (Rc::clone(&self.agent.shared), self.sandbox.commands());
        let (name, template) = (self.agent.row.name.clone(), self.agent.template.clone());
        tokio::task::spawn_local(async move {
            if let Err(e) = shared.sandboxes.refresh_skills(&commands, &template).await {
                shared.tell(Event::trouble(&name, e));
            }
        });
    }

    fn pause(&mut self, paused: bool) -> Result<(), Lost> {
        if paused == self.paused {
            return Ok(());
        }
        self.sandbox.pause(paused).map_err(|e| e.to_string())?;
        self.paused = paused;
        self.checked = Instant::now();
        if !paused {
            self.deliver_all()?;
        }
        Ok(())
    }

    /// Hands the program everything that it has not been handed.
    fn deliver_all(&mut self) -> Result<(), Lost> {
        let pending = self.agent.shared.state.borrow().pending(&self.agent.row.name);
        for message in pending.unwrap_or_default() {
            self.deliver(message)?;
        }
        Ok(())
    }

    fn deliver(&mut self, pending: Pending) -> Result<(), Lost> {
        if !self.ready || self.paused || self.active.contains_key(&pending.id) {
            return Ok(());
        }
        let handed = self.agent.handed.entry(pending.id).or_default();
        *handed += 1;
        if *handed > MOST_TRIES {
            // It may be what the program dies of.
            self.agent
                .say_soon(&pending.conversation, "I failed at that several times; giving up on it");
            self.agent.finish(pending.id);
            return Ok(());
        }
        let message = Incoming {
            id: pending.id,
            conversation: pending.conversation.clone(),
            private: pending.private,
            from: pending.sender.clone(),
            text: pending.text.clone(),
            from_agent: pending.from_agent,
            recent: pending.recent.clone(),
        };
        let named = self.has_company(&pending);
        // Not what was said: that is between them.
        info!(
            message_id = pending.id,
            conversation = %fireclaw_host::escape(&pending.conversation),
            from = %fireclaw_host::escape(&pending.sender),
            "is handed a message"
        );
        let active = Active { pending, says: 0, failed: false, stopped: false, named };
        self.active.insert(message.id, active);
        self.tell(&Told::Message(message))
    }

    /// Whether somebody else waits for an answer in the place of a message, who then is told
    /// apart. Whose turn is later is told so.
    fn has_company(&mut self, pending: &Pending) -> bool {
        // An agent that is named would take the answer for a message.
        if pending.private || pending.from_agent {
            return false;
        }
        let mut before = None;
        let mut waits = false;
        let here = |active: &&mut Active| {
            active.pending.conversation == pending.conversation && !active.pending.from_agent
        };
        for other in self.active.values_mut().filter(here) {
            if other.pending.sender == pending.sender {
                waits = true;
                continue;
            }
            other.named = true;
            before.get_or_insert_with(|| other.pending.sender.clone());
        }
        // Only of the built-in program is it known that it takes one after the other.
        if let (Some(first), false, []) = (&before, waits, &self.agent.template.command[..]) {
            let text = format!("{}: I answer {first} first", pending.sender);
            self.agent.say_soon(&pending.conversation, &text);
        }
        before.is_some()
    }

    /// Somebody no longer wants an answer; whether there would have been one.
    fn stop(&mut self, from: &str, conversation: Option<&str>) -> Result<bool, Lost> {
        let active = &mut self.active;
        let dequeued = self.agent.dequeue(from, conversation, |id| active.contains_key(&id));
        // Once: who goes on saying it must not fill what waits for the program.
        let theirs: Vec<u64> = active
            .iter_mut()
            .filter(|(_, active)| active.pending.is_of(from, conversation))
            .filter_map(|(id, active)| {
                (!std::mem::replace(&mut active.stopped, true)).then_some(*id)
            })
            .collect();
        let stopped = dequeued > 0 || !theirs.is_empty();
        for message in theirs {
            self.cancel(message);
            self.tell(&Told::Stop { message })?;
        }
        Ok(stopped)
    }

    /// Cancels what the model is asked for a message.
    fn cancel(&mut self, message: u64) {
        self.asks.retain(|_, (of, handle)| {
            if *of == message {
                handle.abort();
            }
            *of != message
        });
    }

    async fn said(&mut self, said: Said) -> Result<(), Lost> {
        match said {
            Said::Action(action) => {
                self.slow_down().await;
                self.action(action).await
            }
            Said::Log(line) => {
                self.slow_down().await;
                self.agent.log.add_of_guest(&line);
                Ok(())
            }
            Said::Nonsense(what) => {
                self.slow_down().await;
                self.agent.log.add_of_guest(&format!("says what is no action: {what}"));
                Ok(())
            }
            Said::Ended(how) => self.start_again(&how).await,
        }
    }

    /// A program that says too much is heard more slowly.
    async fn slow_down(&mut self) {
        let (since, count) = &mut self.actions;
        if since.elapsed() > Duration::from_secs(1) {
            (*since, *count) = (Instant::now(), 0);
        }
        *count += 1;
        if *count > PACE {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn start_again(&mut self, how: &str) -> Result<(), Lost> {
        self.agent.log.add(&format!("the program {how}"));
        self.ends = if self.started.elapsed() > RAN { 1 } else { self.ends + 1 };
        if self.ends > MOST_ENDS {
            return Err(format!("its program {how}"));
        }
        for message in self.active.keys().copied().collect::<Vec<_>>() {
            self.cancel(message);
        }
        // It is handed everything again once it is ready.
        self.active.clear();
        self.questions.clear();
        self.ready = false;
        self.started = Instant::now();
        let program = self.sandbox.program(&self.agent.template.command).await;
        self.program = program.map_err(|e| e.to_string())?;
        self.configure()
    }

    async fn action(&mut self, action: Action) -> Result<(), Lost> {
        match action {
            Action::Ready { notes } => {
                if !std::mem::replace(&mut self.ready, true) {
                    let seconds = self.started.elapsed().as_secs_f32();
                    self.agent.log.add(&format!("is ready after {seconds:.1} s"));
                    self.agent.tell(Event::Ready { agent: self.agent.name() });
                }
                self.note(&notes);
                if self.agent.wanted() == Some(Wanted::Paused) {
                    return self.pause(true);
                }
                self.deliver_all()
            }
            Action::Say { message, text } => self.say(message, &text).await,
            Action::Think { ask, message, messages, tools } => {
                let Some(active) = self.active.get(&message) else { return Ok(()) };
                if self.asks.len() >= MOST_ASKS || self.asks.contains_key(&ask) {
                    return self.failed(ask, message, "it asks for too much at once");
                }
                let config = self.agent.config();
                let request = ChatRequest {
                    model: config.model,
                    messages,
                    tools: if config.tools { tools } else { Vec::new() },
                    num_ctx: Some(config.context_tokens),
                    ..ChatRequest::default()
                };
                let ticket = self.agent.shared.broker.ask(&self.agent.row.name, request);
                let (connection, conversation) =
                    (Arc::clone(&self.agent.connection), active.pending.conversation.clone());
                let handle = self.thoughts.spawn_local(think(
                    ticket,
                    ask,
                    message,
                    connection,
                    conversation,
                ));
                self.asks.insert(ask, (message, handle));
                Ok(())
            }
            Action::Approve { ask, message, tool, what } => {
                self.question(ask, message, &tool, &what)
            }
            Action::Done { message } => {
                self.cancel(message);
                self.questions.retain(|_, (_, of)| *of != message);
                if let Some(active) = self.active.remove(&message) {
                    info!(message_id = message, "is done with a message");
                    let _ = self.agent.connection.typing(&active.pending.conversation, false).await;
                }
                self.agent.finish(message);
                self.agent.end_if_done();
                Ok(())
            }
        }
    }

    /// Tells what the program wants the people to know.
    fn note(&mut self, notes: &[String]) {
        for note in notes {
            if self.notes.take(Instant::now().into_std()) {
                self.agent.log.add_of_guest(&fireclaw_host::escape(note));
                self.agent.tell(Event::Says { agent: self.agent.name(), text: note.clone() });
            }
        }
    }

    async fn say(&mut self, message: u64, text: &str) -> Result<(), Lost> {
        let name = self.agent.row.name.clone();
        let Some(active) = self.active.get_mut(&message) else { return Ok(()) };
        active.says += 1;
        if active.says > MOST_SAYS {
            // Once: a flood must not get into the log either.
            if active.says == MOST_SAYS + 1 {
                self.agent.log.add("says too much; the rest is left out");
            }
            return Ok(());
        }
        let (conversation, hops) = (active.pending.conversation.clone(), active.pending.hops);
        let answer = active.addressed(text);
        let folded = self.agent.connection.fold(&conversation, &answer, MOST_LINES);
        self.agent.shared.talk.borrow_mut().says(&name, &conversation, hops);
        let rest = folded.rest.then_some(LEFT_OUT);
        for line in folded.lines.iter().map(String::as_str).chain(rest) {
            if let Err(e) = self.agent.connection.say(&conversation, line).await {
                self.agent.log.add(&format!("could not say something in {conversation}: {e}"));
                break;
            }
        }
        Ok(())
    }

    fn thought(&mut self, thought: Thought) -> Result<(), Lost> {
        let Thought { ask, message, step } = thought;
        if self.asks.remove(&ask).is_none() {
            return Ok(());
        }
        match step {
            Ok(step) => self.tell(&Told::Thought { ask, step }),
            Err(reason) => self.failed(ask, message, &reason),
        }
    }

    /// Tells who waits, once, and the program.
    fn failed(&mut self, ask: u64, message: u64, reason: &str) -> Result<(), Lost> {
        self.agent.log.add(&format!("no answer from the model: {reason}"));
        if let Some(active) = self.active.get_mut(&message)
            && !std::mem::replace(&mut active.failed, true)
        {
            self.agent.say_soon(&active.pending.conversation, &active.addressed(reason));
        }
        self.tell(&Told::Failed { ask, reason: reason.to_owned() })
    }

    fn question(&mut self, ask: u64, message: u64, tool: &str, what: &str) -> Result<(), Lost> {
        match self.put(ask, message, tool, what) {
            Ok(None) => Ok(()),
            Ok(Some((granted, reason))) => self.tell(&Told::Approval { ask, granted, reason }),
            Err(e) => {
                let reason = e.to_string();
                self.tell(&Told::Approval { ask, granted: false, reason })
            }
        }
    }

    /// Puts a question to the people; the answer, if there is one at once.
    fn put(
        &mut self,
        ask: u64,
        message: u64,
        tool: &str,
        what: &str,
    ) -> crate::Result<Option<(bool, String)>> {
        let no = |reason: &str| Ok(Some((false, reason.to_owned())));
        if !is_tool(tool) {
            return no("the tool's name is none: letters, digits, '_', '-' and '.' make one");
        }
        if what.len() > Question::MAX_WHAT {
            return no(TOO_LONG);
        }
        let Some(active) = self.active.get(&message).map(|active| &active.pending) else {
            return no("there is no such message");
        };
        if self.questions.len() >= MOST_QUESTIONS {
            return no("too many questions are open");
        }
        let asked = Asked {
            message,
            tool: tool.to_owned(),
            what: what.to_owned(),
            asker: active.sender.clone(),
            conversation: active.conversation.clone(),
            private: active.private,
        };
        let question = self.agent.shared.state.borrow_mut().ask(&self.agent.row.name, &asked)?;
        let id = question.id;
        if question.verdict.is_some() {
            return Ok(question.verdict);
        }
        if self.questions.contains_key(&id) {
            return no(&format!("#{id} asks for the same already"));
        }
        if !self.agent.shared.put(&question) {
            self.agent.shared.state.borrow().forget(id)?;
            return no(TOO_LONG);
        }
        self.questions.insert(id, (ask, message));
        Ok(None)
    }

    /// Hands the people's answer on.
    fn answered(&mut self, question: &Question) -> Result<(), Lost> {
        self.agent.tell_asker(question);
        let Some((ask, _)) = self.questions.remove(&question.id) else { return Ok(()) };
        let Some((granted, reason)) = question.verdict.clone() else { return Ok(()) };
        if granted {
            // Handed out, it is used up: it was for one time.
            self.agent.shared.state.borrow().forget(question.id).map_err(|e| e.to_string())?;
        }
        self.tell(&Told::Approval { ask, granted, reason })
    }

    /// What has a time limit.
    fn tick(&mut self) -> Result<(), Lost> {
        if let Some(count) = self.notes.left_out(Instant::now().into_std()) {
            self.agent.tell(Event::LeftOut { agent: self.agent.name(), count: count.into() });
        }
        if self.checked.elapsed() > HEALTH && !self.paused && self.health.is_empty() {
            self.checked = Instant::now();
            self.health.spawn_local(self.sandbox.health());
        }
        Ok(())
    }
}
