//! Why a sandbox could not be made. Every text can be shown to people.

use std::path::PathBuf;

use fireclaw_host::PathError;
use fireclaw_vm::VmmKind;

use crate::Publication;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Kernel or image are not there.
    #[error(transparent)]
    Image(#[from] fireclaw_image::Error),
    /// The VM did not come up.
    #[error(transparent)]
    Vm(#[from] fireclaw_vm::Error),
    /// Its network could not be made.
    #[error(transparent)]
    Network(#[from] fireclaw_net::Error),
    /// The host has not the memory that was asked for.
    #[error("{asked_mib} MiB of memory requested, but this host has {has_mib} MiB")]
    TooMuchMemory {
        /// What was asked for.
        asked_mib: u64,
        /// All that the host has.
        has_mib: u64,
    },
    /// A variable of the environment has a value that cannot be used.
    #[error("{variable}={value:?}: {problem}")]
    Variable {
        /// Its name.
        variable: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The VMM here makes no snapshots, and one is needed.
    #[error("{0} offers no snapshots")]
    NoSnapshots(VmmKind),
    /// mke2fs is not there.
    #[error("mke2fs is missing: apt-get install e2fsprogs")]
    NoMke2fs,
    /// A disk could not be given a file system.
    #[error("cannot create a file system in {}: {said}", path.display())]
    Format {
        /// The disk's file.
        path: PathBuf,
        /// What mke2fs said.
        said: String,
    },
    /// A port of this host could not be listened on.
    #[error("cannot publish {publication}: {cause}")]
    Publish {
        /// What was asked for.
        publication: Publication,
        /// Why not.
        cause: std::io::Error,
    },
    /// A file could not be used.
    #[error(transparent)]
    File(#[from] PathError),
    /// Another call to the system failed.
    #[error("{0}: {1}")]
    System(&'static str, std::io::Error),
}

/// The result of an operation of this crate.
pub type Result<T> = std::result::Result<T, Error>;
