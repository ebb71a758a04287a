//! The helper: the process that makes what belongs to one VM, holds it, and removes
//! it when its gateway ends, however that ends.
//!
//! It alone has the right to change the network, and reads nothing that a guest wrote.

mod guard;
mod make;

use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use fireclaw_say::say;
use ipnet::Ipv4Net;
use rustix::thread::CapabilitySet;
use serde::{Deserialize, Serialize};

use crate::mode::confine;
use crate::rules::{Kind, Refused};
use crate::state::Machine;
use crate::{Request, Result, nft, rules, wire};

use guard::Kept;
use make::make;
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
