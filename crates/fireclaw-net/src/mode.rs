//! Where a VM's tap, bridge and rules are, and what a process may do there.

use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use rustix::thread::{CapabilitySet, CapabilitySets};
use serde::{Deserialize, Serialize};

use crate::netlink::Netlink;
use crate::{Error, Result};

/// Where the state of the host's own network is.
pub(crate) const RUN: &str = "/run/fireclaw";

/// Where a VM's tap, bridge and rules are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkMode {
    /// In the network namespace of the host, on one bridge for all: needs root.
    Host,
    /// In a user and network namespace of its own.
    Namespace,
}

impl NetworkMode {
    /// The mode that this process has to use: the host if it may.
    pub fn here() -> Self {
        let may = rustix::thread::capabilities(None)
            .is_ok_and(|sets| sets.effective.contains(CapabilitySet::NET_ADMIN));
        if rustix::process::geteuid().is_root() && may { Self::Host } else { Self::Namespace }
    }

    /// Where the state of this mode is kept: with the taps of the host it ends at a reboot.
    pub fn state_directory(self, home: &Path) -> PathBuf {
        match self {
            Self::Host => RUN.into(),
            Self::Namespace => home.into(),
        }
    }

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Namespace => "namespace",
        }
    }
}

/// Gives up every capability but those of `keep`, also for programs that are started, and
/// whatever would give them back.
pub(crate) fn confine(keep: CapabilitySet) -> Result<()> {
    let failed = |e: rustix::io::Errno| Error::system("giving capabilities up")(e);
    let held = rustix::thread::capabilities(None).map_err(failed)?;
    if held.effective.contains(CapabilitySet::SETPCAP) {
        for capability in CapabilitySet::all().difference(keep).iter() {
            // A capability that the kernel does not know is not in the set.
            let _ = rustix::thread::remove_capability_from_bounding_set(capability);
        }
    }
    rustix::thread::set_no_new_privs(true).map_err(failed)?;
    let sets = CapabilitySets {
        effective: held.effective.intersection(keep),
        permitted: held.permitted.intersection(keep),
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, sets).map_err(failed)
}

/// A user and group to whom no file belongs (Linux, `overflowuid`).
const NOBODY: u32 = 65534;

/// Becomes nobody, if root: without capabilities root still owns the files of the system.
/// It must be called while the process has one thread. Root of a user namespace that knows
/// no other user stays: it is a user with a user's files.
pub(crate) fn leave_root() -> Result<()> {
    use rustix::thread::{Gid, Uid, set_thread_groups, set_thread_res_gid, set_thread_res_uid};
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    let failed = |e: rustix::io::Errno| Error::system("leaving root")(e);
    match set_thread_res_gid(group, group, group) {
        // It does not exist here.
        Err(rustix::io::Errno::INVAL) => return Ok(()),
        done => done.map_err(failed)?,
    }
    set_thread_groups(&[]).map_err(failed)?;
    set_thread_res_uid(user, user, user).map_err(failed)
}

/// Moves this process into a user namespace in which it is root, and a network namespace
/// that belongs to it. It must have one thread.
#[allow(unsafe_code)]
pub(crate) fn enter_namespaces() -> Result<()> {
    use rustix::thread::UnshareFlags;
    let user = rustix::process::geteuid().as_raw();
    let group = rustix::process::getegid().as_raw();
    let flags = UnshareFlags::NEWUSER | UnshareFlags::NEWNET;
    // SAFETY: neither flag has to do with memory or descriptors.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(|e| Error::NotHere {
        policy: "a network interface without root".into(),
        reason: format!("user namespaces do not work ({e})"),
    })?;
    let write = |file: &str, text: String| {
        std::fs::write(format!("/proc/self/{file}"), text)
            .map_err(Error::system(format!("writing /proc/self/{file}")))
    };
    write("setgroups", "deny".into())?;
    write("uid_map", format!("0 {user} 1"))?;
    write("gid_map", format!("0 {group} 1"))
}

/// The host's own addresses, for a mode that does not know them.
pub(crate) fn host_addresses(mode: NetworkMode) -> Result<Vec<Ipv4Net>> {
    match mode {
        NetworkMode::Host => Ok(Vec::new()),
        NetworkMode::Namespace => {
            // Not only those that devices have: a route makes others local too.
            Ok(Ipv4Net::aggregate(&Netlink::open()?.local()?))
        }
    }
}
