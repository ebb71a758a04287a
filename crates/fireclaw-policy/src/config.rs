//! The host's own configuration: `network.toml`.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

/// The name by which a VM reaches the named services of its host.
pub const HOST_NAME: &str = "host.fireclaw.internal";

/// What the host's owner decides for all VMs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HostConfig {
    /// The addresses of the VMs; the first is the host's. 172.16.0.0/24 by default.
    #[serde(deserialize_with = "subnet")]
    pub subnet: Ipv4Net,
    /// The bridge that they are connected to; `fcbr0` by default.
    #[serde(deserialize_with = "bridge")]
    pub bridge: String,
    /// The services of the host that VMs with policy `local` or `full` may use, and
    /// others that have [`HOST_NAME`] allowed.
    #[serde(rename = "service", skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<Service>,
    /// Private networks that VMs with policy `local` or `full` may use, and others by
    /// names that are allowed.
    pub ranges: Vec<Range>,
}

/// A service of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// What people call it.
    pub name: String,
    /// Where it listens, as the host sees it. VMs use the same port of [`HOST_NAME`].
    #[serde(deserialize_with = "service_address")]
    pub address: SocketAddr,
}

/// A private network: RFC 1918, or the shared space of RFC 6598.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Range(Ipv4Net);

impl Range {
    /// The network.
    pub fn network(&self) -> Ipv4Net {
        self.0
    }

    /// Whether an address lies in it.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        self.0.contains(&address)
    }
}

/// A `network.toml` that cannot be used: where, what, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {problem}")]
pub struct InvalidConfig {
    file: String,
    problem: String,
}

impl Default for HostConfig {
    fn default() -> Self {
        let subnet = Ipv4Net::new_assert(Ipv4Addr::new(172, 16, 0, 0), 24);
        Self { subnet, bridge: "fcbr0".into(), services: Vec::new(), ranges: Vec::new() }
    }
}

impl HostConfig {
    /// The name of the file in the home.
    pub const FILE: &str = "network.toml";
    /// The longest file, in bytes.
    const MAX_FILE: u64 = 1 << 20;

    /// Reads the configuration of a home; the default if there is none.
    ///
    /// # Errors
    /// [`InvalidConfig`] says where and what; also if the file cannot be read.
    pub fn load(home: &Path) -> Result<Self, InvalidConfig> {
        let path = home.join(Self::FILE);
        let file = path.display().to_string();
        let text = match read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(e) => return Err(InvalidConfig { file, problem: e.to_string() }),
        };
        Self::parse(&text).map_err(|problem| InvalidConfig { file, problem })
    }

    /// Reads a configuration.
    ///
    /// # Errors
    /// Says where and what: several lines, with the line of the file that is meant.
    pub fn parse(text: &str) -> Result<Self, String> {
        let config: Self = toml::from_str(text).map_err(|e| e.to_string().trim_end().to_owned())?;
        let mut ports = HashSet::new();
        let mut names = HashSet::new();
        for Service { name, address } in &config.services {
            if !names.insert(name) {
                return Err(format!("two services have the name \"{name}\""));
            }
            if !ports.insert(address.port()) {
                let port = address.port();
                return Err(format!(
                    "two services have port {port}: VMs could not tell them apart"
                ));
            }
        }
        Ok(config)
    }

    /// The host's own address on the bridge: the first of the subnet.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.subnet.network()) + 1)
    }

    /// The service at a port of [`HOST_NAME`].
    pub fn service(&self, port: u16) -> Option<&Service> {
        self.services.iter().find(|service| service.address.port() == port)
    }

    /// Whether an address lies in one of the ranges.
    pub fn in_ranges(&self, address: Ipv4Addr) -> bool {
        self.ranges.iter().any(|range| range.contains(address))
    }
}

fn read(path: &Path) -> std::io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(path)?.take(HostConfig::MAX_FILE).read_to_string(&mut text)?;
    Ok(text)
}

/// RFC 1918 and RFC 6598.
fn is_private(network: Ipv4Net) -> bool {
    [([10, 0, 0, 0], 8), ([172, 16, 0, 0], 12), ([192, 168, 0, 0], 16), ([100, 64, 0, 0], 10)]
        .map(|(address, prefix)| Ipv4Net::new_assert(address.into(), prefix))
        .iter()
        .any(|private| private.contains(&network))
}

fn private_network(text: &str) -> Result<Ipv4Net, String> {
    let network: Ipv4Net = text
        .parse()
        .map_err(|_| format!("\"{text}\" is no IPv4 network; write it like 192.168.1.0/24"))?;
    if network.trunc() != network {
        return Err(format!("{network} has bits beyond its prefix; write {}", network.trunc()));
    }
    if !is_private(network) {
        return Err(format!(
            "{network} is not private; only parts of 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 \
             and 100.64.0.0/10 can be named"
        ));
    }
    Ok(network)
}

impl TryFrom<String> for Range {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        private_network(&text).map(Self)
    }
}

