//! What a helper made, and that it stays as it was made.

use std::os::unix::net::UnixStream;

use ipnet::Ipv4Net;
use rustix::event::{PollFd, PollFlags, poll};

use crate::mode::NetworkMode;
use crate::netlink::{Link, Netlink};
use crate::rules::{Endpoint, Kind};
use crate::state::{Lock, Machine, State, lock};
use crate::watch::Watch;
use crate::{Error, Request, Result, host, nft, rules};

/// What is made, in the order of its making.
pub struct Kept {
    pub request: Request,
    pub state: State,
    pub machine: Machine,
    pub guest: Endpoint,
    /// On a host others may remove rules.
    pub watch: Option<Watch>,
}

impl Kept {
    /// Waits until something is said on the stream. Rules that somebody removes meanwhile are
    /// set again, and until they are there the interface is cut off.
    pub fn guard(&self, stream: &UnixStream) -> Result<()> {
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

    pub fn lost(&self, watch: &Watch) -> bool {
        watch.lost([rules::TABLE, &self.machine.tap()])
    }

    pub fn restore(&self, watch: &Watch) -> Result<()> {
        // At once: others may hold the lock.
        self.cut(&Netlink::open()?)?;
        let _alone = alone(&self.request)?;
        self.set_again(watch)
    }

    /// Sets the tap down, and tells its number.
    pub fn cut(&self, netlink: &Netlink) -> Result<u32> {
        let tap = tap_link(netlink, &self.machine.tap())?;
        netlink.down(tap.index).map(|()| tap.index)
    }

    /// Sets all rules again, with the interface cut off until they are there.
    pub fn set_again(&self, watch: &Watch) -> Result<()> {
        let netlink = Netlink::open()?;
        let tap = self.cut(&netlink)?;
        host::remove_rules(self.machine.address)?;
        // What we removed now was not lost.
        self.lost(watch);
        nft::set(&rules::set_up(&self.request.config, &self.guest))?;
        netlink.up(tap)
    }

    pub fn change(&mut self, kind: Kind, policy: &str, host: Vec<Ipv4Net>) -> Result<()> {
        let _alone = alone(&self.request)?;
        let before = std::mem::replace(&mut self.machine.policy, policy.into());
        let guest = Endpoint { kind, host, ..self.guest.clone() };
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
    pub fn set_policy(&self) -> Result<()> {
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

    /// Writes the policy down; the host forwards if a VM's policy needs it.
    pub fn note_policy(&self) -> Result<()> {
        self.state.set_policy(self.machine.address, &self.machine.policy)?;
        match self.request.mode {
            NetworkMode::Host if self.guest.kind == Kind::Open => host::forward(Some(&self.state)),
            NetworkMode::Host => host::reconcile(&Netlink::open()?, &self.state),
            NetworkMode::Namespace if self.guest.kind == Kind::Open => host::forward(None),
            NetworkMode::Namespace => Ok(()),
        }
    }

    pub fn remove(self) -> Result<()> {
        let _alone = alone(&self.request)?;
        remove(&self.request, &self.state, &self.machine)
    }
}

/// Held while something of the host is made or removed. A namespace is its helper's alone.
pub fn alone(request: &Request) -> Result<Option<Lock>> {
    match request.mode {
        NetworkMode::Host => lock(&request.state).map(Some),
        NetworkMode::Namespace => Ok(None),
    }
}

pub fn tap_link(netlink: &Netlink, name: &str) -> Result<Link> {
    netlink.link(name)?.ok_or_else(|| Error::System {
        action: format!("looking for the tap {name}"),
        reason: "it is gone".into(),
    })
}

/// Removes what belongs to the VM, while the lock is held.
pub fn remove(request: &Request, state: &State, machine: &Machine) -> Result<()> {
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
