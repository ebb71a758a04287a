//! The main command of the VM: it goes on when the session ends, and is followed by whoever
//! comes next.

use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;
use std::rc::Rc;

use fireclaw_agent::oom;
use fireclaw_protocol::frame;
use fireclaw_protocol::message::{
    AttachFrom, ExecEvent, ExecFailure, ExitStatus, MainControl, MainEvent, MainInput, MainRequest,
    OutputStream,
};
use fireclaw_protocol::session::Channel;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf};
use tokio::net::unix::pipe;
use tokio::sync::{Mutex, Notify, mpsc};
use tokio::task::spawn_local;

use super::pump::BUFFER;
use super::record::{Found, Record};
use super::terminal::Terminal;
use super::tree::Tree;
use super::{Failure, Reaper, open_terminal, spawn, tree};

/// The main command of this VM, once there is one. Clones are the same.
#[derive(Clone)]
pub struct MainProcess(Rc<Shared>);

struct Shared {
    reaper: Reaper,
    record: RefCell<Record>,
    running: RefCell<Option<Running>>,
    ended: Cell<Option<(ExitStatus, Option<u32>)>>,
    /// The number of the log that is followed now, and how many there were.
    log: Cell<(Option<u32>, u32)>,
    /// Something of the above is another.
    changed: Notify,
}

/// What is known of the command, also after its end.
#[derive(Clone)]
struct Running {
    pid: u32,
    tree: Rc<Tree>,
    terminal: Option<Rc<Terminal>>,
    stdin: Rc<Mutex<Option<pipe::Sender>>>,
}

impl MainProcess {
    /// None yet.
    pub fn new(reaper: Reaper) -> Self {
        Self(Rc::new(Shared {
            reaper,
            record: RefCell::default(),
            running: RefCell::default(),
            ended: Cell::default(),
            log: Cell::default(),
            changed: Notify::new(),
        }))
    }

    /// Starts it, and tells so on `channel`.
    pub async fn start(&self, request: MainRequest, mut channel: Channel) {
        let event = match self.begin(&request) {
            Ok(()) => ExecEvent::Started,
            Err((cause, message)) => ExecEvent::Failed { cause, message },
        };
        let _ = frame::write(&mut channel, &event).await;
        let _ = channel.shutdown().await;
    }

    fn begin(&self, request: &MainRequest) -> Result<(), Failure> {
        if self.0.running.borrow().is_some() {
            return Err((ExecFailure::BadRequest, "there is a main command already".into()));
        }
        let (terminal, its_side) = open_terminal(&request.command)?;
        let tree = Rc::new(Tree::new());
        let kills = oom::kills();
        let mut child = spawn::spawn(&request.command, &tree, its_side)?;
        let pid = child.id();
        // Nothing else runs between fork and this line: the reaper cannot have taken its
        // status yet.
        let ended = self.0.reaper.expect(pid);
        let stdin = child.stdin.take().filter(|_| request.input);
        let stdin = stdin.and_then(|stdin| pipe::Sender::from_owned_fd(stdin.into()).ok());
        let running = Running {
            pid,
            tree: Rc::clone(&tree),
            terminal: terminal.clone(),
            stdin: Rc::new(Mutex::new(stdin)),
        };
        *self.0.running.borrow_mut() = Some(running);
        let this = self.clone();
        spawn_local(async move {
            let output = async {
                match terminal {
                    Some(terminal) => this.keep_shown(&terminal).await,
                    None => {
                        tokio::join!(
                            this.keep(child.stdout.take(), OutputStream::Stdout),
                            this.keep(child.stderr.take(), OutputStream::Stderr),
                        );
                    }
                }
            };
            let ending = async {
                let status = ended.await.unwrap_or(ExitStatus::Signal(libc::SIGKILL as u8));
                // Whatever it left running goes with it, and closes its pipes.
                tree.kill(pid).await;
                status
            };
            let ((), status) = tokio::join!(output, ending);
            let kills = u32::try_from(oom::kills().saturating_sub(kills)).unwrap_or(u32::MAX);
            this.0.ended.set(Some((status, (kills > 0).then_some(kills))));
            this.0.changed.notify_waiters();
        });
        Ok(())
    }

    /// Keeps what comes from one of its pipes.
    async fn keep(&self, from: Option<impl Into<OwnedFd>>, stream: OutputStream) {
        let Some(from) = from else { return };
        let Ok(mut from) = pipe::Receiver::from_owned_fd(from.into()) else { return };
        let mut buffer = vec![0; BUFFER];
        loop {
            self.has_room().await;
            match from.read(&mut buffer).await {
                Ok(n @ 1..) => self.add(stream, &buffer[..n]),
                _ => return,
            }
        }
    }

    /// Keeps what is shown on its terminal.
    async fn keep_shown(&self, terminal: &Terminal) {
        let mut buffer = vec![0; BUFFER];
        loop {
            self.has_room().await;
            match terminal.show(&mut buffer).await {
                Ok(n @ 1..) => self.add(OutputStream::Stdout, &buffer[..n]),
                _ => return,
            }
        }
    }

