//! What a network is to be, and what its guest has to know of it.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use fireclaw_policy::{HostConfig, Network};
use fireclaw_protocol::hello;
use fireclaw_vm::AttachmentKind;
use serde::{Deserialize, Serialize};

use crate::address::Mac;
use crate::mode::NetworkMode;
use crate::state::Machine;

/// What a VM's network is to be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request {
    /// What the VM may reach; not [`Network::None`], which needs no gateway.
    pub policy: Network,
    /// What the host's owner decided.
    pub config: HostConfig,
    /// For whom it is, as `fireclaw net ls` shows it.
    pub owner: String,
    /// An existing directory for the gateway's socket `net.sock` and its log `net.log`.
    pub directory: PathBuf,
    /// Where tap and rules are to be; see [`NetworkMode::here`].
    pub mode: NetworkMode,
    /// Where the addresses are written down; see [`NetworkMode::state_directory`].
    pub state: PathBuf,
    /// How the VMM gets at the tap.
    pub attachment: AttachmentKind,
    /// As which user the VMM runs, if not as ours.
    pub user: Option<u32>,
}

/// What the guest has to know of its interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// The interface's own address.
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

impl Interface {
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

impl From<Interface> for hello::Interface {
    fn from(interface: Interface) -> Self {
        let Interface { mac, address, prefix, gateway, resolver } = interface;
        Self { mac: mac.0.into(), address, prefix, gateway, resolver }
    }
}
