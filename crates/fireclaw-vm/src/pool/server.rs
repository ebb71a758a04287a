//! The pool's side.

use std::convert::Infallible;
use std::fs::{self, File, TryLockError};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use fireclaw_host::{PathError, SocketDir};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Mutex;
use tokio::sync::mpsc::{self, Receiver, Sender};

use super::{Offer, socket_name};
use crate::launcher::shell;
use crate::lease::Death;
use crate::snapshot::Snapshot;
use crate::{Error, Launcher, Machine, Memory, Result, Waiting};

/// How long the command may take that warms a VM up.
const WARMING: Duration = Duration::from_secs(60);

/// How often a command is run before. Under emulation even the second run
/// still translates what the first did not come by.
const REHEARSALS: usize = 3;

/// How long a taken VM is not replaced, unless it has been given back.
const HEAD_START: Duration = Duration::from_millis(500);

/// How long after a VM could not be started the next is tried.
const PAUSE: Duration = Duration::from_secs(1);

/// A number of VMs that wait to be taken.
#[derive(Debug)]
pub struct Pool {
    launcher: Launcher,
    snapshot: Snapshot,
    size: usize,
    dir: SocketDir,
    socket: String,
    // Held for as long as the pool lives: there is one of each kind.
    _lock: File,
}

/// What becomes of a VM of the pool.
#[derive(Debug)]
enum Event {
    /// It waits to be taken.
    Ready,
    /// It no longer waits: taken, or it ended before that.
    Left(Option<Error>),
    /// Another should take its place.
    Replace,
    /// It could not be started.
    Failed(Error),
}

impl Pool {
    /// A pool of `size` VMs from a snapshot, with its socket in `directory`.
    ///
    /// # Errors
    /// [`Error::PoolRuns`] if there is one for this snapshot already;
    /// [`Error::TapAttachment`] for VMs with a network interface, whose tap is its
    /// taker's.
    pub fn new(
        launcher: Launcher,
        snapshot: Snapshot,
        size: usize,
        directory: PathBuf,
    ) -> Result<Self> {
        if launcher.spec.interface {
            return Err(Error::TapAttachment("a VM that waits in a pool has none"));
        }
        fs::create_dir_all(&directory).map_err(PathError::at("create", &directory))?;
        let path = directory.join(format!("{}.lock", snapshot.id));
        let lock = File::create(&path).map_err(PathError::at("create", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::PoolRuns),
            Err(TryLockError::Error(e)) => return Err(PathError::at("lock", path)(e).into()),
        }
        let dir = SocketDir::open(directory)?;
        let socket = socket_name(&snapshot.id);
        Ok(Self { launcher, snapshot, size, dir, socket, _lock: lock })
    }

