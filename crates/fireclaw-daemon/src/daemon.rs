//! The daemon: all agents, and what they share.

#[cfg(test)]
mod tests;
mod unknown;
mod unrestored;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use fireclaw_chat::{Case, Member, Message, Sender};
use fireclaw_image::Home;
use fireclaw_llm::{Broker, ChatModel, ModelInfo, Server};
use fireclaw_protocol::message::ExecRequest;
use fireclaw_template::{Entry, Store, Template, names};
use fireclaw_vm::Commands;
use futures_util::future::LocalBoxFuture;
use serde::Serialize;
use tokio::sync::{Notify, broadcast, mpsc, oneshot, watch};
use tokio::time::Instant;
use tracing::info;

use crate::agent::{self, AgentHandle, Order};
use crate::lifecycle::{Condition, Status};
use crate::ours::OVERSEER;
use crate::sandbox::SandboxHandle;
use crate::sandboxes::{Sandboxes, Vms};
use crate::shared::Shared;
use crate::state::{Act, AgentRow, Pending, State, Wanted, now};
use crate::talk::Talk;
use crate::{Actor, Claim, Config, Error, Event, Events, Result, event, log};

/// What the log calls privileged acts.
const AUDITED: &str = "fireclaw_daemon::audited";

/// The file of the state, in the home.
pub const STATE: &str = "state.db";

/// Who has sent the task of an agent that came by a schedule: no nick, which has no space.
const SCHEDULE: &str = "the schedule";

/// How many jobs wait for the daemon before who hands one in waits.
const ROOM: usize = 64;

/// How many pieces of what programs of sandboxes write wait for their files.
const OUTPUTS: usize = 64;

/// How long an agent may take to leave.
const LEAVING: Duration = Duration::from_secs(60);

/// An agent of the state, as this daemon has it.
enum Known {
    /// It has a task.
    Running(AgentHandle),
    /// It failed to restore, and why.
    Unrestored(String),
}

impl Known {
    fn handle(&self) -> Option<&AgentHandle> {
        match self {
            Self::Running(handle) => Some(handle),
            Self::Unrestored(_) => None,
        }
    }

    fn status(&self, row: &AgentRow) -> Status {
        match self {
            Self::Running(handle) => handle.status.borrow().clone(),
            Self::Unrestored(problem) => {
                let problem = Some(problem.clone());
                Status { problem, ..Status::new(Condition::Failed, &row.nick) }
            }
        }
    }
}

/// What a list tells of an agent.
#[derive(Debug, Clone, Serialize)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Its template.
    pub template: String,
    /// Its model.
    pub model: String,
    /// How it is.
    #[serde(flatten)]
    pub status: Status,
    /// When it was made: seconds since the epoch.
    pub created: i64,
    /// The channels that it is in.
    pub channels: Vec<String>,
}

/// The daemon. Clones are the same.
#[derive(Clone)]
pub struct Daemon {
    shared: Rc<Shared>,
    vms: Rc<Vms>,
    agents: Rc<RefCell<BTreeMap<String, Known>>>,
    /// Named sandboxes by id.
    named: Rc<RefCell<BTreeMap<String, SandboxHandle>>>,
    /// Whether those of an earlier daemon are among them.
    known: Rc<watch::Sender<bool>>,
    jobs: mpsc::Sender<Job>,
    /// Those that were not begun, until they are served.
    waiting: Rc<RefCell<Option<mpsc::Receiver<Job>>>>,
    _claim: Rc<Claim>,
}

/// Something to do on the daemon's thread.
pub(crate) type Job = Box<dyn FnOnce(Daemon) -> LocalBoxFuture<'static, ()> + Send>;

impl Daemon {
    /// Opens the state of a home that is claimed, with all events from then on.
    ///
    /// # Errors
    /// Whatever the state can say, and [`Error::Model`] for an address that cannot be
    /// a model server's.
    pub fn open(claim: Claim, config: Config) -> Result<(Self, Events)> {
        let model = Server::new(config.model.clone())?;
        let vms = Rc::new(Vms::new(config.home.clone(), config.vmm));
        let sandboxes = Rc::clone(&vms) as Rc<dyn Sandboxes>;
        Self::with(claim, config, Arc::new(model), vms, sandboxes)
    }

