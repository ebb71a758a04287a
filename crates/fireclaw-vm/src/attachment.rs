//! Where a VM's network interface is attached on the host.
//!
//! The interface is a virtio-net device with a hardware address that is the same in
//! every VM and never seen: the guest keeps it down until its identity
//! ([`crate::Waiting::personalize`]) gives it another. So the VM that a snapshot
//! is taken of and those that are restored from it differ in their taps alone.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::{Error, Result};

/// The interface's hardware address until the guest is told its own: one that is
/// administered locally (IEEE 802, the second bit of the first byte).
pub const BLANK_MAC: &str = "02:fc:00:00:00:00";

/// How a VMM takes the host's end of an interface; [`crate::Capabilities::attachment`] says
/// which. Whoever makes the tap asks first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AttachmentKind {
    /// As an open descriptor: [`TapAttachment::Tap`].
    Tap,
    /// By name: [`TapAttachment::Named`].
    Named,
}

/// The host's end of an interface: a tap that exists and is up (tuntap.rst of the
/// kernel's documentation). Lent for the start of a VMM; whoever made it removes
/// it once the VMM has ended.
#[derive(Debug)]
pub enum TapAttachment {
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

impl TapAttachment {
    /// Which kind it is.
    pub fn kind(&self) -> AttachmentKind {
        match self {
            Self::Tap(_) => AttachmentKind::Tap,
            Self::Named { .. } => AttachmentKind::Named,
        }
    }

    /// The descriptor, for a VMM of [`AttachmentKind::Tap`].
    pub(crate) fn tap(&self) -> Result<BorrowedFd<'_>> {
        match self {
            Self::Tap(fd) => Ok(fd.as_fd()),
            Self::Named { .. } => {
                Err(Error::TapAttachment("this VMM takes an open tap, not a name"))
            }
        }
    }

    /// Name and namespace, for a VMM of [`AttachmentKind::Named`].
    pub(crate) fn named(&self) -> Result<(&str, Option<&Namespace>)> {
        match self {
            Self::Named { name, namespace } => Ok((name, namespace.as_ref())),
            Self::Tap(_) => {
                Err(Error::TapAttachment("this VMM takes the name of a tap, not an open one"))
            }
        }
    }
}

/// That there is a tap attachment if, and only if, there is an interface.
pub(crate) fn check(interface: bool, attachment: Option<&TapAttachment>) -> Result<()> {
    match (interface, attachment) {
        (true, None) => {
            Err(Error::TapAttachment("the VM has one and it is nowhere to be attached"))
        }
        (false, Some(_)) => Err(Error::TapAttachment("the VM has none")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_and_its_plug_go_together() {
        let named = TapAttachment::Named { name: "tap0".into(), namespace: None };
        let tap = TapAttachment::Tap(std::fs::File::open("/dev/null").unwrap().into());
        check(true, Some(&named)).unwrap();
        check(false, None).unwrap();
        assert!(check(true, None).is_err() && check(false, Some(&tap)).is_err());
        assert!(tap.tap().is_ok() && tap.named().is_err() && tap.kind() == AttachmentKind::Tap);
        assert_eq!(named.named().unwrap().0, "tap0");
        assert!(named.tap().is_err() && named.kind() == AttachmentKind::Named);
    }
}
