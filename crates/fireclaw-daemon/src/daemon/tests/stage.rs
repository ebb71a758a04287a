//! A daemon whose chat network, sandboxes and models a test plays.
//!
//! These are fakes for what cannot be had otherwise: minutes of an agent's life in
//! milliseconds, and faults at a chosen moment. The end-to-end tests have the real ones.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fireclaw_chat::{Bot, Case, Connection, Folded, Kind, Message, Network, Sender};
use fireclaw_host::ProcessStamp;
use fireclaw_image::Home;
use fireclaw_llm::{
    Abilities, ChatModel, ChatReply, ChatRequest, ModelInfo, OnText, ServerConfig, ServerKind,
};
use fireclaw_protocol::agent::{Action, Event as Told};
use fireclaw_template::Template;
use fireclaw_vm::Commands;
use fireclaw_vm::probe::Choice;
use futures_util::future::{BoxFuture, FutureExt, LocalBoxFuture};
use futures_util::stream::{self, StreamExt};
use tokio::sync::{mpsc, oneshot, watch};

use crate::sandboxes::{Health, Program, Request, Said, Sandbox, Sandboxes, Vms};
use crate::{Actor, Claim, Condition, Config, Daemon, Error, Event, Events, Result};

/// The channel of all agents.
pub const LOBBY: &str = "#agents";

/// Longer than anything waits, in the stage's time.
const TOO_LONG: Duration = Duration::from_secs(2 * 60 * 60);

/// A daemon on a stage.
pub struct Stage {
    pub daemon: Daemon,
    pub chat: Arc<Chat>,
    pub sandboxes: Rc<Played>,
    events: Events,
    home: Rc<tempfile::TempDir>,
}

impl Stage {
    /// An empty one, with the template `worker`.
    pub fn set() -> Self {
        let home = Rc::new(tempfile::tempdir().unwrap());
        let templates = home.path().join("templates");
        std::fs::create_dir_all(&templates).unwrap();
        std::fs::write(templates.join("worker.toml"), "model = \"m\"\n").unwrap();
        Self::over(home)
    }

    fn over(home: Rc<tempfile::TempDir>) -> Self {
        let chat = Arc::<Chat>::default();
        let sandboxes = Rc::new(Played::of(home.path().join("agents")));
        let place = Home::new(home.path());
        let config = Config {
            home: place.clone(),
            vmm: Choice::Qemu,
            chat: Arc::clone(&chat) as Arc<dyn Network>,
            nick: "overseer".into(),
            control: "#control".into(),
            lobby: LOBBY.into(),
            owners: fireclaw_chat::Owners { everybody: true, ..Default::default() },
            model: ServerConfig {
                kind: ServerKind::Ollama,
                url: "http://127.0.0.1:1".into(),
                key: None,
                ca_file: None,
            },
            limits: fireclaw_llm::Limits::default(),
            approval_time: Duration::from_secs(600),
            max_hops: 4,
            loop_pause: Duration::from_secs(60),
        };
        let claim = Claim::of(&place).unwrap();
        let vms = Rc::new(Vms::new(place, Choice::Qemu));
        let played = Rc::clone(&sandboxes) as Rc<dyn Sandboxes>;
        let (daemon, events) = Daemon::with(claim, config, Arc::new(Models), vms, played).unwrap();
        Self { daemon, chat, sandboxes, events, home }
    }

    /// The next daemon over the same home, after this one let go of everything.
    pub async fn next(self) -> Self {
        self.daemon.release().await;
        // Its agents end in their own time, and with them the claim.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let home = Rc::clone(&self.home);
        drop(self);
        tokio::time::sleep(Duration::from_secs(1)).await;
        Self::over(home)
    }

    /// Has an agent made, whose sandbox is up and whose program is ready.
    pub async fn ready(&self, name: &str) -> Vm {
        self.invoke(name).await;
        let vm = self.sandboxes.next().await;
        vm.becomes_ready();
        self.until(name, Condition::Ready).await;
        vm
    }

