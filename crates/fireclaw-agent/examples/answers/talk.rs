//! One agent in its sandbox, and somebody who asks it.

use anyhow::{Context, Result, bail};
use fireclaw_llm::{Broker, ChatRequest};
use fireclaw_protocol::agent::{Action, Config, Event, Incoming, MAX_LINE, Step};
use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{ChildStdin, ChildStdout};

use crate::questions::Question;
use crate::sandbox::Sandbox;

/// What an agent said to a question.
#[derive(Debug, Default, Serialize)]
pub struct Told {
    pub answer: String,
    /// The calls that it made, each with its tool's name first.
    pub calls: Vec<String>,
    /// What the calls gave back.
    pub results: Vec<String>,
}

/// A conversation with an agent.
pub struct Talk {
    pub sandbox: Sandbox,
    to: ChildStdin,
    from: Lines<BufReader<ChildStdout>>,
    broker: Broker,
    config: Config,
}

impl Talk {
    /// A new agent of the template `worker`.
    pub async fn start(broker: &Broker, model: &str) -> Result<Self> {
        let mut sandbox = Sandbox::start().await?;
        let to = sandbox.child.stdin.take().context("no input")?;
        let from = BufReader::new(sandbox.child.stdout.take().context("no output")?).lines();
        let mut log = BufReader::new(sandbox.child.stderr.take().context("no log")?).lines();
        tokio::spawn(async move {
            while let Ok(Some(line)) = log.next_line().await {
                if std::env::var_os("ANSWERS_LOG").is_some() {
                    fireclaw_say::say!("    {line}");
                }
            }
        });
        let template = fireclaw_template::Store::open([]).get("worker")?;
        let config = Config { model: model.to_owned(), ..template.config("worker", "worker") };
        let mut talk = Self { sandbox, to, from, broker: broker.clone(), config };
        talk.send(&Event::Configure(talk.config.clone())).await?;
        let Action::Ready { .. } = talk.next().await? else { bail!("the agent is not ready") };
        Ok(talk)
    }

    /// Asks, does what the agent wants of its host, and returns what it said.
    pub async fn ask(&mut self, number: u64, question: &Question) -> Result<Told> {
        let conversation = if question.private { "ann" } else { "#agents" };
        let message = Incoming {
            id: number,
            conversation: conversation.into(),
            private: question.private,
            from: "ann".into(),
            text: question.text.into(),
            from_agent: false,
            recent: Vec::new(),
        };
        self.send(&Event::Message(message)).await?;
        let mut told = Told::default();
        loop {
            match self.next().await? {
                Action::Think { ask, messages, tools, .. } => {
                    let made =
                        messages.iter().rev().take_while(|m| m.role != fireclaw_llm::Role::User);
                    let results: Vec<_> = made
                        .filter(|m| m.role == fireclaw_llm::Role::Tool)
                        .map(|m| m.content.clone())
                        .collect();
                    if !results.is_empty() {
                        told.results = results.into_iter().rev().collect();
                    }
                    let request = ChatRequest {
                        model: self.config.model.clone(),
                        messages,
                        tools: if self.config.tools { tools } else { Vec::new() },
                        num_ctx: Some(self.config.context_tokens),
                        ..ChatRequest::default()
                    };
                    let event = match self.broker.ask("worker", request).done().await {
                        Ok((step, _)) => {
                            if let Step::Call(calls) = &step {
                                let call = |c: &fireclaw_llm::ToolCall| {
                                    format!("{} {}", c.name, c.arguments)
                                };
                                told.calls.extend(calls.iter().map(call));
                            }
                            Event::Thought { ask, step }
                        }
                        Err(e) => {
                            told.answer.push_str(&format!("(no answer from the model: {e})"));
                            Event::Failed { ask, reason: e.to_string() }
                        }
                    };
                    self.send(&event).await?;
                }
                Action::Approve { ask, .. } => {
                    let reason = "nobody is there".to_owned();
                    self.send(&Event::Approval { ask, granted: false, reason }).await?;
                }
                Action::Say { text, .. } => told.answer.push_str(&text),
                Action::Done { .. } => return Ok(told),
                Action::Ready { .. } => {}
            }
        }
    }

    async fn send(&mut self, event: &Event) -> Result<()> {
        let line = format!("{}\n", serde_json::to_string(event)?);
        self.to.write_all(line.as_bytes()).await?;
        Ok(self.to.flush().await?)
    }

    async fn next(&mut self) -> Result<Action> {
        let line = self.from.next_line().await?.context("the agent ended")?;
        anyhow::ensure!(line.len() <= MAX_LINE, "the agent says more than a line may have");
        Ok(serde_json::from_str(&line)?)
    }
}
