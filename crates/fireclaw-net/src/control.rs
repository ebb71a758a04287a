//! What a gateway is asked over its socket, a JSON object in each line, and what it says.

use std::net::Ipv4Addr;

use fireclaw_host::ProcessStamp;
use fireclaw_policy::Network;
use serde::{Deserialize, Serialize};

use crate::{Interface, Refused};

/// The socket's name in the gateway's directory.
pub(crate) const SOCKET: &str = "net.sock";

/// The longest line, in bytes.
pub(crate) const MAX_LINE: u64 = 8 << 20;

/// A question or an order.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Ask {
    /// How it is.
    Status,
    /// Allow one more.
    Allow { target: String },
    /// Have another policy.
    Policy { policy: Network },
    /// Live as long as this process.
    BelongsTo { process: ProcessStamp },
}

/// How a gateway is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// For whom it is.
    pub owner: String,
    /// The policy in force.
    pub policy: Network,
    /// The interface's addresses.
    #[serde(alias = "card")]
    pub interface: Interface,
    /// The host's address on the bridge.
    pub gateway: Ipv4Addr,
    /// How many connections and names were refused.
    pub denied: u64,
    /// Those, counted by destination and reason.
    pub denials: Vec<Denial>,
    /// The last ones, newest last.
    pub last: Vec<Denial>,
    /// Packets that the kernel refused, by reason, and for UDP by destination.
    pub packets: Vec<Refused>,
}

/// Something that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denial {
    /// When, in seconds since the epoch; the last time, if it is a count.
    pub time: u64,
    /// A name or an address.
    pub what: String,
    /// The port; none for a question to the resolver.
    pub port: Option<u16>,
    /// Why.
    pub reason: String,
    /// How often.
    pub count: u64,
}
