//! The helper: the process that makes what belongs to one machine, holds it, and removes
//! it when its gateway ends, however that ends.
//!
//! It alone has the right to change the network, and reads nothing that a guest wrote.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use fireclaw_say::say;
use fireclaw_vm::AttachmentKind;
use ipnet::Ipv4Net;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::thread::CapabilitySet;
use serde::{Deserialize, Serialize};

use crate::mode::{NetworkMode, confine, enter_namespaces, host_addresses};
use crate::netlink::{Link, Netlink};
use crate::nft::Nft;
use crate::rules::{Guest, Kind, Ports, Refused};
use crate::state::{Lock, Machine, State, lock};
use crate::watch::Watch;
use crate::{Error, ProcessStamp, Request, Result, conntrack, host, nft, rules, tap, wire};

/// What a helper made. Three listening sockets come with it, then the tap, or in a
/// namespace for a tap by name the user and the network namespace.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Made {
    pub machine: Machine,
    /// The host's addresses that the rules know.
    pub host: Vec<Ipv4Net>,
}

/// What its gateway asks of a helper. Each is answered with a `Result<Answer>`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Ask {
    /// Rules of another kind, or for another policy or other addresses of the host.
    Rules { kind: Kind, policy: String, host: Vec<Ipv4Net> },
    /// What was refused.
    Counts,
}

/// A helper's answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Answer {
    Done,
    Counts(Vec<Refused>),
}

/// What is made, in the order of its making.
struct Kept {
    request: Request,
    state: State,
    machine: Machine,
    guest: Guest,
    /// On a host others may remove rules.
    watch: Option<Watch>,
}

/// Does the task until the other end of the stream is closed.
pub(crate) fn main(stream: &UnixStream, request: Request) -> Result<()> {
    let (kept, descriptors) = match make(request) {
        Ok(made) => made,
        Err(error) => {
            let refused: Result<Made> = Err(error.clone());
            let _ = wire::send(stream, &refused, &[]);
            return Err(error);
        }
    };
    let confined = confine(CapabilitySet::NET_ADMIN);
    let (machine, host) = (kept.machine.clone(), kept.guest.host.clone());
    let made: Result<Made> = confined.map(|()| Made { machine, host });
    let borrowed: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
    let sent = wire::send(stream, &made, &borrowed);
    // The tap is to go with its user.
    drop(borrowed);
    drop(descriptors);
    if made.is_ok() && sent.is_ok() { serve(stream, kept) } else { kept.remove() }
}

fn serve(stream: &UnixStream, mut kept: Kept) -> Result<()> {
    loop {
        if let Err(error) = kept.guard(stream) {
            say!("fireclaw: the packet rules could not be set again: {error}");
            break;
        }
        let Ok(Some((ask, _))) = wire::receive::<Ask>(stream) else { break };
        let answer = match ask {
            Ask::Counts => counts(kept.machine.address).map(Answer::Counts),
            Ask::Rules { kind, policy, host } => {
                kept.change(kind, &policy, host).map(|()| Answer::Done)
            }
        };
        if wire::send(stream, &answer, &[]).is_err() {
            break;
        }
    }
    kept.remove()
}

fn counts(address: Ipv4Addr) -> Result<Vec<Refused>> {
    let mut listed = Vec::new();
    for ask in rules::counts(address) {
        listed.extend(nft::run(ask)?);
    }
    Ok(rules::read_counts(&listed))
}

/// Held while something of the host is made or removed. A namespace is its helper's alone.
fn alone(request: &Request) -> Result<Option<Lock>> {
    match request.mode {
        NetworkMode::Host => lock(&request.state).map(Some),
        NetworkMode::Namespace => Ok(None),
    }
}

