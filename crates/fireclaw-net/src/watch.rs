//! Hears when somebody removes our rules, as `nft flush ruleset` does: the first line of many
//! a firewall's configuration.

use std::io::ErrorKind;
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_sys::Socket;

use crate::netfilter::{listen, messages, value};
use crate::{Error, Result};

/// `NFNLGRP_NFTABLES`.
const GROUP: u32 = 7;
/// `NFNL_SUBSYS_NFTABLES` and `NFT_MSG_DELTABLE`.
const TABLE_DELETED: u16 = 10 << 8 | 2;
/// `NFTA_TABLE_NAME`.
const NAME: u16 = 1;

/// Hears what happens to all rules of this network namespace.
pub(crate) struct Watch {
    socket: Socket,
}

impl Watch {
    pub fn open() -> Result<Self> {
        let socket = listen(GROUP).map_err(Error::system("watching the packet rules"))?;
        Ok(Self { socket })
    }

    /// What is readable once something has happened.
    #[allow(unsafe_code)]
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        // SAFETY: the socket is open for as long as it is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.socket.as_raw_fd()) }
    }

    /// Whether a table of these names has gone since this was asked last.
    pub fn lost(&self, tables: [&str; 2]) -> bool {
        let is_ours = |name: &[u8]| {
            name.strip_suffix(b"\0")
                .is_some_and(|name| tables.iter().any(|it| it.as_bytes() == name))
        };
        let mut lost = false;
        loop {
            match self.socket.recv_from_full() {
                Ok((bytes, _)) => {
                    lost |= messages(&bytes).flatten().any(|message| {
                        message.kind == TABLE_DELETED
                            && value(message.body, NAME).is_some_and(is_ours)
                    });
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return lost,
                // More than it could keep: nobody knows what.
                Err(_) => return true,
            }
        }
    }
}