    /// Has an agent made.
    pub async fn invoke(&self, name: &str) {
        self.daemon.invoke(&Actor::Local { uid: 0 }, "worker", Some(name), None).await.unwrap();
    }

    /// How an agent is.
    pub fn condition(&self, name: &str) -> Condition {
        let listed = self.daemon.list().unwrap();
        listed.iter().find(|agent| agent.name == name).unwrap().status.condition
    }

    /// Waits until an agent is like this.
    pub async fn until(&self, name: &str, condition: Condition) {
        let until = async {
            while self.condition(name) != condition {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        if tokio::time::timeout(TOO_LONG, until).await.is_err() {
            panic!("{name} is {:?}, not {condition:?}", self.condition(name));
        }
    }

    /// The next event that `is` picks; what came before it is dropped.
    pub async fn event<T>(&mut self, is: impl Fn(&Event) -> Option<T>) -> T {
        let mut seen = Vec::new();
        let found = async {
            loop {
                let event = self.events.next().await.unwrap().unwrap();
                if let Some(found) = is(&event) {
                    return found;
                }
                seen.push(event);
            }
        };
        match tokio::time::timeout(TOO_LONG, found).await {
            Ok(found) => found,
            Err(_) => panic!("it did not come; these did: {seen:?}"),
        }
    }

    /// The template from now on.
    pub fn writes_template(&self, text: &str) {
        std::fs::write(self.home.path().join("templates/worker.toml"), text).unwrap();
    }
}

/// A network of which the test hears and says everything.
#[derive(Debug, Default)]
pub struct Chat {
    bots: Mutex<BTreeMap<String, Line>>,
}

#[derive(Debug, Clone)]
struct Line {
    tell: mpsc::UnboundedSender<fireclaw_chat::Event>,
    voice: Arc<Voice>,
}

/// A bot's connection.
#[derive(Debug)]
struct Voice {
    nick: String,
    /// What was said and not read yet: where, and what.
    said: Mutex<Vec<(String, String)>>,
    has_quit: watch::Sender<Option<String>>,
}

impl Chat {
    fn line(&self, nick: &str) -> Line {
        self.bots.lock().unwrap().get(nick).unwrap().clone()
    }

    /// A bot hears of something.
    pub fn hears(&self, nick: &str, event: fireclaw_chat::Event) {
        let _ = self.line(nick).tell.send(event);
    }

    /// A bot hears somebody say something in the lobby.
    pub fn hears_in_lobby(&self, nick: &str, from: &str, text: &str) {
        self.hears(nick, fireclaw_chat::Event::Message(message(from, Some(LOBBY), text)));
    }

    /// A bot hears somebody say something in private.
    pub fn hears_in_private(&self, nick: &str, from: &str, text: &str) {
        self.hears(nick, fireclaw_chat::Event::Message(message(from, None, text)));
    }

    /// The next thing that a bot says: where, and what.
    pub async fn said(&self, nick: &str) -> (String, String) {
        let voice = self.line(nick).voice;
        let said = async {
            loop {
                if let Some(first) = {
                    let mut said = voice.said.lock().unwrap();
                    (!said.is_empty()).then(|| said.remove(0))
                } {
                    return first;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(TOO_LONG, said).await.unwrap_or_else(|_| panic!("{nick} is silent"))
    }

    /// What a bot has said and nobody has read.
    pub fn unread(&self, nick: &str) -> Vec<(String, String)> {
        std::mem::take(&mut self.line(nick).voice.said.lock().unwrap())
    }

    /// Why a bot has left, if it has.
    pub fn has_quit(&self, nick: &str) -> Option<String> {
        self.line(nick).voice.has_quit.borrow().clone()
    }
}

fn message(from: &str, channel: Option<&str>, text: &str) -> Message {
    let from = Sender {
        nick: from.into(),
        user: format!("~{from}"),
        host: format!("{from}.example"),
        account: None,
    };
    Message {
        conversation: channel.unwrap_or(&from.nick).to_owned(),
        from,
        is_operator: false,
        channel: channel.map(str::to_owned),
        text: text.into(),
        kind: Kind::Plain,
        is_history: false,
    }
}

impl Network for Chat {
    fn connect(
        &self,
        bot: Bot,
    ) -> fireclaw_chat::Result<(Arc<dyn Connection>, fireclaw_chat::Events)> {
        let (tell, told) = mpsc::unbounded_channel();
        let voice = Arc::new(Voice {
            nick: bot.nick.clone(),
            said: Mutex::default(),
            has_quit: watch::Sender::new(None),
        });
        let line = Line { tell, voice: Arc::clone(&voice) };
        let _ = line.tell.send(fireclaw_chat::Event::Connected { nick: bot.nick.clone() });
        self.bots.lock().unwrap().insert(bot.nick, line);
        let events = stream::unfold(told, |mut told| async { Some((told.recv().await?, told)) });
        Ok((voice, events.boxed()))
    }

    fn account(&self) -> Option<&str> {
        None
    }
}

impl Connection for Voice {
    fn nick(&self) -> String {
        self.nick.clone()
    }

    fn case(&self) -> Case {
        Case::ASCII
    }

    fn fold(&self, _: &str, text: &str, most: usize) -> Folded {
        let mut lines = text.lines().map(str::to_owned);
        let kept: Vec<_> = lines.by_ref().take(most).collect();
        Folded { lines: kept, rest: lines.next().is_some() }
    }

    fn split<'a>(&self, _: &str, line: &'a str, _: usize) -> Vec<&'a str> {
        vec![line]
    }

    fn say<'a>(
        &'a self,
        conversation: &'a str,
        text: &'a str,
    ) -> BoxFuture<'a, fireclaw_chat::Result<()>> {
        self.said.lock().unwrap().push((conversation.to_owned(), text.to_owned()));
        async { Ok(()) }.boxed()
    }

    fn say_urgent<'a>(
        &'a self,
        conversation: &'a str,
        text: &'a str,
    ) -> BoxFuture<'a, fireclaw_chat::Result<()>> {
        self.say(conversation, text)
    }

    fn deliver<'a>(
        &'a self,
        conversation: &'a str,
        text: &'a str,
    ) -> BoxFuture<'a, fireclaw_chat::Result<()>> {
        self.say(conversation, text)
    }

    fn typing<'a>(&'a self, _: &'a str, _: bool) -> BoxFuture<'a, fireclaw_chat::Result<()>> {
        async { Ok(()) }.boxed()
    }

    fn join<'a>(&'a self, _: &'a str) -> BoxFuture<'a, fireclaw_chat::Result<()>> {
        async { Ok(()) }.boxed()
    }

    fn part<'a>(&'a self, _: &'a str, _: &'a str) -> BoxFuture<'a, fireclaw_chat::Result<()>> {
        async { Ok(()) }.boxed()
    }

    fn quit<'a>(&'a self, reason: &'a str) -> BoxFuture<'a, ()> {
        self.has_quit.send_replace(Some(reason.to_owned()));
        async {}.boxed()
    }
}

