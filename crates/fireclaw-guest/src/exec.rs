//! Commands: started, fed, listened to, signalled, and ended with all they started.

mod main_process;
mod prepare;
mod pump;
mod reaper;
mod record;
mod spawn;
mod terminal;
mod tree;
mod users;

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::pending;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use fireclaw_agent::oom;
use fireclaw_protocol::frame;
use fireclaw_protocol::message::{
    ExecControl, ExecEvent, ExecFailure, ExecRequest, ExitStatus, Open,
};
use fireclaw_protocol::session::Channel;
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::oneshot;
use tokio::task::spawn_local;

use crate::connect;
pub use main_process::MainProcess;
pub use prepare::prepare;
pub use reaper::Reaper;
use terminal::Terminal;
use tree::Tree;

/// Why a command could not be started, with words for a person.
type Failure = (ExecFailure, String);

/// The commands of one session.
#[derive(Clone)]
pub struct Execs {
    reaper: Reaper,
    main: MainProcess,
    waiting: Rc<RefCell<HashMap<u32, Attachments>>>,
}

/// The three byte channels of a command, which may arrive before or after it.
struct Attachments {
    stdin: Slot,
    stdout: Slot,
    stderr: Slot,
    ended: bool,
}

impl Attachments {
    fn new() -> Self {
        Self { stdin: Slot::new(), stdout: Slot::new(), stderr: Slot::new(), ended: false }
    }

    /// The command has ended and every channel that belongs to it has come.
    fn is_over(&self) -> bool {
        self.ended && [&self.stdin, &self.stdout, &self.stderr].iter().all(|s| s.put.is_none())
    }
}

struct Slot {
    put: Option<oneshot::Sender<Channel>>,
    take: Option<oneshot::Receiver<Channel>>,
}

impl Slot {
    fn new() -> Self {
        let (put, take) = oneshot::channel();
        Self { put: Some(put), take: Some(take) }
    }

    /// The first channel wins; a second one is dropped, which resets it.
    fn attach(&mut self, channel: Channel) {
        if let Some(put) = self.put.take() {
            let _ = put.send(channel);
        }
    }
}

impl Execs {
    /// A session without commands of its own, in a VM that may have a main command.
    pub fn new(reaper: Reaper, main: MainProcess) -> Self {
        Self { reaper, main, waiting: Rc::default() }
    }

    /// Does what a channel that the host opened is for.
    pub fn accept(&self, mut channel: Channel) {
        let execs = self.clone();
        spawn_local(async move {
            match frame::read(&mut channel, frame::MAX_FROM_HOST).await {
                Ok(Some(Open::Exec(request))) => execs.run(request, channel).await,
                Ok(Some(Open::Stdin { exec })) => {
                    execs.with(exec, |slots| slots.stdin.attach(channel));
                }
                Ok(Some(Open::Stdout { exec })) => {
                    execs.with(exec, |slots| slots.stdout.attach(channel));
                }
                Ok(Some(Open::Stderr { exec })) => {
                    execs.with(exec, |slots| slots.stderr.attach(channel));
                }
                Ok(Some(Open::Connect { port })) => connect::serve(port, channel).await,
                Ok(Some(Open::Main(request))) => execs.main.start(request, channel).await,
                Ok(Some(Open::Attach { from })) => execs.main.attach(from, channel).await,
                Ok(Some(Open::Input)) => execs.main.input(channel).await,
                Ok(None) => {}
                Err(e) => crate::say!("a channel was opened wrongly: {e}"),
            }
        });
    }

    fn with<T>(&self, exec: u32, act: impl FnOnce(&mut Attachments) -> T) -> T {
        let mut waiting = self.waiting.borrow_mut();
        let slots = waiting.entry(exec).or_insert_with(Attachments::new);
        let result = act(slots);
        if slots.is_over() {
            waiting.remove(&exec);
        }
        result
    }

    /// Runs one command from start to end, reporting on `control`.
    async fn run(&self, request: ExecRequest, control: Channel) {
        let (from_host, mut to_host) = tokio::io::split(control);
        let id = request.id;
        if let Err((cause, message)) = self.started(&request, from_host, &mut to_host).await {
            let _ = frame::write(&mut to_host, &ExecEvent::Failed { cause, message }).await;
        }
        let _ = to_host.shutdown().await;
        // What still waits for it, or comes later, is closed.
        self.with(id, |slots| {
            for slot in [&mut slots.stdin, &mut slots.stdout, &mut slots.stderr] {
                slot.take = None;
            }
            slots.ended = true;
        });
    }

