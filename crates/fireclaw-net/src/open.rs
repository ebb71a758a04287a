//! Starts the gateway of a machine.

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use fireclaw_policy::{HostConfig, Network};
use fireclaw_protocol::hello;
use fireclaw_vm::{Namespace, Plug, PlugKind};
use serde::{Deserialize, Serialize};

use crate::address::Mac;
use crate::gateway::{self, Ready, Role};
use crate::place::{Place, enter_namespaces};
use crate::state::Machine;
use crate::{Client, Error, ProcessStamp, Result, tap, wire};

/// The hidden command that leads `fireclaw` to [`gateway_main`].
const COMMAND: &str = "gateway";

/// How long a gateway may take to get ready.
const READY: Duration = Duration::from_secs(30);

/// What a gateway and its keeper say of what goes wrong, in its directory.
const LOG: &str = "net.log";

/// What a machine's network is to be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request {
    /// What the machine may reach; not [`Network::None`], which needs no gateway.
    pub policy: Network,
    /// What the host's owner decided.
    pub config: HostConfig,
    /// For whom it is, as `fireclaw net ls` shows it.
    pub owner: String,
    /// An existing directory for the gateway's socket `net.sock` and its log `net.log`.
    pub directory: PathBuf,
    /// Where tap and rules are to be; see [`Place::here`].
    pub place: Place,
    /// Where the addresses are written down; see [`Place::state_directory`].
    pub state: PathBuf,
    /// How the monitor gets at the tap.
    pub plug: PlugKind,
    /// As which user the monitor runs, if not as ours.
    pub user: Option<u32>,
}

/// What the guest has to know of its card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    /// The card's own address.
    pub mac: Mac,
    /// The guest's address.
    pub address: Ipv4Addr,
    /// The length of its network's prefix.
    pub prefix: u8,
    /// Where its default route leads.
    pub gateway: Ipv4Addr,
    /// Its only resolver.
    pub resolver: Ipv4Addr,
}

impl Card {
    pub(crate) fn of(machine: &Machine, config: &HostConfig) -> Self {
        Self {
            mac: Mac::of(machine.address),
            address: machine.address,
            prefix: config.subnet.prefix_len(),
            gateway: config.gateway(),
            resolver: config.gateway(),
        }
    }
}

impl From<Card> for hello::Card {
    fn from(card: Card) -> Self {
        let Card { mac, address, prefix, gateway, resolver } = card;
        Self { mac: mac.0.into(), address, prefix, gateway, resolver }
    }
}

/// A machine's gateway, started by this process.
///
/// It ends when this is dropped or this process ends, unless it was told to whom it
/// belongs; then it ends with that process.
#[derive(Debug)]
pub struct Gateway {
    client: Client,
    card: Card,
    machine: Machine,
    plug: Plug,
    process: ProcessStamp,
    /// Closed, it tells that the starter has gone.
    _stream: UnixStream,
}

/// Starts a gateway and waits until it is ready: `program` leads, with its arguments, to
/// [`gateway_main`].
///
/// # Errors
/// Whatever the gateway could not do; nothing of it is left then.
pub async fn open(program: &Path, arguments: &[&str], request: Request) -> Result<Gateway> {
    gateway::possible(&request)?;
    let failed = |e: std::io::Error| Error::system("starting the gateway")(e);
    let log = File::create(request.directory.join(LOG)).map_err(failed)?;
    let mut command = Command::new(program);
    // Not our output: it may outlive this process, and would keep a pipe open. Ctrl-C at a
    // terminal is not for it.
    command.args(arguments).stdout(Stdio::null()).stderr(Stdio::from(log)).process_group(0);
    let roles = request.clone();
    let starting = tokio::task::spawn_blocking(move || start(command, roles));
    let started = starting.await.map_err(|e| failed(e.into()))?;
    let Started { process, children, stream, ready } = started.map_err(failed)?;
    // Their end is waited for somewhere, so that no dead process stays.
    tokio::task::spawn_blocking(move || children.map(|mut child| child.wait()));
    let (machine, descriptors) = match ready {
        Ok(Some((ready, descriptors))) => (ready?.machine, descriptors),
        Ok(None) => return Err(Error::gateway("ended while it started")),
        Err(e) => return Err(Error::gateway(format!("did not get ready: {e}"))),
    };
    let mut descriptors = descriptors.into_iter();
    let plug = match (request.plug, descriptors.next(), descriptors.next()) {
        (PlugKind::Tap, Some(tap), None) => Plug::Tap(tap),
        (PlugKind::Named, None, None) => Plug::Named { name: machine.tap(), namespace: None },
        (PlugKind::Named, Some(user), Some(net)) => {
            let namespace = Some(Namespace { user: Some(user), net });
            Plug::Named { name: machine.tap(), namespace }
        }
        _ => return Err(Error::gateway("did not pass the tap on")),
    };
    Ok(Gateway {
        client: Client::new(request.directory),
        card: Card::of(&machine, &request.config),
        machine,
        plug,
        process,
        _stream: stream,
    })
}

