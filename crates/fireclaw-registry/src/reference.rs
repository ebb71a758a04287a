//! Names of images, as Docker reads them.

use std::fmt;

use crate::{Error, Result};

/// The name of an image in a registry: `alpine`, `ghcr.io/owner/name:tag`,
/// `localhost:5000/app@sha256:…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference(oci_client::Reference);

impl Reference {
    /// Reads a name. Without a registry it is Docker Hub's, without a tag or digest `latest`.
    ///
    /// # Errors
    /// [`Error::BadReference`].
    pub fn parse(name: &str) -> Result<Self> {
        let bad = |problem: String| Error::BadReference { name: shown(name), problem };
        // What is neither is refused before it can be part of an address.
        if name.len() > 512 || name.contains(|c: char| !c.is_ascii_graphic()) {
            return Err(bad("it must be at most 512 ASCII characters without spaces".into()));
        }
        name.parse().map(Self).map_err(|e: oci_client::ParseError| bad(e.to_string()))
    }

    /// Its registry, as people name it: `docker.io`, `localhost:5000`.
    pub fn registry(&self) -> &str {
        self.0.registry()
    }

    /// Whether the registry is on this host, so that nothing goes over a network.
    pub(crate) fn is_loopback(&self) -> bool {
        let registry = self.0.registry();
        let host = match registry.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => registry.split(':').next().unwrap_or_default(),
        };
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    pub(crate) fn of_client(&self) -> &oci_client::Reference {
        &self.0
    }
}

impl fmt::Display for Reference {
    /// In full: `docker.io/library/alpine:latest`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.whole())
    }
}

/// A name for a message.
fn shown(name: &str) -> String {
    fireclaw_host::escape(&name.chars().take(100).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_docker_reads_them() {
        let full = |name: &str| Reference::parse(name).unwrap().to_string();
        assert_eq!(full("alpine"), "docker.io/library/alpine:latest");
        assert_eq!(full("python:3.12"), "docker.io/library/python:3.12");
        assert_eq!(full("owner/app"), "docker.io/owner/app:latest");
        assert_eq!(full("ghcr.io/owner/app:1"), "ghcr.io/owner/app:1");
        assert_eq!(full("localhost:5000/app"), "localhost:5000/app:latest");
        let digest = format!("sha256:{}", "a".repeat(64));
        assert_eq!(full(&format!("alpine@{digest}")), format!("docker.io/library/alpine@{digest}"));
        for bad in ["", "Alpine", "a b", "alpine:", "../etc", "a\n", "é", ":1", "alpine@sha256:1"]
        {
            assert!(Reference::parse(bad).is_err(), "{bad:?}");
        }
        let Err(Error::BadReference { name, .. }) = Reference::parse("a\x1b[2J") else { panic!() };
        assert!(!name.contains('\x1b'), "{name}");
    }

    #[test]
    fn only_this_host_may_do_without_tls() {
        let is_loopback = |name: &str| Reference::parse(name).unwrap().is_loopback();
        assert!(is_loopback("localhost:5000/app") && is_loopback("127.0.0.1:5000/app"));
        for other in
            ["alpine", "127.0.0.1.example.org/app", "localhost.example:5000/a", "10.0.0.1/a"]
        {
            assert!(!is_loopback(other), "{other}");
        }
    }
}