    async fn started(
        &self,
        request: &ExecRequest,
        mut from_host: ReadHalf<Channel>,
        to_host: &mut WriteHalf<Channel>,
    ) -> Result<(), Failure> {
        let tree = Tree::new();
        let kills = oom::kills();
        let (terminal, its_side) = open_terminal(request)?;
        let mut child = spawn::spawn(request, &tree, its_side)?;
        let pid = child.id();
        // Nothing else runs between fork and this line: the reaper cannot have
        // taken the child's status yet.
        let ended = self.reaper.expect(pid);
        let (stdin, stdout, stderr) = self.with(request.id, |slots| {
            (slots.stdin.take.take(), slots.stdout.take.take(), slots.stderr.take.take())
        });
        let [stdin, stdout, stderr] = match &terminal {
            Some(terminal) => [
                spawn_local(Rc::clone(terminal).feed(stdin)),
                spawn_local(Rc::clone(terminal).drain(stdout)),
                spawn_local(pump::end(stderr)),
            ],
            None => [
                spawn_local(pump::feed(stdin, child.stdin.take())),
                spawn_local(pump::drain(child.stdout.take(), stdout)),
                spawn_local(pump::drain(child.stderr.take(), stderr)),
            ],
        };
        let _ = frame::write(to_host, &ExecEvent::Started).await;

        let running = Running { pid, tree: &tree, terminal: terminal.as_deref() };
        let status = running.supervise(request, ended, &mut from_host).await;
        // Whatever the command left running goes with it, and closes its pipes.
        tree.kill(pid).await;
        stdin.abort();
        let kills = u32::try_from(oom::kills().saturating_sub(kills)).unwrap_or(u32::MAX);
        let exited = ExecEvent::Exited(status, (kills > 0).then_some(kills));
        let _ = frame::write(to_host, &exited).await;
        let _ = stdout.await;
        let _ = stderr.await;
        Ok(())
    }
}

/// The terminal that a command is to have, with the command's side.
fn open_terminal(
    request: &ExecRequest,
) -> Result<(Option<Rc<Terminal>>, Option<OwnedFd>), Failure> {
    match &request.terminal {
        Some(asked) => Terminal::open(asked.size)
            .map(|(terminal, its_side)| (Some(terminal), Some(its_side)))
            .map_err(|e| (ExecFailure::Other, format!("there is no terminal: {e}"))),
        None => Ok((None, None)),
    }
}

/// A command that runs.
struct Running<'a> {
    pid: u32,
    tree: &'a Tree,
    terminal: Option<&'a Terminal>,
}

impl Running<'_> {
    /// Waits for the command's end, obeying the host and the time limit.
    async fn supervise(
        &self,
        request: &ExecRequest,
        mut ended: oneshot::Receiver<ExitStatus>,
        from_host: &mut ReadHalf<Channel>,
    ) -> ExitStatus {
        let limit = request.timeout_ms.map(Duration::from_millis);
        let deadline = async {
            match limit {
                Some(limit) => tokio::time::sleep(limit).await,
                None => pending().await,
            }
        };
        tokio::pin!(deadline);
        // Reading a message is not cancel-safe, so it has a task of its own.
        let (orders, mut ordered) = tokio::sync::mpsc::channel(8);
        let reading = async {
            while let Ok(Some(order)) = frame::read(from_host, frame::MAX_FROM_HOST).await {
                let _ = orders.send(order).await;
            }
            // The host closed the channel: it no longer wants the command.
            let _ = orders.send(ExecControl::Signal(libc::SIGKILL)).await;
            pending::<()>().await
        };
        tokio::pin!(reading);
        loop {
            tokio::select! {
                status = &mut ended => {
                    return status.unwrap_or(ExitStatus::Signal(libc::SIGKILL as u8));
                }
                () = &mut deadline => {
                    self.tree.kill(self.pid).await;
                    let _ = (&mut ended).await;
                    return ExitStatus::TimedOut;
                }
                Some(order) = ordered.recv() => self.obey(order).await,
                () = &mut reading => {}
            }
        }
    }

    async fn obey(&self, order: ExecControl) {
        match order {
            ExecControl::Signal(libc::SIGKILL) => self.tree.kill(self.pid).await,
            ExecControl::Signal(signal) => tree::signal_group(self.pid, signal),
            ExecControl::Resize(size) => {
                if let Some(terminal) = self.terminal {
                    terminal.resize(size);
                }
            }
        }
    }
}
