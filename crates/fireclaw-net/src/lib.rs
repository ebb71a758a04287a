//! The network interface of a VM: what it can reach, and that it reaches nothing else.
//!
//! [`open`] starts a VM's *gateway*, a process of its own that ends with the VM
//! and takes everything along. Beside it starts a *helper*, which makes tap, bridge, rules
//! and listening sockets, on the host with root or in namespaces of its own without, and
//! removes them when the gateway has ended, however that was. The gateway holds no rights:
//! it answers the guest's questions for names, makes its connections, and says no.
//!
//! Addresses are rows of a state that is written before a thing is made and cleared after
//! it is gone. [`clean`] removes what nobody owns.
//!
//! `docs/network.md` shows what each policy opens, and `docs/adr/0012-network.md` why it
//! is made so.

mod address;
mod clean;
mod client;
mod conntrack;
mod control;
mod error;
mod gateway;
mod helper;
mod host;
mod mode;
mod netfilter;
mod netlink;
mod nft;
mod open;
mod request;
mod rules;
mod state;
mod tap;
mod watch;
mod wire;

pub use address::Mac;
pub use clean::{Check, Cleaned, check, clean, list, sweep};
pub use client::Client;
pub use control::{Denial, Status};
pub use error::{Error, Result};
pub use fireclaw_host::ProcessStamp;
pub use mode::NetworkMode;
pub use open::{Gateway, bare_tap, gateway_main, open};
pub use request::{Interface, Request};
pub use rules::Refused;
pub use state::Machine;