/// Sandboxes that are played.
pub struct Played {
    agents: PathBuf,
    /// Those that were started and that the test has not taken yet.
    started: RefCell<Vec<Vm>>,
    /// Ids of those that were cleared away.
    pub cleared: RefCell<Vec<String>>,
    /// Ids of those that were taken over.
    pub adopted: RefCell<Vec<String>>,
    /// Why the next ones cannot be started.
    pub refuses: RefCell<Option<String>>,
    pids: Cell<i32>,
}

impl Played {
    fn of(agents: PathBuf) -> Self {
        Self {
            agents,
            started: RefCell::default(),
            cleared: RefCell::default(),
            adopted: RefCell::default(),
            refuses: RefCell::default(),
            pids: Cell::new(1000),
        }
    }

    /// The next that is started, once its program runs.
    pub async fn next(&self) -> Vm {
        let next = async {
            loop {
                if self.started.borrow().first().is_some_and(|vm| vm.program.borrow().is_some()) {
                    return self.started.borrow_mut().remove(0);
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(TOO_LONG, next).await.expect("no sandbox was started")
    }

    fn make(&self, id: &str) -> Box<dyn Sandbox> {
        let (kill, dies) = oneshot::channel();
        self.pids.set(self.pids.get() + 1);
        let vm = Vm {
            id: id.to_owned(),
            program: Rc::default(),
            kill: Rc::new(RefCell::new(Some(kill))),
            paused: Rc::default(),
            saved: Rc::default(),
            health: Rc::new(Cell::new(Health::Well)),
        };
        self.started.borrow_mut().push(vm.clone());
        Box::new(PlayedVm { vm, dies: Some(dies), pid: self.pids.get() })
    }
}

impl Sandboxes for Played {
    fn agent_directory(&self, agent: &str) -> PathBuf {
        self.agents.join(agent)
    }

    fn start<'a>(
        &'a self,
        wanted: Request<'a>,
        _: &'a dyn Fn(&str),
    ) -> LocalBoxFuture<'a, Result<Box<dyn Sandbox>>> {
        let started = match self.refuses.borrow().clone() {
            Some(reason) => Err(Error::Unsupported(reason)),
            None => Ok(self.make(wanted.id)),
        };
        async { started }.boxed_local()
    }

    fn adopt<'a>(
        &'a self,
        wanted: Request<'a>,
        _: ProcessStamp,
        _: &'a dyn Fn(&str),
    ) -> LocalBoxFuture<'a, Result<Box<dyn Sandbox>>> {
        self.adopted.borrow_mut().push(wanted.id.to_owned());
        let adopted = self.make(wanted.id);
        async { Ok(adopted) }.boxed_local()
    }

    fn clear<'a>(&'a self, id: &'a str) -> LocalBoxFuture<'a, Result<()>> {
        self.cleared.borrow_mut().push(id.to_owned());
        async { Ok(()) }.boxed_local()
    }

    fn set_policy<'a>(
        &'a self,
        _: &'a str,
        _: fireclaw_policy::Network,
    ) -> LocalBoxFuture<'a, Result<()>> {
        async { Ok(()) }.boxed_local()
    }

    fn refresh_skills<'a>(
        &'a self,
        _: &'a Commands,
        _: &'a Template,
    ) -> LocalBoxFuture<'a, Result<()>> {
        async { Ok(()) }.boxed_local()
    }
}

