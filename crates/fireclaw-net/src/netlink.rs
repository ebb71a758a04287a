//! The kernel's network devices, addresses and routes, over rtnetlink(7).

use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoBridgePort, InfoKind, InfoPortData, InfoPortKind, LinkAttribute, LinkFlags, LinkInfo,
    LinkMessage,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use crate::address::Mac;
use crate::{Error, Result};

/// The group of changes to IPv4 addresses (`RTNLGRP_IPV4_IFADDR`).
const ADDRESS_CHANGES: u32 = 5;
/// The group of changes to IPv4 routes (`RTNLGRP_IPV4_ROUTE`).
const ROUTE_CHANGES: u32 = 7;

/// A connection to the kernel.
pub(crate) struct Netlink {
    socket: Socket,
}

/// A network device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub index: u32,
    pub name: String,
    pub is_bridge: bool,
    /// Its own address, if it has one of Ethernet's.
    pub mac: Option<Mac>,
    /// The bridge that it is a port of.
    pub master: Option<u32>,
}

/// A part of the address space that has a use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Used {
    pub network: Ipv4Net,
    pub link: u32,
}

fn failed<E: std::fmt::Display>(action: &str) -> impl FnOnce(E) -> Error {
    Error::system(action.to_owned())
}

impl Netlink {
    /// Connects, in the network namespace of this thread.
    pub fn open() -> Result<Self> {
        let connect = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            std::io::Result::Ok(Self { socket })
        };
        connect().map_err(failed("opening rtnetlink"))
    }

    /// Asks, and gathers what is answered.
    fn ask(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> std::io::Result<Vec<RouteNetlinkMessage>> {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = 1;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        // A dump ends with a word, what is to be acknowledged with that, a question with
        // its answer.
        let one = flags & (NLM_F_DUMP | NLM_F_ACK) == 0;
        let mut answers = Vec::new();
        loop {
            let (bytes, _) = self.socket.recv_from_full()?;
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let invalid = |e| std::io::Error::new(std::io::ErrorKind::InvalidData, e);
                let packet = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(|e| invalid(e.to_string()))?;
                // Messages are aligned to 4 bytes (netlink(7)).
                let length = (packet.header.length as usize).next_multiple_of(4).max(16);
                rest = rest.get(length..).unwrap_or_default();
                match packet.payload {
                    NetlinkPayload::Done(_) => return Ok(answers),
                    NetlinkPayload::Error(error) => {
                        return if error.code.is_none() { Ok(answers) } else { Err(error.to_io()) };
                    }
                    NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                    _ => {}
                }
            }
            if one && !answers.is_empty() {
                return Ok(answers);
            }
        }
    }

    fn command(&self, message: RouteNetlinkMessage, flags: u16) -> std::io::Result<()> {
        self.ask(message, NLM_F_ACK | flags).map(drop)
    }

    /// All network devices.
    pub fn links(&self) -> Result<Vec<Link>> {
        let answers = self
            .ask(RouteNetlinkMessage::GetLink(LinkMessage::default()), NLM_F_DUMP)
            .map_err(failed("listing network devices"))?;
        Ok(answers.into_iter().filter_map(link).collect())
    }

    /// The device of that name.
    pub fn link(&self, name: &str) -> Result<Option<Link>> {
        Ok(self.links()?.into_iter().find(|link| link.name == name))
    }

    /// Makes a bridge that is up and has an address.
    pub fn make_bridge(&self, name: &str, mac: Mac, address: Ipv4Net) -> Result<Link> {
        let mut message = LinkMessage::default();
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        message.attributes = vec![
            LinkAttribute::IfName(name.into()),
            // Its own, so that it stays when ports come and go.
            LinkAttribute::Address(mac.0.to_vec()),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]),
        ];
        let new = RouteNetlinkMessage::NewLink(message);
        self.command(new, NLM_F_CREATE | NLM_F_EXCL).map_err(Error::device("making the bridge"))?;
        let link = self.link(name)?.ok_or_else(|| failed("making the bridge")("it is gone"))?;
        self.add_address(link.index, address)?;
        Ok(link)
    }

    /// Gives an address to a device.
    pub fn add_address(&self, link: u32, address: Ipv4Net) -> Result<()> {
        let message = RouteNetlinkMessage::NewAddress(address_of(link, address));
        self.command(message, NLM_F_CREATE | NLM_F_EXCL)
            .map_err(failed("giving the bridge its address"))
    }

    /// Takes an address from a device; fine if it does not have it.
    pub fn remove_address(&self, link: u32, address: Ipv4Net) -> Result<()> {
        match self.command(RouteNetlinkMessage::DelAddress(address_of(link, address)), 0) {
            Err(e) if e.raw_os_error() == Some(libc::EADDRNOTAVAIL) => Ok(()),
            other => other.map_err(failed("taking the bridge's address away")),
        }
    }

    /// Makes a device a port of a bridge that sees no other port but the bridge itself, and
    /// sets it up.
    pub fn join(&self, link: u32, bridge: u32) -> Result<()> {
        let change = |action: &'static str, attributes, up: bool| {
            let mut message = LinkMessage::default();
            message.header.index = link;
            if up {
                message.header.flags = LinkFlags::Up;
                message.header.change_mask = LinkFlags::Up;
            }
            message.attributes = attributes;
            self.command(RouteNetlinkMessage::NewLink(message), 0).map_err(failed(action))
        };
        change("connecting the tap to the bridge", vec![LinkAttribute::Controller(bridge)], false)?;
        let isolated = InfoPortData::BridgePort(vec![InfoBridgePort::Isolated(true)]);
        let info = vec![LinkInfo::PortKind(InfoPortKind::Bridge), LinkInfo::PortData(isolated)];
        change("isolating the tap", vec![LinkAttribute::LinkInfo(info)], true)
    }

    /// Sets a device up.
    pub fn up(&self, link: u32) -> Result<()> {
        self.set_up(link, true)
    }

    /// Sets a device down: nothing comes out of it.
    pub fn down(&self, link: u32) -> Result<()> {
        self.set_up(link, false)
    }

    fn set_up(&self, link: u32, up: bool) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = link;
        message.header.flags.set(LinkFlags::Up, up);
        message.header.change_mask = LinkFlags::Up;
        self.command(RouteNetlinkMessage::NewLink(message), 0)
            .map_err(failed("setting a network device up or down"))
    }

    /// Removes a device; fine if there is none.
    pub fn remove(&self, name: &str) -> Result<()> {
        let mut message = LinkMessage::default();
        message.attributes = vec![LinkAttribute::IfName(name.into())];
        match self.command(RouteNetlinkMessage::DelLink(message), 0) {
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            Err(e) => Err(failed(&format!("removing {name}"))(e)),
            Ok(()) => Ok(()),
        }
    }

    /// The IPv4 addresses of this host, with their networks.
    pub fn addresses(&self) -> Result<Vec<Used>> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        let answers = self
            .ask(RouteNetlinkMessage::GetAddress(message), NLM_F_DUMP)
            .map_err(failed("listing addresses"))?;
        Ok(answers.into_iter().filter_map(address).collect())
    }

    /// The IPv4 networks that have a route of their own: the default route is not listed.
    pub fn routes(&self) -> Result<Vec<Used>> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        let answers = self
            .ask(RouteNetlinkMessage::GetRoute(message), NLM_F_DUMP)
            .map_err(failed("listing routes"))?;
        Ok(answers.into_iter().filter_map(route).collect())
    }

    /// The IPv4 addresses at which this host hears, whether a device has them or a route.
    pub fn local(&self) -> Result<Vec<Ipv4Net>> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        let answers = self
            .ask(RouteNetlinkMessage::GetRoute(message), NLM_F_DUMP)
            .map_err(failed("listing routes"))?;
        let local = |answer: &RouteNetlinkMessage| {
            matches!(answer, RouteNetlinkMessage::NewRoute(route)
                if route.header.kind == RouteType::Local)
        };
        let routes = answers.into_iter().filter(local).filter_map(route);
        Ok(routes.map(|used| used.network).collect())
    }

    /// Whether packets to an address reach another host: neither this one, nor many, nor
    /// nobody.
    pub fn is_elsewhere(&self, address: Ipv4Addr) -> Result<bool> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.destination_prefix_length = 32;
        message.attributes = vec![RouteAttribute::Destination(RouteAddress::Inet(address))];
        match self.ask(RouteNetlinkMessage::GetRoute(message), 0) {
            Ok(answers) => Ok(answers.iter().any(|answer| {
                matches!(answer, RouteNetlinkMessage::NewRoute(route)
                    if route.header.kind == RouteType::Unicast)
            })),
            // No route: the connection will say so.
            Err(e) if e.raw_os_error() == Some(libc::ENETUNREACH) => Ok(true),
            Err(e) => Err(failed("looking a route up")(e)),
        }
    }

    /// A socket that is readable after what [`Netlink::local`] tells may have changed.
    pub fn watch_local() -> Result<Socket> {
        let watch = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.add_membership(ADDRESS_CHANGES)?;
            socket.add_membership(ROUTE_CHANGES)?;
            socket.set_non_blocking(true)?;
            std::io::Result::Ok(socket)
        };
        watch().map_err(failed("watching addresses"))
    }
}