/// Makes everything, or removes what it made before it failed.
fn make(request: Request) -> Result<(Kept, Vec<OwnedFd>)> {
    let host = host_addresses(request.mode)?;
    if request.mode == NetworkMode::Namespace {
        enter_namespaces()?;
    }
    // It gets ready while all else is made.
    let nft = Nft::waiting()?;
    let _alone = alone(&request)?;
    let mut state = State::open(&request.state)?;
    if request.mode == NetworkMode::Host {
        let netlink = Netlink::open()?;
        host::sweep(&netlink, &state)?;
        host::reconcile(&netlink, &state)?;
        host::agree(&state, &request.config)?;
    } else {
        state.free_dead()?;
    }
    let machine = state.allocate(
        request.config.subnet,
        Machine {
            address: Ipv4Addr::UNSPECIFIED,
            owner: request.owner.clone(),
            mode: request.mode,
            policy: request.policy.word().into(),
            directory: request.directory.clone(),
            helper: own_stamp()?,
        },
    )?;
    match make_things(&request, &state, &machine, nft, host) {
        Ok((guest, watch, descriptors)) => {
            Ok((Kept { request, state, machine, guest, watch }, descriptors))
        }
        Err(error) => {
            // The first error is the one that matters.
            let _ = remove(&request, &state, &machine);
            Err(error)
        }
    }
}

fn own_stamp() -> Result<ProcessStamp> {
    ProcessStamp::of(rustix::process::getpid().as_raw_nonzero().get()).ok_or_else(|| {
        Error::System { action: "reading /proc/self/stat".into(), reason: "it is not there".into() }
    })
}

/// What is made while nobody else makes or removes something of the host.
fn make_things(
    request: &Request,
    state: &State,
    machine: &Machine,
    nft: Nft,
    host: Vec<Ipv4Net>,
) -> Result<(Guest, Option<Watch>, Vec<OwnedFd>)> {
    // What the host had before is noted; a namespace had nothing.
    let noted = (request.mode == NetworkMode::Host).then_some(state);
    let netlink = Netlink::open()?;
    if request.mode == NetworkMode::Namespace
        && let Some(lo) = netlink.link("lo")?
    {
        netlink.up(lo.index)?;
    }
    let bridge = host::bridge(&netlink, noted, &request.config)?;
    let name = machine.tap();
    let tap = tap::open(&name)?;
    let link = tap_link(&netlink, &name)?;
    host::quiet(&name)?;
    let (ports, mut descriptors) = listen(request.config.gateway())?;
    let kind = Kind::of(&request.policy);
    let guest = Guest { address: machine.address, ports, kind, mode: request.mode, host };
    let watch = match request.mode {
        NetworkMode::Host => Some(Watch::open()?),
        NetworkMode::Namespace => None,
    };
    nft.set(&rules::set_up(&request.config, &guest))?;
    if request.mode == NetworkMode::Host {
        // Who cannot forget connections now cannot do it at the end.
        conntrack::available()?;
    }
    if kind == Kind::Open {
        host::forward(noted)?;
    }
    // Last, so that no packet passes before the rules hold.
    netlink.join(link.index, bridge.index)?;
    match request.attachment {
        AttachmentKind::Tap => descriptors.push(tap),
        AttachmentKind::Named => {
            let user = rustix::process::geteuid().as_raw();
            tap::keep(&tap, request.user.unwrap_or(user))?;
            if request.mode == NetworkMode::Namespace {
                descriptors.extend([own_namespace("user")?, own_namespace("net")?]);
            }
        }
    }
    Ok((guest, watch, descriptors))
}

fn tap_link(netlink: &Netlink, name: &str) -> Result<Link> {
    netlink.link(name)?.ok_or_else(|| Error::System {
        action: format!("looking for the tap {name}"),
        reason: "it is gone".into(),
    })
}

/// Where the gateway hears its guest: the proxy, the resolver over UDP and over TCP.
fn listen(gateway: Ipv4Addr) -> Result<(Ports, Vec<OwnedFd>)> {
    let failed = || Error::system::<std::io::Error>(format!("listening on {gateway}"));
    let proxy = TcpListener::bind((gateway, 0)).map_err(failed())?;
    let dns = UdpSocket::bind((gateway, 0)).map_err(failed())?;
    let dns_tcp = TcpListener::bind((gateway, 0)).map_err(failed())?;
    let ports = Ports {
        proxy: proxy.local_addr().map_err(failed())?.port(),
        dns: dns.local_addr().map_err(failed())?.port(),
        dns_tcp: dns_tcp.local_addr().map_err(failed())?.port(),
    };
    Ok((ports, vec![proxy.into(), dns.into(), dns_tcp.into()]))
}

