//! Connections from the host to a port of this VM.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use fireclaw_protocol::frame;
use fireclaw_protocol::message::Connected;
use fireclaw_protocol::session::Channel;
use tokio::io::{AsyncWriteExt, copy_bidirectional_with_sizes};
use tokio::net::TcpStream;

/// How much is copied at once, in bytes.
const BUFFER: usize = 64 * 1024;

/// The most addresses besides loopback that are tried: a VM has one or two, and
/// whatever in it listens on more is found at the first.
const MAX_ADDRESSES: usize = 8;

/// What the kernel calls a socket that listens (`TCP_LISTEN`, include/net/tcp_states.h).
const LISTENS: &str = "0A";

/// Connects a channel with whoever listens on this port of the VM, until both
/// directions have ended or one has broken.
pub async fn serve(port: u16, mut channel: Channel) {
    let connected = connect(port).await;
    let problem = connected.as_ref().err().map(ToString::to_string);
    let told = frame::write(&mut channel, &Connected { problem }).await;
    match (connected, told) {
        (Ok(mut stream), Ok(())) => {
            let _ = copy_bidirectional_with_sizes(&mut stream, &mut channel, BUFFER, BUFFER).await;
        }
        _ => {
            let _ = channel.shutdown().await;
        }
    }
}

/// Connects to 127.0.0.1, where most servers are found; else to ::1; else wherever the
/// kernel says that somebody listens on this port.
async fn connect(port: u16) -> io::Result<TcpStream> {
    let first = match TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
        Err(e) if e.kind() == ErrorKind::ConnectionRefused => e,
        other => return other,
    };
    let table = |path| fs::read_to_string(path).unwrap_or_default();
    let listed = [table("/proc/net/tcp"), table("/proc/net/tcp6")];
    let listed = listed.iter().flat_map(|table| listeners(table, port)).take(MAX_ADDRESSES);
    for address in [Ipv6Addr::LOCALHOST.into()].into_iter().chain(listed) {
        if let Ok(stream) = TcpStream::connect(SocketAddr::new(address, port)).await {
            return Ok(stream);
        }
    }
    // What is said of the other addresses would not help anybody.
    Err(first)
}

/// The addresses on which somebody listens on `port`, from the text of `/proc/net/tcp` or
/// `tcp6` (proc(5)): those where 127.0.0.1 and ::1 do not lead.
fn listeners(table: &str, port: u16) -> impl Iterator<Item = IpAddr> {
    table.lines().filter_map(move |line| {
        let mut fields = line.split_whitespace().skip(1);
        let (address, at) = fields.next()?.split_once(':')?;
        let state = fields.nth(1)?;
        let is_it = state == LISTENS && u16::from_str_radix(at, 16) == Ok(port);
        let address = is_it.then(|| parse(address))??;
        let is_tried = [Ipv4Addr::LOCALHOST.into(), IpAddr::from(Ipv6Addr::LOCALHOST)];
        (!is_tried.contains(&address) && !address.is_unspecified()).then_some(address)
    })
}

/// An address in hexadecimal digits: words of 32 bits, each in the VM's byte order.
fn parse(text: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let digits = text.get(at * 8..at * 8 + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    match text.len() {
        8 => Some(IpAddr::from(word(0)?)),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            Some(IpAddr::from(<[u8; 16]>::try_from(words.concat()).ok()?).to_canonical())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEAD: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when";

    fn found(lines: &str, port: u16) -> Vec<String> {
        listeners(&format!("{HEAD}\n{lines}"), port).map(|it| it.to_string()).collect()
    }

    #[test]
    fn who_listens_on_an_address_of_the_machine_is_found() {
        let v4 = "   0: 0200000A:0050 00000000:0000 0A 00000000:00000000 00:00000000 0 0 0 1\n\
                     1: 0300000A:0050 0400000A:C000 01 00000000:00000000 00:00000000 0 0 0 1\n\
                     2: 0500000A:0051 00000000:0000 0A 00000000:00000000 00:00000000 0 0 0 1\n\
                     3: 0100007F:0050 00000000:0000 0A 00000000:00000000 00:00000000 0 0 0 1\n\
                     4: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 0 0 0 1\n";
        assert_eq!(found(v4, 80), ["10.0.0.2"]);
        assert_eq!(found(v4, 81), ["10.0.0.5"]);
        assert!(found(v4, 82).is_empty());
        let zero = "00000000000000000000000000000000:0000 0A 0";
        let v6 = format!(
            "0: B80D0120000000000000000001000000:0050 {zero}\n\
             1: 00000000000000000000000001000000:0050 {zero}\n\
             2: 0000000000000000FFFF00000200000A:0050 {zero}\n"
        );
        assert_eq!(found(&v6, 80), ["2001:db8::1", "10.0.0.2"]);
    }

    #[tokio::test]
    async fn a_server_is_reached_wherever_it_listens() {
        for address in ["127.0.0.1:0", "[::1]:0", "127.0.0.2:0", "0.0.0.0:0"] {
            // Not every VM that tests has IPv6.
            let Ok(server) = tokio::net::TcpListener::bind(address).await else { continue };
            let port = server.local_addr().unwrap().port();
            connect(port).await.unwrap_or_else(|e| panic!("{address}: {e}"));
        }
    }

    proptest! {
        #[test]
        fn any_table_is_read_without_panic(table in "[ 0-9A-Fa-f:\n\u{e9}]{0,200}", port: u16) {
            let _ = listeners(&table, port).count();
        }
    }
}
