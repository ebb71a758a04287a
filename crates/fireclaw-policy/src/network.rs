//! The policy as templates and the command line have it.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The most targets in one list of a policy.
pub const MAX_TARGETS: usize = 10_000;

/// What a VM can reach over the network. Written and read as one line of words, see
/// [`Network::from_str`]; so also in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Network {
    /// Nothing: it has no network interface. Chat and model work without one.
    #[default]
    None,
    /// What the host's configuration names as local.
    Local,
    /// The internet, but no other guest and no service of the host.
    Full,
    /// Some names only.
    Allow {
        /// What is allowed; at least one.
        allow: Vec<Target>,
        /// What is not, although `allow` has it.
        deny: Vec<Target>,
        /// How names become addresses.
        dns: Dns,
    },
}

/// How names become addresses under [`Network::Allow`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dns {
    /// An allowed name opens the addresses of our resolver's answer, for as long as the
    /// answer is valid, and nothing else.
    #[default]
    Pinned,
}

impl Dns {
    /// All words, as a template has them.
    pub const WORDS: [&'static str; 1] = ["pinned"];
}

/// A host, or all hosts of a domain, and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// Which hosts.
    pub host: Host,
    /// The port; every one if absent. Never 0.
    pub port: Option<u16>,
}

/// Hosts by name, in lower case and without a dot at the end.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// This one.
    Name(String),
    /// `*.example.org`: all names below it, but not itself.
    Below(String),
}

impl Target {
    /// Reads `host`, `host:port`, `*.domain` or `*.domain:port`.
    ///
    /// # Errors
    /// Says what is wrong, as the end of a sentence that begins with the target.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.contains("://") || text.contains('/') {
            return Err(
                "is an address of a page; write only its host, and a port if need be".into()
            );
        }
        if text.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
            return Err(BY_ADDRESS.into());
        }
        let (host, port) = match text.split_once(':') {
            None => (text, None),
            Some((host, port)) => (host, Some(parse_port(port)?)),
        };
        let lower = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let host = match lower.strip_prefix("*.") {
            Some(domain) => Host::Below(check_name(domain)?),
            None => Host::Name(check_name(&lower)?),
        };
        Ok(Self { host, port })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Name(name) => f.write_str(name)?,
            Host::Below(domain) => write!(f, "*.{domain}")?,
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl Network {
    /// Its first word: `none`, `local`, `full` or `allow`.
    pub fn word(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Local => "local",
            Self::Full => "full",
            Self::Allow { .. } => "allow",
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())?;
        let Self::Allow { allow, deny, .. } = self else { return Ok(()) };
        let words =
            |list: &[Target]| list.iter().map(Target::to_string).collect::<Vec<_>>().join(",");
        write!(f, ":{}", words(allow))?;
        if deny.is_empty() { Ok(()) } else { write!(f, " deny:{}", words(deny)) }
    }
}

/// Words that are no policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct InvalidNetwork {
    problem: String,
    hint: Option<&'static str>,
}

impl InvalidNetwork {
    fn new(problem: impl Into<String>, hint: &'static str) -> Self {
        Self { problem: problem.into(), hint: Some(hint) }
    }

    /// What would be right, if that can be said.
    pub fn hint(&self) -> Option<&'static str> {
        self.hint
    }
}

const WORDS: &str = "none, local, full, or allow:example.org,*.example.net:443";

impl FromStr for Network {
    type Err = InvalidNetwork;

    /// Reads `none`, `local`, `full`, `allow:TARGET,…` or `"allow:TARGET,… deny:TARGET,…"`.
    ///
    /// # Errors
    /// [`InvalidNetwork`] for the first thing that is wrong.
    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let mut words = text.split_whitespace();
        let network = match words.next() {
            None => return Err(InvalidNetwork::new("the network policy is empty", WORDS)),
            Some("none") => Self::None,
            Some("local") => Self::Local,
            Some("full") => Self::Full,
            Some(word) => {
                let Some(allow) = word.strip_prefix("allow:") else {
                    let problem = format!("there is no network policy \"{}\"", shown(word));
                    return Err(InvalidNetwork::new(problem, WORDS));
                };
                let deny = match words.next() {
                    None => Vec::new(),
                    Some(word) => {
                        let Some(deny) = word.strip_prefix("deny:") else {
                            let problem = format!("\"{}\" after a policy", shown(word));
                            let hint = "after allow:… only deny:TARGET,… may follow";
                            return Err(InvalidNetwork::new(problem, hint));
                        };
                        targets("deny:", deny)?
                    }
                };
                Self::Allow { allow: targets("allow:", allow)?, deny, dns: Dns::Pinned }
            }
        };
        match words.next() {
            None => Ok(network),
            Some(word) => {
                let problem = format!("\"{}\" after a policy", shown(word));
                Err(InvalidNetwork::new(problem, "write a policy's targets without spaces"))
            }
        }
    }
}

fn targets(field: &str, list: &str) -> Result<Vec<Target>, InvalidNetwork> {
    if list.is_empty() {
        let problem = format!("`{field}` has no target");
        return Err(InvalidNetwork::new(problem, "for no network, write none"));
    }
    if list.split(',').nth(MAX_TARGETS).is_some() {
        let problem = format!("`{field}` has more than {MAX_TARGETS} targets");
        return Err(InvalidNetwork::new(problem, "allow whole domains: *.example.org"));
    }
    let target = |text: &str| {
        Target::parse(text).map_err(|problem| {
            let problem = format!("\"{}\" in `{field}` {problem}", shown(text));
            InvalidNetwork { problem, hint: None }
        })
    };
    list.split(',').map(target).collect()
}

