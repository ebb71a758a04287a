//! Makes tap, bridge, rules and listening sockets, and removes them.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;

use fireclaw_host::ProcessStamp;
use fireclaw_vm::AttachmentKind;
use ipnet::Ipv4Net;

use super::guard::{Kept, alone, remove, tap_link};
use crate::mode::{NetworkMode, enter_namespaces, host_addresses};
use crate::netlink::Netlink;
use crate::nft::Nft;
use crate::rules::{Endpoint, Kind, Ports};
use crate::state::{Machine, State};
use crate::watch::Watch;
use crate::{Error, Request, Result, conntrack, host, rules, tap};

/// Makes everything, or removes what it made before it failed.
pub fn make(request: Request) -> Result<(Kept, Vec<OwnedFd>)> {
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
) -> Result<(Endpoint, Option<Watch>, Vec<OwnedFd>)> {
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
    let guest = Endpoint { address: machine.address, ports, kind, mode: request.mode, host };
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