    /// The same with other models and sandboxes.
    pub(crate) fn with(
        claim: Claim,
        config: Config,
        model: Arc<dyn ChatModel>,
        vms: Rc<Vms>,
        sandboxes: Rc<dyn Sandboxes>,
    ) -> Result<(Self, Events)> {
        let root = config.home.root().to_owned();
        let no_thread = |e| Error::System("starting a thread", e);
        let (events, receiver) = broadcast::channel(event::ROOM);
        let (jobs, waiting) = mpsc::channel(ROOM);
        let shared = Shared {
            state: RefCell::new(State::open(&root.join(STATE))?),
            templates: Store::open([root.join("templates")]),
            broker: Broker::new(model, config.limits.clone()),
            sandboxes,
            logs: log::Writer::start().map_err(no_thread)?,
            outputs: log::Writer::with_room(OUTPUTS).map_err(no_thread)?,
            talk: RefCell::new(Talk::new(config.max_hops, config.loop_pause)),
            ours: RefCell::default(),
            operators: RefCell::default(),
            unknown: RefCell::default(),
            due: Notify::new(),
            asked: Notify::new(),
            events,
            config,
        };
        let daemon = Self {
            shared: Rc::new(shared),
            vms,
            agents: Rc::default(),
            named: Rc::default(),
            known: Rc::default(),
            jobs,
            waiting: Rc::new(RefCell::new(Some(waiting))),
            _claim: Rc::new(claim),
        };
        daemon.spare_unknown()?;
        Ok((daemon, Events(receiver)))
    }

    /// Looks at the state of a home without changing it; whether there is one.
    ///
    /// # Errors
    /// Those of the state, with its path.
    pub fn check_state(home: &Home) -> Result<bool> {
        State::check(&home.root().join(STATE)).map(|found| found.is_some())
    }

    /// Whether a message comes from one of our own connections, which are never obeyed.
    pub fn is_ours(&self, message: &Message, case: Case) -> bool {
        self.shared.is_ours(&message.from, case)
    }

    /// Whether who said this in the control channel may give commands.
    pub fn may(&self, message: &Message, case: Case) -> bool {
        self.shared.may(&message.from, Some(message.is_operator), case)
    }

    /// The overseer's own connection has this nick now.
    pub fn overseer_is(&self, nick: &str) {
        self.shared.ours.borrow_mut().has_nick(OVERSEER, nick, Instant::now());
    }

    /// The network shows the overseer's own connection like this.
    pub fn overseer_is_shown(&self, shown: &Sender) {
        self.shared.ours.borrow_mut().is_shown(OVERSEER, shown);
    }

    /// Who is in the control channel now.
    pub fn control_has(&self, members: &[Member]) {
        let operators = members.iter().filter(|member| member.is_operator);
        *self.shared.operators.borrow_mut() = operators.map(|member| member.nick.clone()).collect();
    }

    /// A nick in the control channel no longer stands for who had it.
    pub fn control_lost(&self, nick: &str, case: Case) {
        self.shared.operators.borrow_mut().retain(|operator| !case.same(operator, nick));
    }

    /// What it was started with.
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// Brings everything to where it was wanted when the last daemon ended:
    /// takes living VMs over, replaces dead ones, and frees what is nobody's.
    pub async fn reconcile(&self) -> Result<()> {
        let rows = self.shared.state.borrow().agents()?;
        let sandboxes = self.shared.state.borrow().sandboxes()?;
        if let Err(e) = self.sweep_networks().await {
            let problem = format!("network cleanup failed: {e}");
            self.shared.trouble(problem);
        }
        for id in self.vms.ids() {
            let machines = rows.iter().map(|row| &row.machine);
            let is_known = machines
                .chain(sandboxes.iter().map(|row| &row.machine))
                .any(|machine| machine.as_ref() == Some(&id));
            if !is_known && !self.shared.unknown.borrow().contains(&id) {
                self.vms.clear(&id).await?;
                self.shared.tell(Event::Cleared { sandbox: id });
            }
        }
        for row in rows {
            if row.wanted == Wanted::Gone {
                if let Some(id) = &row.machine {
                    self.vms.clear(id).await?;
                }
                self.shared.state.borrow().remove(&row.name)?;
                continue;
            }
            let name = row.name.clone();
            let started = match self.shared.templates.get(&row.template) {
                Ok(template) => self.start(row, template),
                Err(e) => Err(e.into()),
            };
            if let Err(e) = started {
                self.fail_to_restore(&name, &e);
            }
        }
        self.reconcile_sandboxes().await?;
        self.vms.sweep().await
    }

