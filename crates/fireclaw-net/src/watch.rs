//! Hears when somebody removes our rules, as `nft flush ruleset` does: the first line of many
//! a firewall's configuration.

use std::io::ErrorKind;
use std::os::fd::BorrowedFd;

use netlink_sys::Socket;

use crate::netfilter::{borrow, listen, messages, value};
use crate::{Error, Result};

/// `NFNLGRP_NFTABLES`.
const GROUP: u32 = 7;
/// `NFNL_SUBSYS_NFTABLES` with `NFT_MSG_DELTABLE` and `NFT_MSG_DESTROYTABLE`.
const TABLE_DELETED: [u16; 2] = [10 << 8 | 2, 10 << 8 | 26];
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
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        borrow(&self.socket)
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
                        TABLE_DELETED.contains(&message.kind)
                            && value(message.body, NAME).is_some_and(is_ours)
                    });
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return lost,
                // More than it could keep: nobody knows what. There is none again until all
                // that it kept is read.
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => lost = true,
                Err(_) => return true,
            }
        }
    }
}