fn own_namespace(kind: &str) -> Result<OwnedFd> {
    let path = format!("/proc/self/ns/{kind}");
    let file = std::fs::File::open(&path).map_err(Error::system(format!("opening {path}")))?;
    Ok(file.into())
}

/// Removes what belongs to the machine, while the lock is held.
fn remove(request: &Request, state: &State, machine: &Machine) -> Result<()> {
    match request.mode {
        NetworkMode::Host => {
            let netlink = Netlink::open()?;
            host::remove(&netlink, state, machine)?;
            host::reconcile(&netlink, state)
        }
        // It goes with the last process in it.
        NetworkMode::Namespace => state.free(machine).map(drop),
    }
}

impl Kept {
    /// Waits until something is said on the stream. Rules that somebody removes meanwhile are
    /// set again, and until they are there the interface is cut off.
    fn guard(&self, stream: &UnixStream) -> Result<()> {
        let Some(watch) = &self.watch else { return Ok(()) };
        loop {
            let mut both = [
                PollFd::new(stream, PollFlags::IN),
                PollFd::from_borrowed_fd(watch.descriptor(), PollFlags::IN),
            ];
            match poll(&mut both, None) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other.map_err(|e| Error::system("waiting")(e))?,
            };
            let [said, changed] = both;
            if !changed.revents().is_empty() && self.lost(watch) {
                self.restore(watch)?;
            }
            if !said.revents().is_empty() {
                return Ok(());
            }
        }
    }

    fn lost(&self, watch: &Watch) -> bool {
        watch.lost([rules::TABLE, &self.machine.tap()])
    }

    fn restore(&self, watch: &Watch) -> Result<()> {
        // At once: others may hold the lock.
        self.cut(&Netlink::open()?)?;
        let _alone = alone(&self.request)?;
        self.set_again(watch)
    }

    /// Sets the tap down, and tells its number.
    fn cut(&self, netlink: &Netlink) -> Result<u32> {
        let tap = tap_link(netlink, &self.machine.tap())?;
        netlink.down(tap.index).map(|()| tap.index)
    }

    /// Sets all rules again, with the interface cut off until they are there.
    fn set_again(&self, watch: &Watch) -> Result<()> {
        let netlink = Netlink::open()?;
        let tap = self.cut(&netlink)?;
        host::remove_rules(self.machine.address)?;
        // What we removed now was not lost.
        self.lost(watch);
        nft::set(&rules::set_up(&self.request.config, &self.guest))?;
        netlink.up(tap)
    }

    fn change(&mut self, kind: Kind, policy: &str, host: Vec<Ipv4Net>) -> Result<()> {
        let _alone = alone(&self.request)?;
        let before = std::mem::replace(&mut self.machine.policy, policy.into());
        let guest = Guest { kind, host, ..self.guest.clone() };
        let guest = std::mem::replace(&mut self.guest, guest);
        let changed = self.set_policy();
        if changed.is_err() {
            (self.machine.policy, self.guest) = (before, guest);
            // The first error is the one that matters.
            let _ = self.note_policy();
        }
        changed
    }

    /// Has the rules and the host follow the policy: forwarding comes before what needs it.
    fn set_policy(&self) -> Result<()> {
        let widens = self.guest.kind == Kind::Open;
        if widens {
            self.note_policy()?;
        }
        match (nft::set(&rules::policy(&self.request.config, &self.guest)), &self.watch) {
            // Not changed, but set again.
            (Err(_), Some(watch)) if self.lost(watch) => self.set_again(watch)?,
            (set, _) => set?,
        }
        if widens { Ok(()) } else { self.note_policy() }
    }

    /// Writes the policy down; the host forwards if a machine's policy needs it.
    fn note_policy(&self) -> Result<()> {
        self.state.set_policy(self.machine.address, &self.machine.policy)?;
        match self.request.mode {
            NetworkMode::Host if self.guest.kind == Kind::Open => host::forward(Some(&self.state)),
            NetworkMode::Host => host::reconcile(&Netlink::open()?, &self.state),
            NetworkMode::Namespace if self.guest.kind == Kind::Open => host::forward(None),
            NetworkMode::Namespace => Ok(()),
        }
    }

    fn remove(self) -> Result<()> {
        let _alone = alone(&self.request)?;
        remove(&self.request, &self.state, &self.machine)
    }
}