    /// Frees what is left of networks of VMs that are no more.
    async fn sweep_networks(&self) -> Result<()> {
        let home = self.shared.config.home.root().to_owned();
        let swept = tokio::task::spawn_blocking(move || fireclaw_net::sweep(&home));
        Ok(swept.await.map_err(|e| Error::System("clearing networks away", e.into()))??)
    }

    fn start(&self, row: AgentRow, template: Template) -> Result<()> {
        let name = row.name.clone();
        let handle = agent::start(&self.shared, row, template)?;
        self.agents.borrow_mut().insert(name, Known::Running(handle));
        Ok(())
    }

    /// Makes an agent from a template. It boots when this returns.
    ///
    /// # Errors
    /// [`Error::Template`], [`Error::BadName`], [`Error::NameTaken`].
    pub(crate) async fn invoke(
        &self,
        who: &Actor,
        template: &str,
        name: Option<&str>,
        model: Option<&str>,
    ) -> Result<String> {
        let template = self.shared.templates.get(template)?;
        let name = name.unwrap_or(&template.name).to_owned();
        let nick = if name == template.name { template.nick.clone() } else { name.clone() };
        let model = model.map(str::to_owned);
        self.add(who, template, AgentRow { model, ..fresh_row(name, nick) }, None)
    }

    /// Makes the agent of a template that is due. It is told the template's task, and
    /// ends when its time is up.
    ///
    /// # Errors
    /// Those of [`Daemon::invoke`].
    pub(crate) async fn invoke_scheduled(&self, template: &Template) -> Result<String> {
        let name = format!("{}{}", template.name, names::SCHEDULED);
        let lives = i64::try_from(template.schedule_timeout.as_secs()).unwrap_or(i64::MAX);
        let ends = Some(now().saturating_add(lives));
        let row = AgentRow { ends, ..fresh_row(name.clone(), name) };
        let task = (!template.task.is_empty()).then(|| Pending {
            id: 0,
            conversation: self.shared.config.lobby.clone(),
            private: false,
            sender: SCHEDULE.into(),
            from_agent: false,
            hops: 0,
            text: template.task.clone(),
            recent: Vec::new(),
        });
        self.add(&Actor::Schedule, template.clone(), row, task)
    }

    fn add(
        &self,
        who: &Actor,
        template: Template,
        row: AgentRow,
        task: Option<Pending>,
    ) -> Result<String> {
        let name = row.name.clone();
        let bad = |problem: String| Error::BadName { name: name.clone(), problem };
        names::check_agent(&name).map_err(|e| bad(e.to_string()))?;
        names::check_nick(&row.nick).map_err(|e| bad(e.to_string()))?;
        let row = AgentRow { template: template.name.clone(), ..row };
        let lobby = [self.shared.config.lobby.clone()];
        self.shared.state.borrow_mut().add(&row, &lobby)?;
        self.audit(who, &format!("invoke {} as {name}", template.name));
        if let Some(task) = task {
            self.shared.state.borrow().keep(&name, &task)?;
        }
        if let Err(e) = self.start(row, template) {
            self.shared.state.borrow().remove(&name)?;
            return Err(e);
        }
        let (daemon, agent) = (self.clone(), name.clone());
        // It boots meanwhile; nobody should find out only by asking it.
        tokio::task::spawn_local(async move {
            if let Err(e) = daemon.check_model(&agent).await {
                daemon.shared.tell(Event::no_model(&agent, &e));
            }
        });
        Ok(name)
    }

