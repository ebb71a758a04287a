//! Messages of the kernel's packet filter over netlink (`nfnetlink.h`).

use std::io::{Error, ErrorKind, Result};
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::net::sockopt::set_socket_recv_buffer_size_force;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

const REQUEST: u16 = 1;
pub(crate) const ACK: u16 = 4;
pub(crate) const DUMP: u16 = 0x300;
const ERROR: u16 = 2;
const DONE: u16 = 3;

/// Of attributes that hold others.
pub(crate) const NESTED: u16 = 0x8000;

/// Netlink's header, and that of netfilter.
const HEADER: usize = 16;
const HEADERS: usize = 20;

/// A socket that asks, in the network namespace of this thread.
pub(crate) fn connect() -> Result<Socket> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

/// What a listener keeps of news, in bytes: somebody else's set with ten thousands of elements.
/// The kernel allows more than its bound to who may change the network.
const NEWS: usize = 8 << 20;

/// A socket that does not wait, and hears of what happens to something.
pub(crate) fn listen(group: u32) -> Result<Socket> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    set_socket_recv_buffer_size_force(borrow(&socket), NEWS)?;
    socket.add_membership(group)?;
    socket.set_non_blocking(true)?;
    Ok(socket)
}

/// The socket, to be waited for.
#[allow(unsafe_code)]
pub(crate) fn borrow(socket: &Socket) -> BorrowedFd<'_> {
    // SAFETY: the socket is open for as long as it is borrowed.
    unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) }
}

/// A message: its kind, and its attributes.
pub(crate) struct Message<'a> {
    pub kind: u16,
    pub body: &'a [u8],
    whole: &'a [u8],
}

/// The messages of one datagram.
pub(crate) fn messages(mut rest: &[u8]) -> impl Iterator<Item = Result<Message<'_>>> {
    std::iter::from_fn(move || {
        let length = number(rest, 0)? as usize;
        let message = rest.get(..length).and_then(|whole| {
            let kind = (number(whole, 4)? & 0xffff) as u16;
            Some(Message { kind, body: whole.get(HEADERS..).unwrap_or_default(), whole })
        });
        // Messages are aligned to 4 bytes (netlink(7)).
        rest = match message {
            Some(_) => rest.get(length.next_multiple_of(4)..).unwrap_or_default(),
            None => &[],
        };
        Some(message.ok_or_else(|| ErrorKind::InvalidData.into()))
    })
}

/// Asks, and gathers the bodies of what is answered.
pub(crate) fn ask(socket: &Socket, what: u16, flags: u16, body: &[u8]) -> Result<Vec<Vec<u8>>> {
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
        for message in messages(&bytes) {
            let Message { kind, body, whole } = message?;
            match kind {
                DONE => return Ok(answers),
                ERROR => {
                    let code = number(whole, HEADER).ok_or(ErrorKind::InvalidData)? as i32;
                    return if code == 0 {
                        Ok(answers)
                    } else {
                        Err(Error::from_raw_os_error(-code))
                    };
                }
                _ => answers.push(body.to_vec()),
            }
        }
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// An attribute, with its padding.
pub(crate) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = value.len() as u16 + 4;
    let mut bytes = [length, kind].map(u16::to_ne_bytes).concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// The value of the first attribute of a kind.
pub(crate) fn value(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
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
