//! Prepares what a microVM boots from.
//!
//! [`setup`] fills a [`Home`] once: a kernel with the few modules that are
//! needed, a base image shared read-only by all VMs, and the initramfs
//! that holds the guest program. What is there, with digests, is said by its
//! [`Manifest`].

mod archive;
mod base;
mod debian;
mod error;
mod ext4;
mod extract;
mod files;
mod home;
mod import;
mod initramfs;
pub mod kernel;
mod lock;
mod manifest;
mod oci;
mod pins;
mod plain;
mod problem;
mod progress;
mod setup;
mod space;
mod tree;

pub use debian::cancel;
pub use error::{Error, Result};
pub use files::Artifact;
pub use home::Home;
pub use initramfs::{FLOOR_PROGRAM, GUEST_PROGRAM, build_floor_initramfs};
pub use manifest::{Image, Kernel, Manifest, Origin};
pub use oci::ImageConfig;
pub use pins::{pin, unpin};
pub use progress::{Progress, Silent};
pub use setup::{
    Bootable, Options, Pruned, Pulled, add_image, add_minimal_kernel, add_pulled, prune,
    remove_image, resolve, resolve_pinned, setup, write_image,
};
