//! Links, addresses and routes of this kernel (rtnetlink(7)), one change at a time.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

use netlink_packet_core::{
    Emitable, ErrorBuffer, NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST,
    NetlinkBuffer, NetlinkHeader,
};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily as Family, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

// From <linux/rtnetlink.h> and <linux/netlink.h>.
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const NLMSG_ERROR: u16 = 2;

/// A connection to the kernel.
pub struct Netlink(OwnedFd);

impl Netlink {
    /// Fails on a kernel without networking.
    pub fn open() -> io::Result<Self> {
        // No protocol is number 0, which is NETLINK_ROUTE (netlink(7)).
        let socket = socket_with(Family::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        Ok(Self(socket))
    }

    /// Sets a link down, which also forgets its routes and neighbours.
    pub fn set_down(&self, link: u32) -> io::Result<()> {
        self.set_link(link, LinkFlags::empty(), Vec::new())
    }

    /// Sets a link up, with another hardware address if one is given; it must
    /// then be down.
    pub fn set_up(&self, link: u32, mac: Option<&[u8; 6]>) -> io::Result<()> {
        let attributes = mac.map(|mac| LinkAttribute::Address(mac.to_vec()));
        self.set_link(link, LinkFlags::Up, attributes.into_iter().collect())
    }

    fn set_link(
        &self,
        link: u32,
        flags: LinkFlags,
        attributes: Vec<LinkAttribute>,
    ) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = link;
        message.header.flags = flags;
        message.header.change_mask = LinkFlags::Up;
        message.attributes = attributes;
        self.ask(RTM_NEWLINK, 0, &message)
    }

    /// Takes all IPv4 addresses from a link.
    pub fn remove_addresses(&self, link: u32) -> io::Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.index = link;
        loop {
            // One that is not described further is any: the first.
            match self.ask(RTM_DELADDR, 0, &message) {
                Ok(()) => {}
                Err(e) if e.raw_os_error() == Some(Errno::ADDRNOTAVAIL.raw_os_error()) => {
                    return Ok(());
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// Gives a link an address; the route to its network comes with it.
    pub fn add_address(&self, link: u32, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.index = link;
        message.header.prefix_len = prefix;
        message.attributes = vec![
            AddressAttribute::Local(address.into()),
            AddressAttribute::Address(address.into()),
        ];
        self.ask(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &message)
    }

    /// Sends what is for no network of this VM's own to a gateway.
    pub fn set_default_route(&self, link: u32, gateway: Ipv4Addr) -> io::Result<()> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Boot;
        message.header.scope = RouteScope::Universe;
        message.header.kind = RouteType::Unicast;
        message.attributes =
            vec![RouteAttribute::Gateway(RouteAddress::Inet(gateway)), RouteAttribute::Oif(link)];
        self.ask(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, &message)
    }

    /// Sends one request; the kernel has done it, or not, when this returns.
    fn ask(&self, message_type: u16, flags: u16, body: &impl Emitable) -> io::Result<()> {
        let mut header = NetlinkHeader::default();
        header.message_type = message_type;
        header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        let start = header.buffer_len();
        let mut bytes = vec![0; start + body.buffer_len()];
        header.length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        header.emit(&mut bytes);
        body.emit(&mut bytes[start..]);
        send(&self.0, &bytes, SendFlags::empty())?;
        let mut answer = [0; 4096];
        let (length, _) = recv(&self.0, &mut answer, RecvFlags::empty())?;
        verdict(&answer[..length])
    }
}

/// What an acknowledgement says.
fn verdict(answer: &[u8]) -> io::Result<()> {
    let message = NetlinkBuffer::new_checked(answer).map_err(io::Error::other)?;
    if message.message_type() != NLMSG_ERROR {
        return Err(io::Error::other("the kernel answered something else"));
    }
    let error = ErrorBuffer::new_checked(message.payload()).map_err(io::Error::other)?;
    match error.code() {
        None => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(code.get().saturating_neg())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_is_read() {
        let answer = |code: i32| {
            let mut bytes = [36u32.to_ne_bytes(), [2, 0, 0, 0], [0; 4], [0; 4]].concat();
            bytes.extend(code.to_ne_bytes());
            bytes.extend([0; 16]);
            bytes
        };
        verdict(&answer(0)).unwrap();
        assert_eq!(verdict(&answer(-17)).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert!(verdict(&answer(i32::MIN)).is_err());
        assert!(verdict(&answer(0)[..10]).is_err() && verdict(&[]).is_err());
    }
}
