//! The kernel's table of connections, over ctnetlink (`nfnetlink_conntrack.h`).
//!
//! An open connection stays in it for five days after its VM is gone: it would take the
//! room of others, and lead what the next VM with this address says to where the first
//! one was led.

use std::io::{Error, ErrorKind, Result};
use std::net::Ipv4Addr;

use crate::netfilter::{ACK, DUMP, NESTED, ask, attribute, connect, value};

/// The subsystem, and what is asked of it: `NFNL_SUBSYS_CTNETLINK`, `IPCTNL_MSG_CT_…`.
const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;
const STATS: u16 = 1 << 8 | 5;

/// Attributes: `CTA_…`. Those of the tuple have the same number: `CTA_TUPLE_ORIG`,
/// `CTA_TUPLE_IP`, `CTA_IP_V4_SRC`.
const FIRST: u16 = 1;
const ZONE: u16 = 18;
const FILTER: u16 = 25;

/// Whether connections can be forgotten here.
pub(crate) fn available() -> crate::Result<()> {
    connect().and_then(|socket| ask(&socket, STATS, ACK, &[])).map(drop).map_err(lacking)
}

/// Removes the connections that were begun from an address. The kernel looks through its
/// whole table for them, which takes some ten milliseconds.
pub(crate) fn forget(address: Ipv4Addr) -> crate::Result<()> {
    all(address).map_err(lacking)
}

fn lacking(error: Error) -> crate::Error {
    let reason = format!("this kernel lacks nf_conntrack_netlink, to forget connections ({error})");
    crate::Error::Rules { reason }
}

fn all(address: Ipv4Addr) -> Result<()> {
    let socket = connect()?;
    let source = address.octets();
    let tuple = attribute(FIRST | NESTED, &attribute(FIRST | NESTED, &attribute(FIRST, &source)));
    // `CTA_FILTER_ORIG_FLAGS`, with the bit of the source.
    let filter = attribute(FILTER | NESTED, &attribute(FIRST, &1_u32.to_ne_bytes()));
    for found in ask(&socket, GET, DUMP, &[tuple, filter].concat())? {
        let Some(connection) = value(&found, FIRST) else { continue };
        // Whatever else a kernel might list is not ours.
        if value(connection, FIRST).and_then(|ip| value(ip, FIRST)) != Some(&source[..]) {
            continue;
        }
        let mut which = attribute(FIRST | NESTED, connection);
        which.extend(value(&found, ZONE).map(|zone| attribute(ZONE, zone)).unwrap_or_default());
        match ask(&socket, DELETE, ACK, &which) {
            // It ended by itself.
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            other => drop(other?),
        }
    }
    Ok(())
}
