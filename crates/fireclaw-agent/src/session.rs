//! What comes from the host, and what is done about it.

use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use fireclaw_protocol::agent::{Action, Event, Incoming};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::context::AgentContext;
use crate::host::{Host, Reply};
use crate::lines::{Line, Lines};
use crate::queue::{Found, MAX_WAITING, Queue, Taken};
use crate::{Paths, answer, cut, host, process};

/// How long the last lines may take when the input has ended.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Serves the host until the input ends or either side fails.
pub async fn serve(
    input: impl AsyncRead + Unpin,
    output: impl AsyncWrite + Unpin + 'static,
    home: Paths,
) -> io::Result<()> {
    process::adopt_orphans()?;
    let (host, lines) = Host::new();
    let writing = host::write(output, lines);
    tokio::pin!(writing);
    let shared = Rc::new(AgentContext::new(host, home));
    let mut session =
        Session { shared, queue: Queue::default(), tasks: JoinSet::new(), stops: HashMap::new() };
    tokio::select! {
        served = session.run(Lines::new(input)) => served?,
        written = &mut writing => return written,
    }
    // What was said already is written, if somebody still reads it.
    session.tasks.shutdown().await;
    drop(session);
    tokio::time::timeout(LAST_WORDS, writing).await.unwrap_or(Ok(()))
}

struct Session {
    shared: Rc<AgentContext>,
    queue: Queue,
    /// A task for each message that is being dealt with; it returns its number.
    tasks: JoinSet<u64>,
    stops: HashMap<u64, oneshot::Sender<()>>,
}

impl Session {
    async fn run(&mut self, mut lines: Lines<impl AsyncRead + Unpin>) -> io::Result<()> {
        loop {
            tokio::select! {
                line = lines.next() => match line? {
                    None => return Ok(()),
                    Some(Line::TooLong) => crate::log!("a line of the host is too long"),
                    Some(Line::Whole(line)) => match serde_json::from_slice(&line) {
                        Ok(event) => self.obey(event).await,
                        Err(e) => crate::log!("a line of the host is not understood: {e}"),
                    },
                },
                Some(ended) = self.tasks.join_next() => match ended {
                    Ok(id) => {
                        self.queue.finish(id);
                        self.stops.remove(&id);
                        // Not before: who has read this may send the message again.
                        self.shared.host.send(&Action::Done { message: id }).await;
                        self.start();
                    }
                    Err(e) => return Err(e.into()),
                },
            }
            let notes = self.shared.notes.borrow_mut().take();
            if !notes.is_empty() {
                self.shared.host.send(&Action::Ready { notes }).await;
            }
        }
    }

    async fn obey(&mut self, event: Event) {
        let host = &self.shared.host;
        match event {
            Event::Configure(config) => {
                if self.shared.configure(config) {
                    self.shared.check();
                    let notes = self.shared.notes.borrow_mut().take();
                    host.send(&Action::Ready { notes }).await;
                }
            }
            Event::Message(message) if self.shared.current().is_some() => self.take(message).await,
            Event::Message(message) => {
                crate::log!("message {} came before the configuration", message.id);
            }
            Event::Thought { ask, step } => host.answered(ask, Reply::Thought(step)),
            Event::Failed { ask, reason } => host.answered(ask, Reply::Failed(reason)),
            Event::Approval { ask, granted, reason } => {
                host.answered(ask, Reply::Approval(granted, reason));
            }
            Event::Stop { message } => self.stop(message).await,
        }
    }

    async fn take(&mut self, message: Incoming) {
        let (id, from) = (message.id, cut::line(&message.from, 64));
        match self.queue.push(message) {
            Taken::Waits => self.start(),
            Taken::Known => {}
            Taken::Busy { tell } => {
                if tell {
                    let text = format!(
                        "{from}: I am busy, {MAX_WAITING} messages are waiting already. I leave this one out, and what comes until I have caught up; please ask again later."
                    );
                    self.shared.host.send(&Action::Say { message: id, text }).await;
                }
                self.shared.host.send(&Action::Done { message: id }).await;
            }
        }
    }

    /// Starts all messages that can be dealt with now.
    fn start(&mut self) {
        while let Some(message) = self.queue.start() {
            let (stop, stopped) = oneshot::channel();
            self.stops.insert(message.id, stop);
            self.tasks.spawn_local(deal_with(self.shared.clone(), message, stopped));
        }
    }

    async fn stop(&mut self, id: u64) {
        match self.queue.stop(id) {
            // It is done when all of the task has ended.
            Found::Active => drop(self.stops.remove(&id)),
            Found::Waiting | Found::Nowhere => {
                self.shared.host.send(&Action::Done { message: id }).await;
            }
        }
    }
}

/// Deals with a message to its end, or until it is no longer wanted.
async fn deal_with(
    shared: Rc<AgentContext>,
    message: Incoming,
    stopped: oneshot::Receiver<()>,
) -> u64 {
    tokio::select! {
        biased;
        _ = stopped => {}
        () = answer::answer(&shared, &message) => {}
    }
    message.id
}
