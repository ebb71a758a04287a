//! Boots microVMs and speaks with their guests.
//!
//! A [`MachineSpec`] says what to boot, a [`Backend`] boots it, the
//! [`Machine`] owns the VMM process, and a [`Guest`] is the session with the
//! program inside. Nothing here needs root.

mod attachment;
mod backend;
mod console;
mod error;
pub mod firecracker;
mod guest;
mod launcher;
mod lease;
mod leftover;
mod main_command;
pub mod pool;
pub mod probe;
mod process;
pub mod qemu;
mod rundir;
pub mod snapshot;
mod tsc;

pub use attachment::{AttachmentKind, BLANK_MAC, Namespace, TapAttachment};
pub use backend::{
    Backend, Capabilities, Control, Disk, Launch, Machine, MachineSpec, Memory, StreamIo, VmmKind,
};
pub use console::ConsoleTail;
pub use error::{Error, Result};
pub use guest::{Commands, Exec, ExecControls, ExecEvents, Guest, Waiting, fresh_hostname};
pub use launcher::{Launcher, clear_detached};
pub use main_command::{Attached, MainControls, MainEvents, MainWriter};
pub use process::{Console, VmmProcess};
pub use rundir::{RunDir, Swept, is_marked, kill_marked, sweep};
