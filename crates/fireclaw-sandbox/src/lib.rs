//! One way to make a sandbox: from an image, disks and a network policy to a guest that has
//! an identity and takes commands.
//!
//! ```text
//! SandboxSpec ──Host::plan──▶ Plan ──Plan::start──▶ Sandbox
//!   what is wanted              what starts it here    guest and network, as one
//! ```
//!
//! [`Host`] finds the boot files and a VMM that works, [`Plan`] starts sandboxes of one spec
//! as fast as this host can: one that waits in a pool, else from a snapshot, else from cold.
//! Who uses it brings words and arguments; nothing here knows a command line, a chat or a
//! database.

mod adopt;
pub mod disks;
mod error;
mod host;
mod limit;
mod network;
mod phase;
mod publication;
mod publish;
mod spec;
mod start;

pub use error::{Error, Result};
pub use host::{BOOT_TIMEOUT, Host, Plan, seconds};
pub use limit::{Limit, memory_mib};
pub use network::SandboxNetwork;
pub use phase::{Phase, Watch};
pub use publication::Publication;
pub use publish::{Ports, Serving};
pub use spec::{OwnDisk, SandboxSpec};
pub use start::{Sandbox, Start};