/// A gateway and its keeper.
struct Started {
    process: ProcessStamp,
    children: [Child; 2],
    stream: UnixStream,
    ready: std::io::Result<Option<(Result<Ready>, Vec<OwnedFd>)>>,
}

/// Starts both, and waits until they are ready.
fn start(mut command: Command, request: Request) -> std::io::Result<Started> {
    let mut part = || {
        let (stream, theirs) = UnixStream::pair()?;
        let child = command.stdin(Stdio::from(OwnedFd::from(theirs))).spawn()?;
        std::io::Result::Ok((stream, child))
    };
    let (to_keeper, keeper) = part()?;
    // It begins while the gateway starts.
    let told = wire::send(&to_keeper, &Role::Keeper(request.clone()), &[]);
    let (stream, gateway) = part()?;
    let process = i32::try_from(gateway.id()).ok().and_then(ProcessStamp::of);
    let process = process.ok_or_else(|| std::io::Error::other("it ended at once"))?;
    stream.set_read_timeout(Some(READY))?;
    let told =
        told.and_then(|()| wire::send(&stream, &Role::Gateway(request), &[to_keeper.as_fd()]));
    // The keeper lives for as long as the gateway has this.
    drop(to_keeper);
    let ready = told.and_then(|()| wire::receive(&stream));
    Ok(Started { process, children: [keeper, gateway], stream, ready })
}

impl Gateway {
    /// Starts a gateway with this very program, which has a hidden command for it.
    ///
    /// # Errors
    /// As [`open`].
    pub async fn open(request: Request) -> Result<Self> {
        // Also after the program's file was replaced (proc(5)).
        open(Path::new("/proc/self/exe"), &[COMMAND], request).await
    }

    /// What the guest has to know.
    pub fn card(&self) -> Card {
        self.card
    }

    /// The row that was written for it.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Where the monitor plugs the card in. A machine of which a snapshot is made may be on
    /// it too, before the one that stays: its card is down.
    pub fn plug(&self) -> &Plug {
        &self.plug
    }

    /// What asks this gateway.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The gateway's process.
    pub fn process(&self) -> ProcessStamp {
        self.process
    }

    /// From now on the gateway lives as long as the monitor, and no longer ends with this.
    ///
    /// # Errors
    /// [`Error::Gateway`], also if the monitor has ended.
    pub async fn belongs_to(self, monitor: ProcessStamp) -> Result<()> {
        self.client.belongs_to(monitor).await
    }

    /// Ends the gateway and waits until everything of its machine is gone.
    ///
    /// # Errors
    /// [`Error::Gateway`] if it does not end within half a minute.
    pub async fn close(self) -> Result<()> {
        // It may have ended already.
        let _ = self.client.quit().await;
        drop(self.plug);
        ended(self.process).await
    }
}

/// Resolves when a gateway has ended.
async fn ended(process: ProcessStamp) -> Result<()> {
    let Some(pidfd) = process.pidfd() else { return Ok(()) };
    let wait = tokio::task::spawn_blocking(move || {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let limit = Timespec { tv_sec: 40, tv_nsec: 0 };
        poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit))
    });
    match wait.await {
        Ok(Ok(1..)) => Ok(()),
        _ => Err(Error::gateway("does not end")),
    }
}

/// What a gateway's process does: the hidden sub-command. It must be called while the
/// process has one thread.
pub fn gateway_main() -> ExitCode {
    let main = || {
        let stdin = rustix::io::dup(std::io::stdin()).map_err(Error::system("starting"))?;
        crate::gateway::main(&UnixStream::from(stdin))
    };
    match main() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fireclaw: the network of a machine: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A tap in a user and network namespace of its own that leads nowhere, for a machine of
/// which a snapshot is made. It moves the calling process there: call it in a process
/// that was started for it and has one thread.
///
/// # Errors
/// [`Error::NotHere`] without user namespaces.
pub fn scratch_tap() -> Result<OwnedFd> {
    enter_namespaces()?;
    tap::open("fc-scratch")
}

/// A tap with `IFF_VNET_HDR` in the network namespace of this thread.
///
/// # Errors
/// [`Error::System`] without the right to make one.
pub fn bare_tap(name: &str) -> Result<OwnedFd> {
    tap::open(name)
}