    /// Agents that live for a time only, and when that is up: seconds since the epoch.
    pub(crate) fn ends(&self) -> Result<Vec<(String, i64)>> {
        let rows = self.shared.state.borrow().agents()?;
        let agents = self.agents.borrow();
        let living = rows
            .into_iter()
            .filter(|row| agents.get(&row.name).is_some_and(|known| known.handle().is_some()));
        Ok(living.filter_map(|row| Some((row.name, row.ends?))).collect())
    }

    /// Whether an agent that came by a schedule has nothing left to do.
    pub(crate) fn has_done_its_task(&self, name: &str) -> bool {
        let Ok(row) = self.row(name) else { return false };
        let template = self.shared.templates.get(&row.template);
        let messages = self.shared.state.borrow().pending(name).unwrap_or_default();
        template.is_ok_and(|template| !template.task.is_empty()) && messages.is_empty()
    }

    /// Ends an agent; its workspace stays for the next one of its name.
    ///
    /// # Errors
    /// [`Error::UnknownAgent`].
    pub(crate) async fn destroy(&self, who: &Actor, name: &str, reason: &str) -> Result<()> {
        if self.is_unrestored(name) {
            return self.destroy_unrestored(who, name).await;
        }
        let orders = self.orders(name)?;
        self.note_end(who, name)?;
        let (done, left) = oneshot::channel();
        let leave = Order::Leave { reason: reason.to_owned(), done };
        // It may be on its way already, asked by somebody else: then nothing answers us.
        let asked = orders.send(leave).await.map_err(|_| Error::Ending);
        let left = tokio::time::timeout(LEAVING, left).await;
        self.agents.borrow_mut().remove(name);
        let is_gone = matches!(self.shared.state.borrow().agent(name), Ok(None));
        match left {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) if is_gone => Ok(()),
            _ => asked.and(Err(Error::Program("does not stop; the next start removes it".into()))),
        }
    }

    /// Removes the workspace, the memories and the log of an agent that no longer runs.
    ///
    /// # Errors
    /// [`Error::Running`], [`Error::NoWorkspace`], [`Error::BadName`], [`Error::File`];
    /// [`Error::Unsupported`] while VMs run that the state does not know.
    pub(crate) async fn remove(&self, who: &Actor, name: &str) -> Result<()> {
        let bad = |e: names::InvalidName| Error::BadName {
            name: name.to_owned(),
            problem: e.to_string(),
        };
        names::check_agent(name).map_err(bad)?;
        if self.shared.state.borrow().agent(name)?.is_some() {
            return Err(Error::Running { name: name.to_owned() });
        }
        // One of them may use it, and the state that knows may come back.
        if !self.shared.unknown.borrow().is_empty() {
            let problem = "VMs are running that state.db does not know, and one may use it";
            return Err(Error::Unsupported(problem.into()));
        }
        let Some(gone) = self.vms.take_away(name)? else {
            return Err(Error::NoWorkspace { name: name.to_owned() });
        };
        self.audit(who, &format!("remove {name}"));
        self.vms.remove(gone).await
    }

    /// Notes that an agent is to be gone.
    fn note_end(&self, who: &Actor, name: &str) -> Result<()> {
        match self.shared.state.borrow().want(name, Wanted::Gone) {
            // Its end is what makes room: only a crash before it would bring the agent back.
            Err(e) if e.is_full_disk() => {}
            noted => noted?,
        }
        self.audit(who, &format!("destroy {name}"));
        Ok(())
    }

    /// Gives an agent another model, which must be there.
    ///
    /// # Errors
    /// [`Error::UnknownAgent`], [`Error::Model`].
    pub(crate) async fn set_model(&self, who: &Actor, name: &str, model: &str) -> Result<()> {
        let orders = self.orders(name)?;
        self.shared.broker.check(model).await?;
        self.shared.state.borrow().set_model(name, model)?;
        self.audit(who, &format!("model {name} {model}"));
        orders.send(Order::Reload).await.map_err(|_| Error::Ending)
    }

    /// Gives an agent another persona.
    ///
    /// # Errors
    /// [`Error::UnknownAgent`].
    pub(crate) async fn set_persona(&self, who: &Actor, name: &str, persona: &str) -> Result<()> {
        let orders = self.orders(name)?;
        self.shared.state.borrow().set_persona(name, persona)?;
        self.audit(who, &format!("persona {name} {persona}"));
        orders.send(Order::Reload).await.map_err(|_| Error::Ending)
    }

    /// An agent's persona now.
    ///
    /// # Errors
    /// [`Error::UnknownAgent`].
    pub(crate) fn persona(&self, name: &str) -> Result<String> {
        let row = self.row(name)?;
        match row.persona {
            Some(own) => Ok(own),
            None => Ok(self.shared.templates.get(&row.template)?.persona),
        }
    }

    /// Has an agent take its template on as it is now, with its model and persona.
    ///
    /// # Errors
    /// [`Error::UnknownAgent`], [`Error::Template`].
    pub(crate) async fn reset(&self, who: &Actor, name: &str) -> Result<()> {
        let orders = self.orders(name)?;
        let row = self.row(name)?;
        self.shared.templates.get(&row.template)?;
        self.shared.state.borrow().reset(name)?;
        self.audit(who, &format!("reset {name}"));
        orders.send(Order::Reload).await.map_err(|_| Error::Ending)
    }

    /// What is wrong with the model of an agent, if anything is: its server does not answer,
    /// or does not have it.
    ///
    /// # Errors
    /// [`Error::UnknownAgent`], [`Error::Template`], [`Error::Model`].
    async fn check_model(&self, name: &str) -> Result<()> {
        let row = self.row(name)?;
        let template = self.shared.templates.get(&row.template)?;
        match row.model.or(template.model) {
            Some(model) => Ok(self.shared.broker.check(&model).await?),
            None => Ok(()),
        }
    }

    /// Has every agent take its template on as it is now.
    pub(crate) async fn reload(&self) {
        for orders in self.all_orders() {
            let _ = orders.send(Order::Reload).await;
        }
    }

    /// Stops an agent's VM where it is, or lets it go on.
    ///
    /// # Errors
    /// [`Error::UnknownAgent`]; [`Error::Template`] if it could not be started again and
    /// still cannot.
    pub(crate) async fn pause(&self, who: &Actor, name: &str, paused: bool) -> Result<()> {
        if self.is_unrestored(name) && !paused {
            return self.resume_unrestored(who, name);
        }
        let orders = self.orders(name)?;
        let wanted = if paused { Wanted::Paused } else { Wanted::Running };
        self.shared.state.borrow().want(name, wanted)?;
        self.audit(who, &format!("{} {name}", if paused { "pause" } else { "resume" }));
        orders.send(Order::Pause(paused)).await.map_err(|_| Error::Ending)
    }

    /// The last lines of an agent's log.
    ///
    /// # Errors
    /// [`Error::UnknownAgent`].
    pub(crate) async fn logs(&self, name: &str, lines: usize) -> Result<Vec<String>> {
        let orders = self.orders(name)?;
        let (done, logs) = oneshot::channel();
        orders.send(Order::Logs { lines, done }).await.map_err(|_| Error::Ending)?;
        logs.await.map_err(|_| Error::Ending)
    }

    /// What starts `request` in an agent's VM; that it is asked for is written down.
    ///
    /// # Errors
    /// [`Error::UnknownAgent`], [`Error::NotNow`].
    pub(crate) async fn commands(
        &self,
        who: &Actor,
        name: &str,
        request: &ExecRequest,
    ) -> Result<Commands> {
        let orders = self.orders(name)?;
        let words: Vec<_> = request.argv.iter().map(|w| String::from_utf8_lossy(w)).collect();
        self.audit(who, &format!("exec {name} {}", words.join(" ")));
        let (done, commands) = oneshot::channel();
        orders.send(Order::Commands { done }).await.map_err(|_| Error::Ending)?;
        commands.await.map_err(|_| Error::Ending)?
    }

    /// The last privileged acts, oldest first.
    pub(crate) fn audited(&self, most: u32) -> Result<Vec<Act>> {
        self.shared.state.borrow().audited(most)
    }

    /// All agents by name.
    pub fn list(&self) -> Result<Vec<Listed>> {
        let rows = self.shared.state.borrow().agents()?;
        let agents = self.agents.borrow();
        let mut list = Vec::new();
        for row in rows {
            let Some(status) = agents.get(&row.name).map(|known| known.status(&row)) else {
                continue;
            };
            let template = self.shared.templates.get(&row.template).ok();
            let model = row.model.or_else(|| template.and_then(|template| template.model));
            list.push(Listed {
                channels: self.shared.state.borrow().channels(&row.name)?,
                name: row.name,
                template: row.template,
                model: model.unwrap_or_default(),
                status,
                created: row.created,
            });
        }
        Ok(list)
    }

    /// The models that there are.
    ///
    /// # Errors
    /// [`Error::Model`].
    pub(crate) async fn models(&self) -> Result<Vec<ModelInfo>> {
        Ok(self.shared.broker.models().await?)
    }

    /// The templates that there are.
    ///
    /// # Errors
    /// [`Error::Template`].
    pub(crate) fn templates(&self) -> Result<Vec<Entry>> {
        Ok(self.shared.templates.list()?)
    }

    /// A template.
    ///
    /// # Errors
    /// [`Error::Template`].
    pub(crate) fn template(&self, name: &str) -> Result<Template> {
        Ok(self.shared.templates.get(name)?)
    }

    /// Where jobs for [`Daemon::serve`] are handed in.
    pub(crate) fn jobs(&self) -> mpsc::Sender<Job> {
        self.jobs.clone()
    }

    /// Does what comes through handles, until dropped. Must run in a
    /// [`tokio::task::LocalSet`].
    pub async fn serve(&self) -> Infallible {
        let waiting = self.waiting.borrow_mut().take();
        if let Some(mut waiting) = waiting {
            while let Some(job) = waiting.recv().await {
                tokio::task::spawn_local(job(self.clone()));
            }
        }
        // We can hand in jobs ourselves, so that was not the end; or somebody serves already.
        std::future::pending().await
    }

    /// Lets go of everything; VMs live on for the next daemon.
    pub async fn release(&self) {
        self.release_sandboxes().await;
        for orders in self.all_orders() {
            let _ = orders.send(Order::Release).await;
        }
    }

    fn all_orders(&self) -> Vec<mpsc::Sender<Order>> {
        let agents = self.agents.borrow();
        agents.values().filter_map(Known::handle).map(|handle| handle.orders.clone()).collect()
    }

    pub(crate) fn vms(&self) -> &Vms {
        &self.vms
    }

    pub(crate) fn vms_rc(&self) -> &Rc<Vms> {
        &self.vms
    }

    pub(crate) fn shared_rc(&self) -> &Rc<Shared> {
        &self.shared
    }

    pub(crate) fn known(&self) -> &watch::Sender<bool> {
        &self.known
    }

    pub(crate) fn named(&self) -> &RefCell<BTreeMap<String, SandboxHandle>> {
        &self.named
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(crate) fn row(&self, name: &str) -> Result<AgentRow> {
        let row = self.shared.state.borrow().agent(name)?;
        row.ok_or_else(|| self.unknown(name))
    }

    pub(crate) fn orders(&self, name: &str) -> Result<mpsc::Sender<Order>> {
        match self.agents.borrow().get(name) {
            Some(Known::Running(handle)) => Ok(handle.orders.clone()),
            Some(Known::Unrestored(problem)) => Err(Error::NotNow {
                name: name.to_owned(),
                condition: Condition::Failed,
                problem: Some(problem.clone()),
            }),
            None => Err(self.unknown(name)),
        }
    }

    fn unknown(&self, name: &str) -> Error {
        let known_names = self.agents.borrow().keys().cloned().collect();
        Error::UnknownAgent { name: name.to_owned(), known_names }
    }

    pub(crate) fn audit(&self, who: &Actor, act: &str) {
        info!(target: AUDITED, by = %fireclaw_host::escape(&who.to_string()), "{}", fireclaw_host::escape(act));
        if let Err(e) = self.shared.state.borrow().audit(who, act) {
            self.shared.trouble(format!("the audit log: {e}"));
        }
    }
}

/// An agent as it begins.
fn fresh_row(name: String, nick: String) -> AgentRow {
    AgentRow {
        name,
        template: String::new(),
        nick,
        model: None,
        persona: None,
        wanted: Wanted::Running,
        machine: None,
        process: None,
        created: now(),
        ends: None,
    }
}