/// A word as a message shows it: short, and no command to a terminal.
fn shown(word: &str) -> String {
    word.chars().take(60).map(|c| if c.is_ascii_graphic() { c } else { '\u{fffd}' }).collect()
}

impl TryFrom<String> for Network {
    type Error = InvalidNetwork;

    fn try_from(text: String) -> Result<Self, InvalidNetwork> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

const BY_ADDRESS: &str = "is an address; only names can be allowed or denied";

fn parse_port(text: &str) -> Result<u16, String> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(port @ 1..) if digits => Ok(port),
        _ => Err("has no valid port: it must be a number from 1 to 65535".into()),
    }
}

/// A host name by RFC 1123: labels of at most 63 letters, digits and hyphens, at most 253
/// characters. Other scripts have to be written in their ASCII form (`xn--…`), which is
/// what a resolver sees.
fn check_name(name: &str) -> Result<String, String> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if name.parse::<IpAddr>().is_ok() {
        return Err(BY_ADDRESS.into());
    }
    if name.contains('*') {
        return Err("has a * in the wrong place: only `*.domain` means all names below".into());
    }
    if !name.is_ascii() {
        return Err("has letters beyond ASCII; write the form that begins with `xn--`".into());
    }
    // A last label of digits is an address to many programs, whatever its form.
    let last = name.rsplit('.').next().unwrap_or_default();
    if name.len() > 253
        || !name.split('.').all(label)
        || last.bytes().all(|byte| byte.is_ascii_digit())
    {
        return Err("is not a valid host name".into());
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn targets() {
        let name = |host: &str, port| Target { host: Host::Name(host.into()), port };
        assert_eq!(Target::parse("deb.Example.org"), Ok(name("deb.example.org", None)));
        assert_eq!(Target::parse("pypi.example:443"), Ok(name("pypi.example", Some(443))));
        assert_eq!(Target::parse("localhost."), Ok(name("localhost", None)));
        let below = Target { host: Host::Below("crates.example".into()), port: Some(443) };
        assert_eq!(Target::parse("*.crates.example:443"), Ok(below));
        for bad in [
            "",
            "*",
            "*.",
            "a..b",
            "-a.org",
            "a-.org",
            "a b",
            "a_b.org",
            "*.*.org",
            "a.*.org",
            "é.org",
            "a:0",
            "a:70000",
            "a:",
            "a:+80",
            "a:80:80",
            "http://a.org",
            "a.org/x",
            "10.0.0.1",
            "::1",
            "[::1]",
            "10.0.0.1:80",
            "1.2.3",
            "0x7f.1",
            "a\n",
        ] {
            assert!(Target::parse(bad).is_err(), "{bad:?}");
        }
        assert!(Target::parse(&"a".repeat(64)).is_err());
        assert!(Target::parse(&"a.".repeat(128)).is_err());
    }

    #[test]
    fn policies_as_words() {
        let allow = vec![Target::parse("*.b.org:443").unwrap(), Target::parse("c.org").unwrap()];
        let deny = vec![Target::parse("x.b.org").unwrap()];
        let network = Network::Allow { allow, deny, dns: Dns::Pinned };
        assert_eq!(network.to_string(), "allow:*.b.org:443,c.org deny:x.b.org");
        assert_eq!(Network::default().to_string(), "none");
    }

    #[test]
    fn policies_on_the_command_line() {
        for good in ["none", "local", "full", "allow:a.org", "allow:*.b.org:443,c.org deny:x.b.org"]
        {
            assert_eq!(good.parse::<Network>().unwrap().to_string(), good);
        }
        for (bad, problem) in [
            ("", "the network policy is empty"),
            ("ful", "there is no network policy \"ful\""),
            ("local full", "\"full\" after a policy"),
            ("allow:", "`allow:` has no target"),
            ("allow:a.org,", "\"\" in `allow:` is not a valid host name"),
            ("allow:a.org b.org", "\"b.org\" after a policy"),
            (
                "allow:a.org:0",
                "\"a.org:0\" in `allow:` has no valid port: it must be a number from 1 to 65535",
            ),
            (
                "allow:a.org:70000",
                "\"a.org:70000\" in `allow:` has no valid port: it must be a number from 1 to 65535",
            ),
            (
                "allow:10.0.0.1",
                "\"10.0.0.1\" in `allow:` is an address; only names can be allowed or denied",
            ),
        ] {
            assert_eq!(bad.parse::<Network>().unwrap_err().to_string(), problem, "{bad}");
        }
        let many = |n| format!("allow:{}", vec!["a.org"; n].join(","));
        assert!(many(MAX_TARGETS).parse::<Network>().is_ok());
        assert!(many(MAX_TARGETS + 1).parse::<Network>().is_err());
    }

    proptest! {
        #[test]
        fn any_words_are_a_policy_that_is_written_the_same_or_an_error(
            text in "(none|local|full|allow:[a-z*.:0-9,]{0,20})( deny:[a-z.,]{0,9})?|\\PC{0,40}",
        ) {
            if let Ok(network) = text.parse::<Network>() {
                prop_assert_eq!(network.to_string().parse::<Network>(), Ok(network));
            }
        }

        #[test]
        fn what_is_read_is_written_the_same(text in "(\\*\\.)?[a-z0-9.-]{1,20}(:[0-9]{1,6})?|\\PC{0,20}") {
            if let Ok(target) = Target::parse(&text) {
                prop_assert_eq!(Target::parse(&target.to_string()), Ok(target));
            }
        }
    }
}
