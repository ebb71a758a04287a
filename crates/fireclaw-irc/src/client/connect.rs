//! From a host's name to a stream of bytes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fireclaw_host::PathError;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

use super::config::{Config, Tls};
use crate::{Error, Result};

/// A connection, with or without TLS.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// What is needed to prove a server.
#[derive(Clone)]
pub(super) struct Prover {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Prover {
    /// Reads the certificates that are trusted.
    pub fn new(host: &str, tls: &Tls) -> Result<Self> {
        let wrong =
            |setting, reason: &dyn ToString| Error::Config { setting, reason: reason.to_string() };
        let mut roots = RootCertStore::empty();
        match &tls.ca_file {
            Some(path) => {
                let pem = std::fs::read(path).map_err(PathError::at("read", path))?;
                for certificate in CertificateDer::pem_slice_iter(&pem) {
                    let certificate = certificate.map_err(|e| wrong("ca_file", &e))?;
                    roots.add(certificate).map_err(|e| wrong("ca_file", &e))?;
                }
            }
            None => {
                // One broken certificate among the system's is not our business.
                let system = rustls_native_certs::load_native_certs();
                roots.add_parsable_certificates(system.certs);
            }
        }
        if roots.is_empty() {
            return Err(wrong("ca_file", &"there is no certificate to trust"));
        }
        let provider = Arc::new(crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| wrong("tls", &e))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = tls.server_name.as_deref().unwrap_or(host).to_owned();
        let name = ServerName::try_from(name).map_err(|e| wrong("server_name", &e))?;
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), name })
    }
}

/// How many addresses of a server are tried; networks with more turn them round.
const MAX_ADDRESSES: usize = 8;

/// How long an address is waited for before the next is tried beside it (RFC 8305, 5).
const NEXT_ADDRESS: Duration = Duration::from_millis(250);

/// The first connection that stands; each address is tried a moment after the one before.
async fn race(addresses: &[SocketAddr]) -> std::io::Result<TcpStream> {
    let mut attempts = JoinSet::new();
    for (n, address) in (0..).zip(addresses.iter().copied()) {
        attempts.spawn(async move {
            tokio::time::sleep(NEXT_ADDRESS * n).await;
            TcpStream::connect(address).await
        });
    }
    let mut last = std::io::Error::other("it has no address");
    while let Some(tried) = attempts.join_next().await {
        match tried {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(e)) => last = e,
            Err(e) => last = e.into(),
        }
    }
    Err(last)
}

/// A server's addresses, from the n-th on, both families in turn.
async fn addresses(host: &str, port: u16, first: usize) -> std::io::Result<Vec<SocketAddr>> {
    let found: Vec<_> = tokio::net::lookup_host((host, port)).await?.take(MAX_ADDRESSES).collect();
    Ok(in_turn(found, first))
}

fn in_turn(found: Vec<SocketAddr>, first: usize) -> Vec<SocketAddr> {
    let wants_six = found.first().is_some_and(SocketAddr::is_ipv6);
    let (preferred, other): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|address| address.is_ipv6() == wants_six);
    let longest = preferred.len().max(other.len());
    let mut all: Vec<_> =
        (0..longest).flat_map(|n| [preferred.get(n), other.get(n)]).flatten().copied().collect();
    if !all.is_empty() {
        let first = first % all.len();
        all.rotate_left(first);
    }
    all
}

/// Connects, within the time that the settings give, to the n-th address first.
///
/// # Errors
/// Why not, in words.
pub(super) async fn open(
    config: Arc<Config>,
    prover: Option<Prover>,
    first: usize,
) -> std::result::Result<Box<dyn Stream>, String> {
    let limit = config.timing.connect;
    let (host, port) = (config.host.as_str(), config.port);
    let connecting = async {
        let tried = match addresses(host, port, first).await {
            Ok(addresses) => race(&addresses).await,
            Err(e) => Err(e),
        };
        let tcp = tried.map_err(|e| format!("cannot connect to {host}:{port}: {e}"))?;
        // Lines are short, and people wait for them.
        tcp.set_nodelay(true).map_err(|e| format!("cannot set up the connection: {e}"))?;
        let Some(Prover { connector, name }) = prover else {
            return Ok(Box::new(tcp) as Box<dyn Stream>);
        };
        let tls = connector.connect(name, tcp);
        let tls = tls.await.map_err(|e| format!("no TLS with {host}:{port}: {e}"))?;
        Ok(Box::new(tls) as Box<dyn Stream>)
    };
    match tokio::time::timeout(limit, connecting).await {
        Ok(done) => done,
        Err(_) => Err(format!("{host}:{port} did not answer within {limit:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(list: &[&str]) -> Vec<SocketAddr> {
        list.iter().map(|address| address.parse().unwrap()).collect()
    }

    #[test]
    fn both_families_in_turn_and_another_first_each_time() {
        let found = all(&["[::1]:1", "[::2]:1", "127.0.0.1:1"]);
        assert_eq!(in_turn(found.clone(), 0), all(&["[::1]:1", "127.0.0.1:1", "[::2]:1"]));
        assert_eq!(in_turn(found.clone(), 1), all(&["127.0.0.1:1", "[::2]:1", "[::1]:1"]));
        assert_eq!(in_turn(found.clone(), 3), in_turn(found, 0));
        assert!(in_turn(Vec::new(), 7).is_empty());
    }

    #[tokio::test]
    async fn an_address_that_does_not_answer_is_not_waited_for() {
        let open = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = open.local_addr().map(|address| (open, address)).unwrap();
        // A listener whose queue is full lets nobody in and refuses nobody.
        let full = rustix::net::socket(
            rustix::net::AddressFamily::INET,
            rustix::net::SocketType::STREAM,
            None,
        );
        let full = full.unwrap();
        rustix::net::bind(&full, &"127.0.0.1:0".parse::<SocketAddr>().unwrap()).unwrap();
        rustix::net::listen(&full, 0).unwrap();
        let full = std::net::TcpListener::from(full);
        let silent = full.local_addr().unwrap();
        let mut waiting = Vec::new();
        while let Ok(stream) =
            std::net::TcpStream::connect_timeout(&silent, Duration::from_millis(200))
        {
            waiting.push(stream);
        }
        let refusing: SocketAddr = "127.0.0.1:1".parse().unwrap();
        for first in [silent, refusing] {
            let stream = race(&[first, open.1]).await.unwrap();
            assert_eq!(stream.peer_addr().unwrap(), open.1);
        }
        assert!(race(&[refusing, refusing]).await.is_err());
        assert!(race(&[]).await.is_err());
    }
}
