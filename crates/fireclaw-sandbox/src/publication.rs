//! Which port of this host leads to which port of a guest, as people write it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A port of this host that leads to a port of a guest: `[ADDR:]HOST_PORT:GUEST_PORT`, and
/// `/tcp` behind it if one likes. Serialized, it is that text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Publication {
    host: SocketAddr,
    guest: u16,
}

impl Publication {
    /// Where this host listens: at any free port if that is 0, on 127.0.0.1 if no address was
    /// given.
    pub fn host(&self) -> SocketAddr {
        self.host
    }

    /// The guest's port.
    pub fn guest(&self) -> u16 {
        self.guest
    }
}

impl FromStr for Publication {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            "it must be [ADDR:]HOST_PORT:GUEST_PORT, such as 8080:80 or [::1]:8080:80".to_owned()
        };
        let port = |text: &str| {
            text.parse::<u16>().map_err(|_| format!("{text:?} is no port: 0 to 65535"))
        };
        let text = match text.rsplit_once('/') {
            None => text,
            Some((ports, "tcp")) => ports,
            Some((_, "udp")) => {
                return Err("only TCP ports can be published, and this one is of UDP".into());
            }
            Some(_) => return Err(wrong()),
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

impl TryFrom<String> for Publication {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Publication> for String {
    fn from(publication: Publication) -> Self {
        publication.to_string()
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
        assert_eq!(parsed("8080:80/tcp").unwrap(), "127.0.0.1:8080:80");
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
            ("8080:80/udp", "only TCP"),
            ("8080:80/sctp", "HOST_PORT"),
            ("8080/tcp:80", "HOST_PORT"),
            ("8080:80/tcp/tcp", "no port"),
            ("/tcp", "HOST_PORT"),
        ] {
            let error = parsed(wrong).unwrap_err();
            assert!(error.contains(said), "{wrong}: {error}");
        }
    }

    #[test]
    fn it_is_kept_as_people_write_it() {
        let publication: Publication = "[::1]:0:80".parse().unwrap();
        let json = serde_json::to_string(&publication).unwrap();
        assert_eq!(json, r#""[::1]:0:80""#);
        assert_eq!(serde_json::from_str::<Publication>(&json).unwrap(), publication);
        let error = serde_json::from_str::<Publication>(r#""80""#).unwrap_err();
        assert!(error.to_string().contains("HOST_PORT"), "{error}");
    }
}
