//! VMs that wait, restored and ready, until somebody takes one.
//!
//! A pool is a process with a socket `<id>.sock`, where the id is that of the
//! snapshot from which its VMs come, so that whoever wants another kind of
//! VM never finds it. It gives whoever connects the socket of a VM's
//! stream. That connection is the *lease*: when it closes, by whatever end of
//! the taker, the pool ends the VM; when the VM ends first, the pool
//! says so on it. The pool stays the owner: the VMs end with it.

mod server;
mod take;

pub use server::Pool;
pub use take::take;

use std::path::Path;

use serde::{Deserialize, Serialize};

/// What the pool says with the descriptor of the VM's stream.
#[derive(Debug, Serialize, Deserialize)]
struct Offer {
    /// The VMM's process id.
    pid: u32,
}

fn socket_name(id: &str) -> String {
    format!("{id}.sock")
}

/// Whether a pool has been there: cheaper than to connect.
fn is_there(directory: &Path, id: &str) -> bool {
    directory.join(socket_name(id)).exists()
}