/// Reads all news from a socket that does not wait. The kernel has none again for one that
/// could not keep all, until it is empty.
pub(crate) fn drain(socket: &Socket) {
    loop {
        match socket.recv_from_full() {
            Ok(_) => {}
            Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => {}
            Err(_) => return,
        }
    }
}

fn address_of(link: u32, address: Ipv4Net) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = address.prefix_len();
    message.header.index = link;
    message.attributes = vec![
        AddressAttribute::Local(address.addr().into()),
        AddressAttribute::Address(address.addr().into()),
        AddressAttribute::Broadcast(address.broadcast()),
    ];
    message
}

fn link(answer: RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = answer else { return None };
    let (index, name) = (message.header.index, String::new());
    let mut link = Link { index, name, is_bridge: false, mac: None, master: None };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Controller(master) => link.master = Some(master),
            LinkAttribute::Address(bytes) => link.mac = bytes.try_into().ok().map(Mac),
            LinkAttribute::LinkInfo(info) => {
                link.is_bridge = info.contains(&LinkInfo::Kind(InfoKind::Bridge));
            }
            _ => {}
        }
    }
    Some(link)
}

fn address(answer: RouteNetlinkMessage) -> Option<Used> {
    let RouteNetlinkMessage::NewAddress(message) = answer else { return None };
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
        _ => None,
    })?;
    let network = Ipv4Net::new(local, message.header.prefix_len).ok()?;
    Some(Used { network, link: message.header.index })
}

