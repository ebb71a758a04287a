//! The host's side, as the agent sees it: actions go out, answers to them come in.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::rc::Rc;

use fireclaw_protocol::agent::{Action, MAX_LINE, Step};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};

/// Actions that wait for the host to read them. Whoever has one more waits.
const OUTGOING: usize = 64;

/// What the host answers to an action.
#[derive(Debug)]
pub enum Reply {
    /// The model's step.
    Thought(Step),
    /// The people's word, and why.
    Approval(bool, String),
    /// It did not work, and why.
    Failed(String),
}

/// Speaks to the host. Clones share what is under way.
#[derive(Clone)]
pub struct Host {
    outgoing: mpsc::Sender<String>,
    asked: Rc<RefCell<HashMap<u64, oneshot::Sender<Reply>>>>,
    last: Rc<Cell<u64>>,
}

impl Host {
    /// A host, and the lines for [`write`].
    pub fn new() -> (Self, mpsc::Receiver<String>) {
        let (outgoing, lines) = mpsc::channel(OUTGOING);
        (Self { outgoing, asked: Rc::default(), last: Rc::default() }, lines)
    }

    /// Sends an action that has no answer.
    pub async fn send(&self, action: &Action) {
        if let Err(problem) = self.write(action).await {
            crate::log!("an action was not sent: {problem}");
        }
    }

    /// Sends the action that `action` makes of its number, and waits for the answer.
    pub async fn ask(&self, action: impl FnOnce(u64) -> Action) -> Reply {
        let ask = self.last.get() + 1;
        self.last.set(ask);
        let (tell, told) = oneshot::channel();
        self.asked.borrow_mut().insert(ask, tell);
        // Whoever stops waiting no longer has it under way.
        let _forget = Forget { asked: &self.asked, ask };
        match self.write(&action(ask)).await {
            Ok(()) => told.await.unwrap_or_else(|_| Reply::Failed("the host is gone".into())),
            Err(problem) => Reply::Failed(problem),
        }
    }

    /// Takes the host's answer to the action with this number. One that nobody waits for
    /// any more is dropped.
    pub fn answered(&self, ask: u64, reply: Reply) {
        if let Some(tell) = self.asked.borrow_mut().remove(&ask) {
            let _ = tell.send(reply);
        }
    }

    async fn write(&self, action: &Action) -> Result<(), String> {
        let line = serde_json::to_string(action).map_err(|e| e.to_string())?;
        if line.len() > MAX_LINE {
            return Err(format!("{} bytes are more than a line may have", line.len()));
        }
        self.outgoing.send(line).await.map_err(|_| "the host is gone".to_owned())
    }
}

struct Forget<'a> {
    asked: &'a RefCell<HashMap<u64, oneshot::Sender<Reply>>>,
    ask: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.asked.borrow_mut().remove(&self.ask);
    }
}

/// Writes lines until there are no more. Returns when the output fails.
pub async fn write(
    mut output: impl AsyncWrite + Unpin,
    mut lines: mpsc::Receiver<String>,
) -> io::Result<()> {
    while let Some(mut line) = lines.recv().await {
        line.push('\n');
        output.write_all(line.as_bytes()).await?;
        output.flush().await?;
    }
    Ok(())
}
