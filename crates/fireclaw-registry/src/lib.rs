//! Pulls container images from registries (OCI distribution, version 1) into a [`Store`] of
//! blobs, in which images share their layers.
//!
//! The registry is trusted with nothing but the answer to a tag: every blob is written down
//! under its digest, and only if it has that digest and the length that was said. What a
//! connection did not finish is gone on with later. Two pulls of one blob do the work once.

mod credentials;
mod error;
mod pull;
mod reference;
mod store;

pub use error::{Error, Result};
pub use pull::{Pulled, Registry, Watch};
pub use reference::Reference;
pub use store::{Blob, Hold, Store};
