//! The gateway of one VM: a process that connects, resolves and refuses for it. It
//! has no rights of its own; its helper has made everything that takes some.

mod access;
mod denials;
mod lifetime;
mod pins;
mod proxy;
mod resolver;
mod serve;
mod slirp;
mod sniff;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use fireclaw_policy::Network;
use rustix::thread::CapabilitySet;
use serde::{Deserialize, Serialize};

use serve::SocketFile;

use crate::helper::Made;
use crate::mode::{NetworkMode, confine, leave_root};
use crate::rules::Kind;
use crate::state::Machine;
use crate::{Error, Request, Result, wire};

/// What one of our processes is told on its standard input.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Role {
    /// With it comes the other end of the helper's standard input.
    Gateway(Request),
    Helper(Request),
}

/// What a gateway says once it is ready, with the descriptors of the tap attachment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Ready {
    pub machine: Machine,
}

/// Does the part that this process is told on its standard input, until it is over.
pub(crate) fn main(stream: &UnixStream) -> Result<()> {
    let role = wire::receive::<Role>(stream)
        .map_err(Error::system("reading what to do"))?
        .ok_or_else(|| Error::gateway("was told nothing"))?;
    match role {
        (Role::Helper(request), _) => crate::helper::main(stream, request),
        (Role::Gateway(request), descriptors) => {
            let helper = descriptors.into_iter().next();
            let helper = helper.ok_or_else(|| Error::gateway("has no helper"))?;
            gateway(stream, helper.into(), request)
        }
    }
}

fn gateway(stream: &UnixStream, helper: UnixStream, request: Request) -> Result<()> {
    let refused = |error: &Error| {
        let refused: Result<Ready> = Err(error.clone());
        let _ = wire::send(stream, &refused, &[]);
    };
    let Started { made, mut descriptors, socket } = match start(&helper, &request) {
        Ok(started) => started,
        Err(error) => {
            refused(&error);
            return Err(error);
        }
    };
    let attachment = descriptors.split_off(descriptors.len().min(3));
    let [proxy, dns, dns_tcp] =
        <[OwnedFd; 3]>::try_from(descriptors).map_err(|_| Error::gateway("lost its sockets"))?;
    let Made { machine, host } = made;
    let parts = serve::Parts {
        machine: machine.clone(),
        request,
        helper,
        proxy: proxy.into(),
        dns: dns.into(),
        dns_tcp: dns_tcp.into(),
        host,
        socket,
    };
    // It takes the tap attachment along: the tap is to go with its user.
    let ready = move |result: Result<()>| {
        let attachment: Vec<BorrowedFd<'_>> = attachment.iter().map(AsFd::as_fd).collect();
        let ready = result.map(|()| Ready { machine });
        wire::send(stream, &ready, &attachment).map_err(Error::system("saying that it is ready"))
    };
    serve::run(parts, stream, ready)
}

/// What was made while there were rights.
struct Started {
    made: Made,
    descriptors: Vec<OwnedFd>,
    socket: SocketFile,
}

fn start(helper: &UnixStream, request: &Request) -> Result<Started> {
    raise_descriptors();
    let socket = SocketFile::bind(&request.directory)?;
    // While the helper works: this process reads what guests write.
    confine(CapabilitySet::SETUID | CapabilitySet::SETGID)?;
    if request.mode == NetworkMode::Host {
        leave_root()?;
    }
    confine(CapabilitySet::empty())?;
    let (made, descriptors) = match wire::receive::<Result<Made>>(helper) {
        Ok(Some((made, descriptors))) => (made?, descriptors),
        Ok(None) => return Err(Error::gateway("lost its helper")),
        Err(e) => return Err(Error::gateway(format!("lost its helper: {e}"))),
    };
    if !made.machine.helper.lives() {
        return Err(Error::NotHere {
            policy: "a network interface with root".into(),
            reason: "/proc hides the processes of others (mount it without hidepid)".into(),
        });
    }
    Ok(Started { made, descriptors, socket })
}

/// What has to be there before anything is started.
pub(crate) fn possible(request: &Request) -> Result<()> {
    if request.policy == Network::None {
        return Err(Error::NotHere {
            policy: "none".into(),
            reason: "it is a VM without a network interface".into(),
        });
    }
    if Kind::of(&request.policy) == Kind::Open && request.mode == NetworkMode::Namespace {
        slirp::available()?;
    }
    Ok(())
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
