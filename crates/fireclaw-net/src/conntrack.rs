//! The kernel's table of connections, over ctnetlink (`nfnetlink_conntrack.h`).
//!
//! An open connection stays in it for five days after its machine is gone: it would take the
//! room of others, and lead what the next machine with this address says to where the first
//! one was led.

use std::io::{Error, ErrorKind, Result};
use std::net::Ipv4Addr;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

/// The subsystem, and what is asked of it: `NFNL_SUBSYS_CTNETLINK`, `IPCTNL_MSG_CT_…`.
const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;
const STATS: u16 = 1 << 8 | 5;

const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;
const ERROR: u16 = 2;
const DONE: u16 = 3;

/// Attributes: `CTA_…`. Those of the tuple have the same number: `CTA_TUPLE_ORIG`,
/// `CTA_TUPLE_IP`, `CTA_IP_V4_SRC`.
const FIRST: u16 = 1;
const ZONE: u16 = 18;
const FILTER: u16 = 25;
const NESTED: u16 = 0x8000;

/// Netlink's header, and that of netfilter.
const HEADER: usize = 16;
const HEADERS: usize = 20;

/// Whether connections can be forgotten here.
pub(crate) fn available() -> crate::Result<()> {
    open().and_then(|socket| ask(&socket, STATS, ACK, &[])).map(drop).map_err(lacking)
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

fn open() -> Result<Socket> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

fn all(address: Ipv4Addr) -> Result<()> {
    let socket = open()?;
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

/// Asks, and gathers the bodies of what is answered.
fn ask(socket: &Socket, what: u16, flags: u16, body: &[u8]) -> Result<Vec<Vec<u8>>> {
    let length = u32::try_from(HEADERS + body.len()).map_err(Error::other)?;
    let mut message = length.to_ne_bytes().to_vec();
    message.extend([what, REQUEST | flags].map(u16::to_ne_bytes).concat());
    // Number, sender (the kernel's to fill in); family, version, resource.
    message.extend([0; 8]);
    message.extend([libc::AF_INET as u8, 0, 0, 0]);
    message.extend(body);
    socket.send(&message, 0)?;
    let mut answers = Vec::new();
    loop {
        let (bytes, _) = socket.recv_from_full()?;
        let mut rest = &bytes[..];
        while let Some(length) = number(rest, 0) {
            let answer = rest.get(..length as usize).ok_or(ErrorKind::InvalidData)?;
            match number(answer, 4).map(|kind| (kind & 0xffff) as u16) {
                Some(DONE) => return Ok(answers),
                Some(ERROR) => {
                    let code = number(answer, HEADER).ok_or(ErrorKind::InvalidData)? as i32;
                    return if code == 0 {
                        Ok(answers)
                    } else {
                        Err(Error::from_raw_os_error(-code))
                    };
                }
                Some(_) => answers.push(answer.get(HEADERS..).unwrap_or_default().to_vec()),
                None => return Err(ErrorKind::InvalidData.into()),
            }
            rest = rest.get(answer.len().next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// An attribute, with its padding.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = value.len() as u16 + 4;
    let mut bytes = [length, kind].map(u16::to_ne_bytes).concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// The value of the first attribute of a kind.
fn value(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let head = number(bytes, 0)?.to_ne_bytes();
        let [length, kind] = [[head[0], head[1]], [head[2], head[3]]].map(u16::from_ne_bytes);
        if kind & !NESTED == wanted {
            return bytes.get(4..length.into());
        }
        // One that ends before it began is none.
        bytes = bytes.get(usize::from(length).max(4).next_multiple_of(4)..)?;
    }
}