impl From<Range> for String {
    fn from(range: Range) -> Self {
        range.0.to_string()
    }
}

fn subnet<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Ipv4Net, D::Error> {
    let network = private_network(&String::deserialize(from)?).map_err(serde::de::Error::custom)?;
    if (16..=29).contains(&network.prefix_len()) {
        return Ok(network);
    }
    Err(serde::de::Error::custom("the prefix must be from /16 to /29"))
}

/// Linux takes at most 15 bytes, and neither slashes nor spaces (`dev_valid_name`).
fn bridge<'de, D: serde::Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let name = String::deserialize(from)?;
    let valid = (1..=15).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        && !name.starts_with(['-', '.']);
    if valid {
        return Ok(name);
    }
    Err(serde::de::Error::custom(
        "a bridge's name has 1 to 15 letters, digits, hyphens, underscores or dots, like fcbr0",
    ))
}

fn service_address<'de, D: serde::Deserializer<'de>>(from: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(from)?;
    let address: Option<SocketAddr> = text.parse().ok();
    match address {
        // The resolver has port 53 of the host's address.
        Some(address) if address.port() == 53 => {
            Err(serde::de::Error::custom("port 53 is the resolver's; have the service use another"))
        }
        Some(address) if address.port() != 0 => Ok(address),
        _ => Err(serde::de::Error::custom(
            "an address and a port from 1 to 65535 are needed, like 127.0.0.1:11434",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn all_that_can_be_configured() {
        let config = HostConfig::parse(
            r#"
            subnet = "10.9.0.0/16"
            bridge = "br-claw"
            ranges = ["192.168.77.0/24"]
            [[service]]
            name = "ollama"
            address = "127.0.0.1:11434"
            "#,
        )
        .unwrap();
        assert_eq!(config.gateway(), Ipv4Addr::new(10, 9, 0, 1));
        assert_eq!(config.service(11434).unwrap().name, "ollama");
        assert!(config.service(80).is_none());
        assert!(config.in_ranges(Ipv4Addr::new(192, 168, 77, 9)));
        assert!(!config.in_ranges(Ipv4Addr::new(192, 168, 78, 9)));
        let text = toml_and_back(&config);
        assert_eq!(text, config);
    }

    fn toml_and_back(config: &HostConfig) -> HostConfig {
        // What goes to another process is JSON; the names are the same.
        let value = toml::Value::try_from(config).unwrap();
        value.try_into().unwrap()
    }

    #[test]
    fn no_file_is_the_default() {
        let home = tempfile::tempdir().unwrap();
        assert_eq!(HostConfig::load(home.path()).unwrap(), HostConfig::default());
        std::fs::write(home.path().join("network.toml"), "bridge = 7").unwrap();
        let error = HostConfig::load(home.path()).unwrap_err().to_string();
        assert!(error.contains("network.toml: TOML parse error at line 1"), "{error}");
    }

    #[test]
    fn mistakes_are_shown_in_their_line() {
        let problem = |text| HostConfig::parse(text).unwrap_err();
        insta::assert_snapshot!(problem("\nranges = [\"10.0.0.0/8\", \"192.168.1.5/24\"]"), @r#"
        TOML parse error at line 2, column 10
          |
        2 | ranges = ["10.0.0.0/8", "192.168.1.5/24"]
          |          ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
        192.168.1.5/24 has bits beyond its prefix; write 192.168.1.0/24
        "#);
        for (text, words) in [
            ("subnet = \"8.8.8.0/24\"", "is not private"),
            ("subnet = \"10.0.0.0/8\"", "from /16 to /29"),
            ("subnet = \"10.0.0.0/30\"", "from /16 to /29"),
            ("subnet = \"fd00::/64\"", "is no IPv4 network"),
            ("bridge = \"a b\"", "1 to 15 letters"),
            ("ranges = [\"0.0.0.0/0\"]", "is not private"),
            ("ranges = [\"169.254.169.254/32\"]", "is not private"),
            ("ranges = [\"127.0.0.0/8\"]", "is not private"),
            ("rangs = []", "unknown field `rangs`"),
            ("[[service]]\nname = \"a\"\naddress = \"127.0.0.1:0\"", "from 1 to 65535"),
            ("[[service]]\nname = \"a\"\naddress = \"127.0.0.1:70000\"", "from 1 to 65535"),
            ("[[service]]\nname = \"a\"\naddress = \"127.0.0.1:53\"", "the resolver's"),
            ("[[service]]\nname = \"a\"", "missing field `address`"),
            (
                "[[service]]\nname = \"a\"\naddress = \"127.0.0.1:1\"\n\
                 [[service]]\nname = \"b\"\naddress = \"127.0.0.2:1\"",
                "two services have port 1",
            ),
        ] {
            let problem = problem(text);
            assert!(problem.contains(words), "{text}: {problem}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_configuration_or_an_error(text in "\\PC{0,200}|subnet = \"[0-9./]{0,20}\"") {
            let _ = HostConfig::parse(&text);
        }
    }
}