/// The two ends of a program that a test plays.
#[derive(Debug)]
struct Ends {
    told: mpsc::Receiver<Vec<u8>>,
    say: mpsc::Sender<Said>,
}

/// The test's side of a sandbox.
#[derive(Debug, Clone)]
pub struct Vm {
    pub id: String,
    program: Rc<RefCell<Option<Ends>>>,
    kill: Rc<RefCell<Option<oneshot::Sender<String>>>>,
    pub paused: Rc<Cell<bool>>,
    pub saved: Rc<Cell<bool>>,
    pub health: Rc<Cell<Health>>,
}

impl Vm {
    /// It ends by itself.
    pub fn dies(&self, why: &str) {
        let _ = self.kill.borrow_mut().take().unwrap().send(why.to_owned());
    }

    /// Its program says something.
    fn says(&self, said: Said) {
        self.program.borrow().as_ref().unwrap().say.try_send(said).unwrap();
    }

    /// Its program wants something.
    pub fn acts(&self, action: Action) {
        self.says(Said::Action(action));
    }

    /// Its program says that it can be told things.
    pub fn becomes_ready(&self) {
        self.acts(Action::Ready { notes: Vec::new() });
    }

    /// Its program ends. The next one is waited for.
    pub async fn program_ends(&self) {
        let before = self.program.borrow_mut().take().unwrap();
        before.say.try_send(Said::Ended("ended with status 1".into())).unwrap();
        let next = async {
            while self.program.borrow().is_none() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(1), next).await;
    }

