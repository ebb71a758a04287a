//! Ports of this host that lead to ports of the guest, through the stream.

use std::fmt;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::task::Poll;
use std::time::Duration;

use fireclaw_say::say;
use fireclaw_vm::Commands;
use rustix::net::sockopt::set_socket_linger;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::Outcome;
use super::relay::{BUFFER, Broken};
use crate::error::{CliError, Kind, Result};

/// The most connections at once; more wait until one has ended. Each takes a
/// channel, and a command takes four of [`fireclaw_protocol::session::MAX_CHANNELS`].
const MAX_CONNECTIONS: usize = 32;

/// How long connections may last after the command has ended, for the bytes
/// that are on their way.
const LAST_BYTES: Duration = Duration::from_secs(2);

/// What `--publish` asks for: `[ADDR:]HOST_PORT:GUEST_PORT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publication {
    /// Where the host listens; any free port if that is 0.
    host: SocketAddr,
    /// Where the guest does.
    guest: u16,
}

impl FromStr for Publication {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let wrong = || {
            "it must be [ADDR:]HOST_PORT:GUEST_PORT, such as 8080:80 or [::1]:8080:80".to_owned()
        };
        let port = |text: &str| {
            text.parse::<u16>().map_err(|_| format!("{text:?} is no port: 0 to 65535"))
        };
        let (host, guest) = text.rsplit_once(':').ok_or_else(wrong)?;
        let (address, host) = match host.rsplit_once(':') {
            Some((address, host)) => (literal(address).ok_or_else(wrong)?, host),
            None => (Ipv4Addr::LOCALHOST.into(), host),
        };
        let publication = Self { host: SocketAddr::new(address, port(host)?), guest: port(guest)? };
        match publication.guest {
            0 => Err("the guest's port must be 1 to 65535".into()),
            _ => Ok(publication),
        }
    }
}

/// An IP address; one of IPv6 is in brackets, as in a URL.
fn literal(text: &str) -> Option<IpAddr> {
    match text.strip_prefix('[') {
        Some(rest) => Some(IpAddr::V6(rest.strip_suffix(']')?.parse().ok()?)),
        None => Some(IpAddr::V4(text.parse().ok()?)),
    }
}

impl fmt::Display for Publication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.guest)
    }
}

/// Ports that are listened on. Connections wait until there is a guest.
#[derive(Debug)]
pub struct Ports(Vec<(std::net::TcpListener, u16)>);

impl Ports {
    /// Takes all ports, or none; tells those that nobody chose.
    pub fn open(publications: &[Publication]) -> Result<Self> {
        let open = |publication: &Publication| {
            let listener = listen(publication).map_err(|e| cannot(publication, &e))?;
            Ok((listener, publication.guest))
        };
        Ok(Self(publications.iter().map(open).collect::<Result<_>>()?))
    }

    /// Passes connections on while `work` goes on, which is the guest's command.
    pub async fn during(
        self,
        commands: &Commands,
        work: impl Future<Output = std::result::Result<Outcome, Broken>>,
    ) -> std::result::Result<Outcome, Broken> {
        let registered = |(listener, guest)| Ok((TcpListener::from_std(listener)?, guest));
        let listeners = self.0.into_iter().map(registered).collect::<io::Result<Vec<_>>>();
        let listeners = listeners.map_err(|e| {
            Broken::Here(CliError::new(Kind::System, format!("cannot wait for connections: {e}")))
        })?;
        // Dropping it ends them all.
        let mut connections = JoinSet::new();
        tokio::pin!(work);
        let outcome = loop {
            tokio::select! {
                outcome = &mut work => break outcome,
                (stream, guest) = next(&listeners), if connections.len() < MAX_CONNECTIONS => {
                    connections.spawn(relay(stream, commands.clone(), guest));
                }
                Some(_) = connections.join_next() => {}
            }
        };
        drop(listeners);
        if matches!(outcome, Ok(Outcome::Exited(_) | Outcome::OutOfMemory(_))) {
            let ended = async { while connections.join_next().await.is_some() {} };
            let _ = tokio::time::timeout(LAST_BYTES, ended).await;
        }
        outcome
    }
}

fn listen(publication: &Publication) -> io::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind(publication.host)?;
    listener.set_nonblocking(true)?;
    if publication.host.port() == 0 {
        let host = listener.local_addr()?;
        say!("fireclaw: forwarding {host} to guest port {}", publication.guest);
    }
    Ok(listener)
}

fn cannot(publication: &Publication, error: &io::Error) -> CliError {
    let hint = match error.kind() {
        ErrorKind::AddrInUse => "another program has this port: choose another, or 0 for any",
        ErrorKind::AddrNotAvailable => {
            "this host does not have that address: 0.0.0.0 is all it has"
        }
        ErrorKind::PermissionDenied => "ports below 1024 are for root: choose a higher one",
        _ => "127.0.0.1 and a port above 1023 are for everybody",
    };
    CliError::new(Kind::Host, format!("cannot publish {publication}: {error}")).hint(hint)
}

/// The next connection, with the guest's port to which it goes. Cancel-safe.
async fn next(listeners: &[(TcpListener, u16)]) -> (TcpStream, u16) {
    poll_fn(|cx| {
        for (listener, guest) in listeners {
            // One that fails, because this process has no descriptors left, is
            // asked again when a connection has ended.
            if let Poll::Ready(Ok((stream, _))) = listener.poll_accept(cx) {
                return Poll::Ready((stream, *guest));
            }
        }
        Poll::Pending
    })
    .await
}

/// Passes bytes both ways until both directions have ended. What goes wrong
/// resets the connection: an end would look like all there was.
async fn relay(mut stream: TcpStream, commands: Commands, guest: u16) {
    let copied = async {
        stream.set_nodelay(true)?;
        let mut channel = commands.connect(guest).await.map_err(io::Error::other)?;
        copy_bidirectional_with_sizes(&mut stream, &mut channel, BUFFER, BUFFER).await
    };
    if copied.await.is_err() {
        let _ = set_socket_linger(&stream, Some(Duration::ZERO));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_have_an_address_or_not() {
        let parsed = |text: &str| text.parse::<Publication>().map(|p| p.to_string());
        assert_eq!(parsed("8080:80").unwrap(), "127.0.0.1:8080:80");
        assert_eq!(parsed("0:65535").unwrap(), "127.0.0.1:0:65535");
        assert_eq!(parsed("0.0.0.0:8080:80").unwrap(), "0.0.0.0:8080:80");
        assert_eq!(parsed("[::1]:8080:80").unwrap(), "[::1]:8080:80");
        for (wrong, said) in [
            ("8080", "HOST_PORT"),
            ("", "HOST_PORT"),
            ("::1:8080:80", "HOST_PORT"),
            ("localhost:8080:80", "HOST_PORT"),
            ("1.2.3:8080:80", "HOST_PORT"),
            ("[::1:8080:80", "HOST_PORT"),
            (":8080:80", "HOST_PORT"),
            ("8080:", "no port"),
            (":80", "no port"),
            ("8080:70000", "no port"),
            ("70000:80", "no port"),
            ("-1:80", "no port"),
            ("8080:http", "no port"),
            ("8080:0", "1 to 65535"),
        ] {
            let error = parsed(wrong).unwrap_err();
            assert!(error.contains(said), "{wrong}: {error}");
        }
    }

    #[test]
    fn a_port_that_is_taken_is_told() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let publication = format!("{}:80", taken.local_addr().unwrap()).parse().unwrap();
        let error = Ports::open(&[publication]).unwrap_err().text();
        assert!(error.contains("cannot publish") && error.contains("hint:"), "{error}");
    }
}