    /// Keeps the VMs ready until dropped; `on_change` is told how many
    /// wait, and of what went wrong.
    ///
    /// Must run in a [`tokio::task::LocalSet`], on the thread that lives
    /// longest.
    pub async fn serve(
        self,
        mut on_change: impl FnMut(usize, Option<&Error>),
    ) -> Result<Infallible> {
        // We hold the lock, so a socket that is there is nobody's.
        let path = self.dir.path().join(&self.socket);
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(self.dir.name(&self.socket))
            .map_err(PathError::at("listen on", &path))?;
        let (offer, takers) = mpsc::channel(1);
        let (tell, mut told) = mpsc::channel(self.size);
        let keeper = Rc::new(Keeper { pool: self, takers: Mutex::new(takers), tell });
        let mut machines = tokio::task::JoinSet::new();
        let mut waiting = 0;
        for _ in 0..keeper.pool.size {
            machines.spawn_local(Rc::clone(&keeper).keep());
        }
        loop {
            tokio::select! {
                taker = listener.accept() => {
                    // Without a VM ready, the taker is better off on its own.
                    if let Ok((taker, _)) = taker
                        && waiting > 0
                    {
                        let _ = offer.try_send(taker);
                    }
                }
                Some(event) = told.recv() => {
                    let problem = match event {
                        Event::Ready => {
                            waiting += 1;
                            None
                        }
                        Event::Left(problem) => {
                            waiting -= 1;
                            problem
                        }
                        Event::Replace => {
                            machines.spawn_local(Rc::clone(&keeper).keep());
                            None
                        }
                        Event::Failed(problem) => Some(problem),
                    };
                    on_change(waiting, problem.as_ref());
                }
                Some(_) = machines.join_next() => {}
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.dir.path().join(&self.socket));
        let _ = fs::remove_file(self.dir.path().join(format!("{}.lock", self.snapshot.id)));
    }
}

/// What the tasks of all VMs share.
struct Keeper {
    pool: Pool,
    takers: Mutex<Receiver<UnixStream>>,
    tell: Sender<Event>,
}

impl Keeper {
    /// Keeps one VM ready until it has been taken and given back.
    async fn keep(self: Rc<Self>) {
        let mut machine = loop {
            match self.ready().await {
                Ok(machine) => break machine,
                Err(e) => self.tell(Event::Failed(e)).await,
            }
            tokio::time::sleep(PAUSE).await;
        };
        self.tell(Event::Ready).await;
        let taker = async { self.takers.lock().await.recv().await };
        let taker = tokio::select! {
            taker = taker => taker,
            death = machine.process.ended() => {
                self.tell(Event::Left(Some(death))).await;
                self.tell(Event::Replace).await;
                return;
            }
        };
        self.tell(Event::Left(None)).await;
        let Some(taker) = taker else { return };
        let lease = lend(machine, taker);
        tokio::pin!(lease);
        // A short command has the processors for itself.
        let ended = tokio::time::timeout(HEAD_START, &mut lease).await.is_ok();
        self.tell(Event::Replace).await;
        if !ended {
            lease.await;
        }
    }

    async fn tell(&self, event: Event) {
        let _ = self.tell.send(event).await;
    }

    /// A VM whose guest has run a command before and waits.
    async fn ready(&self) -> Result<Machine> {
        let memory = Memory::RestoredFrom(&self.pool.snapshot.directory);
        let machine = self.pool.launcher.launch(memory, None).await?;
        let mut waiting = Waiting::meet(machine, self.pool.launcher.timeout).await?;
        for _ in 0..REHEARSALS {
            // Whether it succeeds is no matter: an image may have no shell.
            waiting.prepare(shell("true", WARMING)).await?;
        }
        Ok(waiting.into_machine())
    }
}

/// Hands a VM's stream over and ends it when the taker has gone.
async fn lend(machine: Machine, mut taker: UnixStream) {
    let Machine { mut process, stream, control, run_dir, .. } = machine;
    let (Some(stream), Some(pid)) = (stream.into_socket(), process.pid()) else { return };
    if send(&taker, &Offer { pid }, &stream).await.is_ok() {
        drop(stream);
        let death = tokio::select! {
            death = process.ended() => Some(death),
            () = gone(&mut taker) => None,
        };
        if let Some(Error::VmmDied { status, stderr, console }) = death
            && let Ok(json) = serde_json::to_vec(&Death { status, stderr, console })
        {
            let _ = taker.write_all(&json).await;
        }
    }
    let _ = process.kill().await;
    drop((process, control, run_dir));
}

/// Resolves when the taker has closed the lease.
async fn gone(taker: &mut UnixStream) {
    while let Ok(1..) = taker.read(&mut [0; 64]).await {}
}

/// Sends the offer and the stream's descriptor in one message.
async fn send(taker: &UnixStream, offer: &Offer, stream: &UnixStream) -> io::Result<()> {
    let json = serde_json::to_vec(offer)?;
    let fds = [stream.as_fd()];
    taker
        .async_io(Interest::WRITABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            control.push(SendAncillaryMessage::ScmRights(&fds));
            let sent =
                sendmsg(taker.as_fd(), &[IoSlice::new(&json)], &mut control, SendFlags::NOSIGNAL)?;
            if sent == json.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
        })
        .await
}