    /// What its program is told next; none if that is nothing for a while.
    pub async fn told(&self) -> Option<Told> {
        let mut ends = self.program.borrow_mut().take()?;
        let line = tokio::time::timeout(Duration::from_secs(1), ends.told.recv()).await;
        *self.program.borrow_mut() = Some(ends);
        serde_json::from_slice(&line.ok()??).unwrap()
    }

    /// The next message that its program is handed; none if that is nothing for a while.
    pub async fn handed(&self) -> Option<fireclaw_protocol::agent::Incoming> {
        loop {
            if let Told::Message(message) = self.told().await? {
                return Some(message);
            }
        }
    }
}

/// The agent's side of it.
struct PlayedVm {
    vm: Vm,
    dies: Option<oneshot::Receiver<String>>,
    pid: i32,
}

impl Sandbox for PlayedVm {
    fn vmm_pid(&self) -> Option<u32> {
        u32::try_from(self.pid).ok()
    }

    fn stamp(&self) -> Option<ProcessStamp> {
        Some(ProcessStamp { pid: self.pid, start_time: 1 })
    }

    fn commands(&self) -> Commands {
        panic!("a played sandbox runs no commands")
    }

    fn program<'a>(&'a self, _: &'a [String]) -> LocalBoxFuture<'a, Result<Program>> {
        let (tell, told) = mpsc::channel(256);
        let (say, said) = mpsc::channel(256);
        *self.vm.program.borrow_mut() = Some(Ends { told, say });
        async { Ok(Program::played(tell, said)) }.boxed_local()
    }

    fn pause(&self, paused: bool) -> Result<()> {
        self.vm.paused.set(paused);
        Ok(())
    }

    fn died(&mut self) -> LocalBoxFuture<'_, String> {
        async {
            match &mut self.dies {
                Some(dies) => match dies.await {
                    Ok(why) => {
                        self.dies = None;
                        why
                    }
                    Err(_) => std::future::pending().await,
                },
                None => "it is gone".to_owned(),
            }
        }
        .boxed_local()
    }

    fn save(&self) -> LocalBoxFuture<'static, Result<()>> {
        self.vm.saved.set(true);
        async { Ok(()) }.boxed_local()
    }

    fn health(&self) -> LocalBoxFuture<'static, Health> {
        let health = self.vm.health.get();
        async move { health }.boxed_local()
    }
}

/// A server with one model, which repeats what it is told last.
struct Models;

impl ChatModel for Models {
    fn models(&self) -> BoxFuture<'_, fireclaw_llm::Result<Vec<ModelInfo>>> {
        let model =
            ModelInfo { name: "m".into(), size: None, parameters: None, quantization: None };
        async { Ok(vec![model]) }.boxed()
    }

    fn abilities<'a>(&'a self, _: &'a str) -> BoxFuture<'a, fireclaw_llm::Result<Abilities>> {
        async { Ok(Abilities { native_tools: true, context_tokens: None }) }.boxed()
    }

    fn chat<'a>(
        &'a self,
        request: &'a ChatRequest,
        _: OnText<'a>,
    ) -> BoxFuture<'a, fireclaw_llm::Result<ChatReply>> {
        let content = request.messages.last().map(|last| last.content.clone()).unwrap_or_default();
        let reply = ChatReply {
            content,
            tool_calls: Vec::new(),
            usage: fireclaw_llm::Usage::default(),
            truncated: false,
        };
        async { Ok(reply) }.boxed()
    }
}
