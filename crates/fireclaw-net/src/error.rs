//! What can go wrong. Errors cross processes, so they are made of text.

use fireclaw_host::ProgramMissing;
use fireclaw_policy::InvalidConfig;
use serde::{Deserialize, Serialize};

/// An error of this crate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Error {
    /// A program that is needed is not installed.
    #[error("{program} is not installed")]
    Missing {
        /// The program.
        program: String,
        /// Debian's package of it.
        package: String,
    },
    /// The rules could not be set.
    #[error("the packet rules could not be set: {reason}")]
    Rules {
        /// What `nft` said.
        reason: String,
    },
    /// The subnet of the VMs is in use for something else.
    #[error("the VM subnet {subnet} is already in use: {with}")]
    Conflict {
        /// The subnet.
        subnet: String,
        /// What uses it.
        with: String,
        /// What to set in `network.toml` instead, as an example.
        instead: String,
    },
    /// VMs run that are elsewhere than this one is to be: they share one set of rules.
    #[error("this VM would use subnet {wanted}, but running VMs use {running}")]
    Elsewhere {
        /// The subnet and bridge of this one.
        wanted: String,
        /// Those of the others.
        running: String,
    },
    /// Every address has an owner.
    #[error("no address of {subnet} is free")]
    NoAddress {
        /// The subnet.
        subnet: String,
    },
    /// The policy can't be enforced here.
    #[error("{policy} is not possible: {reason}")]
    NotHere {
        /// The policy's first word.
        policy: String,
        /// Why not.
        reason: String,
    },
    /// The host's `network.toml` cannot be used.
    #[error("{problem}")]
    Config {
        /// Where and why.
        problem: String,
    },
    /// The gateway of a VM ended, or does not answer.
    #[error("the VM's gateway {what}")]
    Gateway {
        /// What it did, and its last words.
        what: String,
    },
    /// Not everything of a VM could be removed.
    #[error("network cleanup is incomplete: {reason}")]
    Left {
        /// Why.
        reason: String,
    },
    /// The state can't be read or written.
    #[error("the network's state: {reason}")]
    State {
        /// Why.
        reason: String,
    },
    /// A network device could not be made.
    #[error("{action}: {reason}")]
    Device {
        /// What was tried.
        action: String,
        /// Why not.
        reason: String,
    },
    /// The system refused something.
    #[error("{action}: {reason}")]
    System {
        /// What was tried.
        action: String,
        /// Why not.
        reason: String,
    },
}

/// The result of something in this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn missing(package: &'static str) -> impl FnOnce(ProgramMissing) -> Self {
        move |missing| Self::Missing { program: missing.program, package: package.into() }
    }

    pub(crate) fn system<E: std::fmt::Display>(
        action: impl Into<String>,
    ) -> impl FnOnce(E) -> Self {
        move |reason| Self::System { action: action.into(), reason: reason.to_string() }
    }

    pub(crate) fn device<E: std::fmt::Display>(
        action: impl Into<String>,
    ) -> impl FnOnce(E) -> Self {
        move |reason| Self::Device { action: action.into(), reason: reason.to_string() }
    }

    pub(crate) fn gateway(what: impl Into<String>) -> Self {
        Self::Gateway { what: what.into() }
    }

    /// What to do next, if that can be said.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Missing { package, .. } => {
                Some(format!("apt-get install {package}; --network none works without it"))
            }
            Self::Rules { .. } => Some(
                "the kernel needs nf_tables (5.9 or newer) with what docs/network.md names; \
                 --network none works without it"
                    .into(),
            ),
            Self::Device { .. } => Some(
                "the kernel needs bridges and tun (modprobe bridge tun), and /dev/net/tun must be \
                 open to you; --network none works without them"
                    .into(),
            ),
            Self::Conflict { instead, .. } => {
                Some(format!("set another one in network.toml, like {instead}"))
            }
            Self::Elsewhere { .. } => Some(
                "end them first (`fireclaw net ls` lists them), or set `subnet` and `bridge` in \
                 network.toml back"
                    .into(),
            ),
            Self::Left { .. } => Some("`fireclaw net prune` removes it".into()),
            Self::NoAddress { .. } => {
                Some("end some VMs, or set a larger `subnet` in network.toml".into())
            }
            Self::Gateway { .. } => Some("`fireclaw net check` shows what works here".into()),
            Self::Config { .. }
            | Self::NotHere { .. }
            | Self::State { .. }
            | Self::System { .. } => None,
        }
    }
}

impl From<InvalidConfig> for Error {
    fn from(error: InvalidConfig) -> Self {
        Self::Config { problem: error.to_string() }
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        Self::State { reason: error.to_string() }
    }
}