    fn add(&self, stream: OutputStream, bytes: &[u8]) {
        self.0.record.borrow_mut().add(stream, bytes);
        self.0.changed.notify_waiters();
    }

    /// Waits while a log is behind: nothing that it is to have is lost. Without one, the
    /// oldest goes.
    async fn has_room(&self) {
        while self.0.log.get().0.is_some() && self.0.record.borrow().is_full() {
            self.0.changed.notified().await;
        }
    }

    /// Types or writes what the host sends.
    pub async fn input(&self, mut channel: Channel) {
        let running = self.0.running.borrow().clone();
        let Some(Running { terminal, stdin, .. }) = running else { return };
        while let Ok(Some(MainInput { bytes })) =
            frame::read(&mut channel, frame::MAX_FROM_HOST).await
        {
            match (&terminal, &bytes[..]) {
                (Some(terminal), []) => terminal.type_end().await,
                (Some(terminal), bytes) => {
                    if terminal.type_all(bytes).await.is_err() {
                        return;
                    }
                }
                (None, []) => {
                    stdin.lock().await.take();
                    return;
                }
                (None, bytes) => {
                    let mut stdin = stdin.lock().await;
                    let Some(pipe) = &mut *stdin else { return };
                    if pipe.write_all(bytes).await.is_err() {
                        stdin.take();
                        return;
                    }
                }
            }
        }
    }

    /// Tells the host what becomes of it, and obeys.
    pub async fn attach(&self, from: AttachFrom, channel: Channel) {
        let (mut from_host, mut to_host) = tokio::io::split(channel);
        if self.0.running.borrow().is_none() {
            let _ = frame::write(&mut to_host, &MainEvent::None).await;
            let _ = to_host.shutdown().await;
            return;
        }
        let log = from == AttachFrom::Log;
        let number = log.then(|| self.begins_log());
        let start = match from {
            AttachFrom::Log => self.0.record.borrow().taken(),
            AttachFrom::Start => 0,
            AttachFrom::Now => self.0.record.borrow().end(),
        };
        let telling = async {
            let mut position = start;
            while let Some((event, length)) = self.next(position, number).await {
                if frame::write(&mut to_host, &event).await.is_err() {
                    return;
                }
                position += length;
            }
            let _ = to_host.shutdown().await;
        };
        tokio::select! {
            () = telling => {}
            () = self.obey(&mut from_host, log.then_some(start)) => {}
        }
        if number.is_some() && self.0.log.get().0 == number {
            self.0.log.set((None, self.0.log.get().1));
            self.0.changed.notify_waiters();
        }
    }

    /// The number of a log that begins. The one before, of a host that has gone, ends.
    fn begins_log(&self) -> u32 {
        let number = self.0.log.get().1.wrapping_add(1);
        self.0.log.set((Some(number), number));
        self.0.changed.notify_waiters();
        number
    }

    /// The event at a position, once there is one, with the length of what it tells of.
    /// Nothing after the last one, or for a log that another has followed.
    async fn next(&self, position: u64, log: Option<u32>) -> Option<(MainEvent, u64)> {
        loop {
            if log.is_some() && self.0.log.get().0 != log {
                return None;
            }
            match self.0.record.borrow().at(position) {
                Found::Output(stream, bytes) => {
                    let event = MainEvent::Output { stream, bytes: bytes.to_vec().into() };
                    return Some((event, bytes.len() as u64));
                }
                Found::Lost(bytes) => return Some((MainEvent::Lost(bytes), bytes)),
                Found::Nothing => {}
            }
            match self.0.ended.get() {
                // One past the end, so that it is told once.
                Some(_) if position > self.0.record.borrow().end() => return None,
                Some((status, kills)) => return Some((MainEvent::Exited(status, kills), 1)),
                None => self.0.changed.notified().await,
            }
        }
    }

    /// Does what the host says until it has gone. `log` is where its log began.
    async fn obey(&self, from_host: &mut ReadHalf<Channel>, log: Option<u64>) {
        // Reading a message is not cancel-safe, but this is never gone on with.
        let (orders, mut ordered) = mpsc::channel(8);
        let reading = async {
            while let Ok(Some(order)) = frame::read(from_host, frame::MAX_FROM_HOST).await {
                let _ = orders.send(order).await;
            }
            drop(orders);
        };
        let obeying = async {
            while let Some(order) = ordered.recv().await {
                self.do_as_told(order, log).await;
            }
        };
        tokio::join!(reading, obeying);
    }

    async fn do_as_told(&self, order: MainControl, log: Option<u64>) {
        let running = self.0.running.borrow().clone();
        let Some(running) = running else { return };
        match order {
            MainControl::Signal(libc::SIGKILL) => running.tree.kill(running.pid).await,
            MainControl::Signal(signal) if self.0.ended.get().is_none() => {
                tree::signal_group(running.pid, signal);
            }
            MainControl::Signal(_) => {}
            MainControl::Resize(size) => {
                if let Some(terminal) = &running.terminal {
                    terminal.resize(size);
                }
            }
            MainControl::Taken(bytes) => {
                if let Some(start) = log {
                    self.0.record.borrow_mut().take(start.saturating_add(bytes));
                    self.0.changed.notify_waiters();
                }
            }
        }
    }
}
