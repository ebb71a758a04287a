//! Where a machine's network card is plugged in on the host.
//!
//! The card is a virtio-net device with a hardware address that is the same in
//! every machine and never seen: the guest keeps it down until its identity
//! ([`crate::Waiting::settle`]) gives it another. So the machine that a snapshot
//! is taken of and those that are restored from it differ in their taps alone.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::{Error, Result};

/// The card's hardware address until the guest is told its own: one that is
/// administered locally (IEEE 802, the second bit of the first byte).
pub const BLANK_MAC: &str = "02:fc:00:00:00:00";

/// How a VMM takes the host's end of a card; [`crate::Capabilities::plug`] says
/// which. Whoever makes the tap asks first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlugKind {
    /// As an open descriptor: [`Plug::Tap`].
    Tap,
    /// By name: [`Plug::Named`].
    Named,
}

/// The host's end of a card: a tap that exists and is up (tuntap.rst of the
/// kernel's documentation). Lent for the start of a VMM; whoever made it removes
/// it once the VMM has ended.
#[derive(Debug)]
pub enum Plug {
    /// A tap that is open, with `IFF_TAP | IFF_NO_PI | IFF_VNET_HDR`. The VMM
    /// gets a copy of the descriptor.
    ///
    /// A snapshot remembers the header: one that was taken on such a tap is
    /// restored only on such a tap.
    Tap(OwnedFd),
    /// A tap that is not open, and that the VMM may open: by its owner
    /// (`TUNSETOWNER`) or by `CAP_NET_ADMIN` in its namespace.
    Named {
        /// The interface's name.
        name: String,
        /// Where it is, if not in this process's network.
        namespace: Option<Namespace>,
    },
}

/// A network namespace that a VMM joins before it starts (setns(2)).
#[derive(Debug)]
pub struct Namespace {
    /// The user namespace that owns it, if that is another than ours: joined
    /// first. Not together with a jailer, which would lack its rights there.
    pub user: Option<OwnedFd>,
    /// The network namespace.
    pub net: OwnedFd,
}

impl Plug {
    /// Which kind it is.
    pub fn kind(&self) -> PlugKind {
        match self {
            Self::Tap(_) => PlugKind::Tap,
            Self::Named { .. } => PlugKind::Named,
        }
    }

    /// The descriptor, for a VMM of [`PlugKind::Tap`].
    pub(crate) fn tap(&self) -> Result<BorrowedFd<'_>> {
        match self {
            Self::Tap(fd) => Ok(fd.as_fd()),
            Self::Named { .. } => Err(Error::Plug("this monitor takes an open tap, not a name")),
        }
    }

    /// Name and namespace, for a VMM of [`PlugKind::Named`].
    pub(crate) fn named(&self) -> Result<(&str, Option<&Namespace>)> {
        match self {
            Self::Named { name, namespace } => Ok((name, namespace.as_ref())),
            Self::Tap(_) => {
                Err(Error::Plug("this monitor takes the name of a tap, not an open one"))
            }
        }
    }
}

/// That there is a plug if, and only if, there is a card.
pub(crate) fn check(card: bool, plug: Option<&Plug>) -> Result<()> {
    match (card, plug) {
        (true, None) => Err(Error::Plug("the machine has one and it is nowhere to be plugged in")),
        (false, Some(_)) => Err(Error::Plug("the machine has none")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_and_its_plug_go_together() {
        let named = Plug::Named { name: "tap0".into(), namespace: None };
        let tap = Plug::Tap(std::fs::File::open("/dev/null").unwrap().into());
        check(true, Some(&named)).unwrap();
        check(false, None).unwrap();
        assert!(check(true, None).is_err() && check(false, Some(&tap)).is_err());
        assert!(tap.tap().is_ok() && tap.named().is_err() && tap.kind() == PlugKind::Tap);
        assert_eq!(named.named().unwrap().0, "tap0");
        assert!(named.tap().is_err() && named.kind() == PlugKind::Named);
    }
}
