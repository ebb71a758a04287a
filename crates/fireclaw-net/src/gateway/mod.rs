//! The gateway of one machine: a process that connects, resolves and refuses for it. It
//! has no rights of its own; its keeper has made everything that takes some.

mod denials;
mod lifetime;
mod pins;
mod proxy;
mod resolver;
mod serve;
mod shared;
mod slirp;
mod sniff;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use fireclaw_policy::Network;
use ipnet::Ipv4Net;
use rustix::thread::CapabilitySet;
use serde::{Deserialize, Serialize};

pub use denials::Denial;
use serve::SocketFile;

use crate::keeper::{Made, Task};
use crate::netlink::Netlink;
use crate::place::{Place, confine, leave_root};
use crate::rules::Kind;
use crate::state::Machine;
use crate::{Error, Request, Result, wire};

/// What one of our processes is started with, on its standard input.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Role {
    Gateway(Request),
    Keeper(Task),
}

/// What a gateway says once it is ready, with the descriptors of the plug.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Ready {
    pub machine: Machine,
}

/// The keeper of this gateway's machine.
struct Keeper {
    child: Child,
    stream: UnixStream,
}

impl Keeper {
    /// Starts this program once more.
    fn start(task: Task) -> Result<Self> {
        let failed = |e: std::io::Error| Error::system("starting the keeper")(e);
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        let mut words = std::env::args_os();
        let child = Command::new("/proc/self/exe")
            .arg0(words.next().unwrap_or_default())
            .args(words)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()
            .map_err(failed)?;
        wire::send(&ours, &Role::Keeper(task), &[]).map_err(failed)?;
        Ok(Self { child, stream: ours })
    }

    /// What it made, and the descriptors of it.
    fn made(&self) -> Result<(Made, Vec<OwnedFd>)> {
        match wire::receive::<Result<Made>>(&self.stream) {
            Ok(Some((made, descriptors))) => Ok((made?, descriptors)),
            Ok(None) => Err(Error::gateway("lost its keeper")),
            Err(e) => Err(Error::gateway(format!("lost its keeper: {e}"))),
        }
    }
}

/// Does the part that this process is told on its standard input, until it is over.
pub(crate) fn main(stream: &UnixStream) -> Result<()> {
    let role = wire::receive::<Role>(stream)
        .map_err(Error::system("reading what to do"))?
        .ok_or_else(|| Error::gateway("was told nothing"))?;
    match role.0 {
        Role::Keeper(task) => crate::keeper::main(stream, task),
        Role::Gateway(request) => gateway(stream, request),
    }
}

fn gateway(stream: &UnixStream, request: Request) -> Result<()> {
    let refused = |error: &Error| {
        let refused: Result<Ready> = Err(error.clone());
        let _ = wire::send(stream, &refused, &[]);
    };
    let Started { keeper, made, mut descriptors, host, socket } = match start(&request) {
        Ok(started) => started,
        Err(error) => {
            refused(&error);
            return Err(error);
        }
    };
    let plug = descriptors.split_off(descriptors.len().min(3));
    let [proxy, dns, dns_tcp] =
        <[OwnedFd; 3]>::try_from(descriptors).map_err(|_| Error::gateway("lost its sockets"))?;
    let parts = serve::Parts {
        machine: made.machine.clone(),
        request,
        keeper: keeper.stream,
        child: keeper.child,
        proxy: proxy.into(),
        dns: dns.into(),
        dns_tcp: dns_tcp.into(),
        host,
        socket,
    };
    // It takes the plug along: the tap is to go with its user.
    let ready = move |result: Result<()>| {
        let plug: Vec<BorrowedFd<'_>> = plug.iter().map(AsFd::as_fd).collect();
        let ready = result.map(|()| Ready { machine: made.machine.clone() });
        wire::send(stream, &ready, &plug).map_err(Error::system("saying that it is ready"))
    };
    serve::run(parts, stream, ready)
}

/// What was made while there were rights.
struct Started {
    keeper: Keeper,
    made: Made,
    descriptors: Vec<OwnedFd>,
    host: Vec<Ipv4Net>,
    socket: SocketFile,
}

fn start(request: &Request) -> Result<Started> {
    if request.policy == Network::None {
        return Err(Error::NotHere {
            policy: "none".into(),
            reason: "it is a machine without a network card".into(),
        });
    }
    let kind = Kind::of(&request.policy);
    if kind == Kind::Open && request.place == Place::Namespace {
        slirp::available()?;
    }
    let host = host_addresses(request.place)?;
    let task = Task {
        place: request.place,
        state: request.state.clone(),
        config: request.config.clone(),
        kind,
        policy: word(&request.policy),
        owner: request.owner.clone(),
        directory: request.directory.clone(),
        plug: request.plug,
        host: host.clone(),
    };
    let keeper = Keeper::start(task)?;
    raise_descriptors();
    let socket = SocketFile::bind(&request.directory)?;
    // While it works: this process reads what guests write.
    confine(CapabilitySet::SETUID | CapabilitySet::SETGID)?;
    if request.place == Place::Host {
        leave_root()?;
    }
    confine(CapabilitySet::empty())?;
    let (made, descriptors) = keeper.made()?;
    Ok(Started { keeper, made, descriptors, host, socket })
}

/// The descriptors that a gateway may need: two for each connection, one for each question and
/// what it asks, and some to be asked with, however much a guest holds.
const DESCRIPTORS: u64 = 2048;

/// Lets this process have more descriptors than programs get that use select(2), as far as it
/// may.
fn raise_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|current| current < DESCRIPTORS) {
        let current = Some(maximum.unwrap_or(DESCRIPTORS).min(DESCRIPTORS));
        // With fewer it refuses sooner.
        let _ = setrlimit(Resource::Nofile, Rlimit { current, maximum });
    }
}

/// The first word of a policy.
fn word(policy: &Network) -> String {
    let text = policy.to_string();
    text.split(':').next().unwrap_or_default().to_owned()
}

/// The host's own addresses, for a place that does not know them.
fn host_addresses(place: Place) -> Result<Vec<Ipv4Net>> {
    match place {
        Place::Host => Ok(Vec::new()),
        Place::Namespace => {
            // Not only those that devices have: a route makes others local too.
            Ok(Ipv4Net::aggregate(&Netlink::open()?.local()?))
        }
    }
}
