//! What a VM may reach over the network.
//!
//! A [`Network`] is a policy as people write it, in templates and on the command line.
//! [`Rules`] are its list of names, made quick to ask. [`HostConfig`] is what the host's owner
//! decides once for all VMs: their subnet, and the services and ranges that `local`
//! opens. Nothing is enforced here.

mod config;
mod network;
mod rules;

pub use config::{HOST_NAME, HostConfig, InvalidConfig, Range, Service};
pub use ipnet::Ipv4Net;
pub use network::{Dns, Host, InvalidNetwork, MAX_TARGETS, Network, Target};
pub use rules::Rules;