fn route(answer: RouteNetlinkMessage) -> Option<Used> {
    let RouteNetlinkMessage::NewRoute(message) = answer else { return None };
    let mut destination = None;
    let mut link = 0;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => {
                destination = Some(*address)
            }
            RouteAttribute::Oif(index) => link = *index,
            _ => {}
        }
    }
    let network = Ipv4Net::new(destination?, message.header.destination_prefix_length).ok()?;
    Some(Used { network, link })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_is_a_device_with_an_address() {
        let netlink = Netlink::open().unwrap();
        let lo = netlink.link("lo").unwrap().unwrap();
        assert!(!lo.is_bridge);
        let addresses = netlink.addresses().unwrap();
        assert!(
            addresses
                .iter()
                .any(|used| used.link == lo.index && used.network.addr() == Ipv4Addr::LOCALHOST)
        );
        assert!(netlink.local().unwrap().iter().any(|net| net.contains(&Ipv4Addr::LOCALHOST)));
        assert!(!netlink.is_elsewhere(Ipv4Addr::LOCALHOST).unwrap());
        assert!(!netlink.is_elsewhere(Ipv4Addr::new(224, 0, 0, 1)).unwrap());
        netlink.routes().unwrap();
        Netlink::watch_local().unwrap();
    }
}
