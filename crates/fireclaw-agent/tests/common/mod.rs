//! A scripted host.

#![allow(dead_code)]

use std::collections::VecDeque;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;

use fireclaw_agent::{Paths, run};
use fireclaw_protocol::agent::{Action, Config, Event, Incoming, MAX_LINE, Rule, Step, Verdict};
use fireclaw_protocol::chat::{Message, Role, Tool, ToolCall};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{
    AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, Lines, ReadHalf, WriteHalf,
};

/// Nothing takes longer; whoever waits for more waits for ever.
const LIMIT: Duration = Duration::from_secs(60);

/// A question to the model.
pub struct Think {
    pub ask: u64,
    pub message: u64,
    pub messages: Vec<Message>,
    pub tools: Vec<Tool>,
}

impl Think {
    pub fn system(&self) -> &str {
        assert_eq!(self.messages[0].role, Role::System);
        &self.messages[0].content
    }

    pub fn last(&self) -> &Message {
        &self.messages[self.messages.len() - 1]
    }

    pub fn tool_names(&self) -> Vec<&str> {
        self.tools.iter().map(|tool| tool.name.as_str()).collect()
    }

    pub fn text(&self) -> String {
        self.messages.iter().map(|m| format!("{}\n", m.content)).collect()
    }
}

/// The host of one agent, which runs in a thread of its own.
pub struct Host {
    to: WriteHalf<DuplexStream>,
    from: Lines<BufReader<ReadHalf<DuplexStream>>>,
    /// What came while something else was waited for.
    aside: VecDeque<Action>,
    agent: JoinHandle<std::io::Result<()>>,
    pub notes: Vec<String>,
}

pub fn config() -> Config {
    Config {
        name: "worker".into(),
        nick: "worker".into(),
        persona: "You are a test.".into(),
        model: "scripted".into(),
        context_tokens: 8192,
        tools: true,
        max_rounds: 4,
        command_seconds: 50,
        max_lines: 5,
        rules: Vec::new(),
        may_fetch: false,
    }
}

pub fn rule(tool: &str, pattern: &str, verdict: Verdict) -> Rule {
    Rule { tool: Some(tool.into()), pattern: Some(pattern.into()), verdict }
}

pub fn home() -> TempDir {
    tempfile::tempdir().unwrap()
}

pub fn paths(home: &TempDir) -> Paths {
    let workspace = home.path().to_owned();
    let skills = vec![home.path().join("template"), workspace.join("skills")];
    Paths { workspace, skills }
}

pub fn message(id: u64, text: &str) -> Incoming {
    Incoming {
        id,
        conversation: "#agents".into(),
        private: false,
        from: "ann".into(),
        text: text.into(),
        from_agent: false,
        recent: Vec::new(),
    }
}

impl Host {
    /// An agent with nothing said to it.
    pub fn bare(paths: Paths) -> Self {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let agent = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let (input, output) = tokio::io::split(theirs);
            runtime.block_on(run(input, output, paths))
        });
        let (from, to) = tokio::io::split(ours);
        let from = BufReader::new(from).lines();
        Self { to, from, aside: VecDeque::new(), agent, notes: Vec::new() }
    }

    /// An agent that is ready.
    pub async fn start(home: &TempDir, config: Config) -> Self {
        let mut host = Self::bare(paths(home));
        host.send(Event::Configure(config)).await;
        let Action::Ready { notes } = host.next().await else { panic!("not ready") };
        host.notes = notes;
        host
    }

    pub async fn send(&mut self, event: Event) {
        self.send_line(&serde_json::to_string(&event).unwrap()).await;
    }

    pub async fn send_line(&mut self, line: &str) {
        let bytes = format!("{line}\n").into_bytes();
        tokio::time::timeout(LIMIT, self.to.write_all(&bytes)).await.unwrap().unwrap();
    }

    pub async fn ask(&mut self, id: u64, text: &str) {
        self.send(Event::Message(message(id, text))).await;
    }

    pub async fn thought(&mut self, ask: u64, step: Step) {
        self.send(Event::Thought { ask, step }).await;
    }

    pub async fn says(&mut self, think: &Think, text: &str) {
        self.thought(think.ask, Step::Say(text.into())).await;
    }

    pub async fn calls(&mut self, think: &Think, name: &str, arguments: Value) {
        let call = ToolCall { id: format!("c{}", think.ask), name: name.into(), arguments };
        self.thought(think.ask, Step::Call(vec![call])).await;
    }

    pub async fn runs(&mut self, think: &Think, command: &str) {
        self.calls(think, "run_command", json!({"command": command})).await;
    }

    /// The next action.
    pub async fn next(&mut self) -> Action {
        if let Some(action) = self.aside.pop_front() {
            return action;
        }
        self.read().await.expect("the agent is gone")
    }

    async fn read(&mut self) -> Option<Action> {
        let line = tokio::time::timeout(LIMIT, self.from.next_line()).await.expect("silence");
        let line = line.unwrap()?;
        assert!(line.len() <= MAX_LINE);
        Some(serde_json::from_str(&line).unwrap())
    }

    /// The first action that `is` wanted; what comes before it is kept.
    pub async fn until(&mut self, is: impl Fn(&Action) -> bool) -> Action {
        if let Some(at) = self.aside.iter().position(&is) {
            return self.aside.remove(at).unwrap();
        }
        loop {
            let action = self.read().await.expect("the agent is gone");
            if is(&action) {
                return action;
            }
            self.aside.push_back(action);
        }
    }

    pub async fn think(&mut self) -> Think {
        match self.next().await {
            Action::Think { ask, message, messages, tools } => {
                Think { ask, message, messages, tools }
            }
            other => panic!("no question to the model: {other:?}"),
        }
    }

    /// What is said to the message, which is done with that.
    pub async fn said(&mut self, id: u64) -> String {
        let said = match self.next().await {
            Action::Say { message, text } if message == id => text,
            other => panic!("nothing said to {id}: {other:?}"),
        };
        self.done(id).await;
        said
    }

    pub async fn done(&mut self, id: u64) {
        assert_eq!(self.next().await, Action::Done { message: id });
    }

    /// A question and its answer without tools.
    pub async fn talk(&mut self, id: u64, question: &str, answer: &str) -> Think {
        self.ask(id, question).await;
        let think = self.think().await;
        self.says(&think, answer).await;
        assert_eq!(self.said(id).await, answer);
        think
    }

    /// Ends the input; the agent ends, and says nothing more.
    pub async fn end(mut self) {
        self.to.shutdown().await.unwrap();
        assert!(self.aside.is_empty(), "{:?}", self.aside);
        assert_eq!(self.read().await, None);
        self.agent.join().unwrap().unwrap();
    }
}

/// Processes of the VM with this in their command line.
pub fn processes_with(word: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let has = |path: &PathBuf| {
        let line = std::fs::read(path.join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).replace('\0', " ").contains(word)
    };
    let own = PathBuf::from(format!("/proc/{}", std::process::id()));
    entries.map(|entry| entry.path()).filter(|path| *path != own && has(path)).collect()
}

pub async fn wait_until(what: &str, is: impl Fn() -> bool) {
    let start = std::time::Instant::now();
    while !is() {
        assert!(start.elapsed() < LIMIT, "waited for {what} in vain");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
