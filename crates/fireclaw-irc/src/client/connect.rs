//! From a host's name to a stream of bytes.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
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
                let pem = std::fs::read(path).map_err(Error::file("read", path))?;
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

/// Connects, within the time that the settings give.
///
/// # Errors
/// Why not, in words.
pub(super) async fn open(
    config: Arc<Config>,
    prover: Option<Prover>,
) -> std::result::Result<Box<dyn Stream>, String> {
    let limit = config.timing.connect;
    let (host, port) = (config.host.as_str(), config.port);
    let connecting = async {
        let tcp = TcpStream::connect((host, port))
            .await
            .map_err(|e| format!("cannot connect to {host}:{port}: {e}"))?;
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
