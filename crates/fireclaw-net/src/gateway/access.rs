//! What the parts of a gateway share, and what it decides.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use fireclaw_policy::{HOST_NAME, HostConfig, Network, Rules};
use tokio::sync::watch;

use super::denials::Denials;
use super::pins::Pins;
use crate::address::{METADATA, is_closed};
use crate::netlink::Netlink;

/// A policy in force.
#[derive(Debug)]
pub(super) struct Policy {
    pub network: Network,
    pub rules: Rules,
}

/// What the parts of a gateway share.
pub(super) struct Access {
    pub config: HostConfig,
    policy: watch::Sender<Arc<Policy>>,
    pins: Mutex<Pins>,
    denials: Mutex<Denials>,
}

/// A connection that may be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Permit {
    /// Where the guest wanted to.
    pub wanted: SocketAddrV4,
    /// Where that is, as the host sees it.
    pub to: SocketAddr,
    /// The names of which one has to be spoken of, where one is; none needs to if empty.
    pub names: Vec<String>,
}

/// Why not.
pub(super) type Reason = &'static str;

/// A program that keeps an address for longer than its answer was valid has to ask again.
const EXPIRED: Reason = "the answer that had this address has expired; ask for the name again";

/// A lock that no panic spoils: what it guards is whole after each statement.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Access {
    pub fn new(config: HostConfig, network: Network) -> Self {
        let policy = Policy { rules: Rules::of(&network), network };
        Self {
            config,
            policy: watch::Sender::new(Arc::new(policy)),
            pins: Mutex::default(),
            denials: Mutex::default(),
        }
    }

    pub fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy.borrow())
    }

    pub fn set_policy(&self, network: Network) {
        let policy = Policy { rules: Rules::of(&network), network };
        self.policy.send_replace(Arc::new(policy));
    }

    /// Changes as the policy does.
    pub fn changes(&self) -> watch::Receiver<Arc<Policy>> {
        self.policy.subscribe()
    }

    pub fn pins(&self) -> MutexGuard<'_, Pins> {
        locked(&self.pins)
    }

    pub fn denials(&self) -> MutexGuard<'_, Denials> {
        locked(&self.denials)
    }

    pub fn deny(&self, what: &str, port: Option<u16>, reason: Reason) {
        self.denials().add(what, port, reason);
    }

    /// Whether the name of the host is of use.
    pub fn has_services(&self) -> bool {
        self.config.services.iter().any(|service| self.service_open(service.address.port()))
    }

    fn service_open(&self, port: u16) -> bool {
        let policy = self.policy();
        match policy.network {
            Network::None => false,
            Network::Local | Network::Full => true,
            Network::Allow { .. } => policy.rules.allows(HOST_NAME, port),
        }
    }

    /// Whether an address may be reached at all: what is the host's own, another VM's
    /// or private is closed, but for the ranges that the host's owner named.
    pub fn open_address(&self, address: Ipv4Addr) -> Result<(), Reason> {
        if METADATA.contains(&address) {
            return Err("metadata");
        }
        if self.config.subnet.contains(&address) {
            return Err("another VM");
        }
        // Whatever cannot be looked up is not open.
        let elsewhere = Netlink::open().and_then(|netlink| netlink.is_elsewhere(address));
        if !elsewhere.unwrap_or(false) {
            return Err("the host");
        }
        if is_closed(address) && !self.config.in_ranges(address) {
            return Err("a private address");
        }
        Ok(())
    }

    /// Whether a connection may be made.
    pub fn decide(&self, wanted: SocketAddrV4) -> Result<Permit, Reason> {
        let (address, port) = (*wanted.ip(), wanted.port());
        let permit = |to, names| Ok(Permit { wanted, to, names });
        if address == self.config.gateway() {
            return match self.config.service(port) {
                Some(service) if self.service_open(port) => permit(service.address, Vec::new()),
                Some(_) => Err("a service that is not allowed"),
                None => Err("no named service"),
            };
        }
        self.open_address(address)?;
        let policy = self.policy();
        match &policy.network {
            Network::None => Err("nothing is allowed"),
            Network::Full => permit(wanted.into(), Vec::new()),
            Network::Local if self.config.in_ranges(address) => permit(wanted.into(), Vec::new()),
            Network::Local => Err("not in a named range"),
            Network::Allow { .. } => {
                let now = Instant::now();
                let mut names = self.pins().names(address, now);
                if names.is_empty() {
                    return Err(match self.pins().expired(address, now) {
                        true => EXPIRED,
                        false => "no allowed name has this address",
                    });
                }
                names.retain(|name| policy.rules.allows(name, port));
                if names.is_empty() {
                    return Err("the port is not allowed");
                }
                permit(wanted.into(), names)
            }
        }
    }

    /// Whether an open connection may go on after a change of policy. Its names count for as
    /// long as it lasts, also when the answer that had them has ended.
    pub fn still(&self, permit: &Permit) -> bool {
        let policy = self.policy();
        let port = permit.wanted.port();
        match (&policy.network, permit.names.is_empty()) {
            (Network::Allow { .. }, false) => {
                permit.names.iter().any(|name| policy.rules.allows(name, port))
            }
            // Nobody has read whom it speaks to.
            (Network::Allow { .. }, true) if *permit.wanted.ip() != self.config.gateway() => false,
            _ => self.decide(permit.wanted).is_ok_and(|now| now.to == permit.to),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn shared(policy: &str) -> Access {
        let config = HostConfig::parse(
            "ranges = [\"192.168.77.0/24\"]\n[[service]]\nname = \"a\"\naddress = \"127.0.0.1:11434\"",
        );
        Access::new(config.unwrap(), policy.parse().unwrap())
    }

    fn at(text: &str) -> SocketAddrV4 {
        text.parse().unwrap()
    }

    #[test]
    fn allowed_names_open_their_addresses_and_nothing_else() {
        let shared = shared("allow:a.org:443,b.org deny:b.org:25");
        let (now, life) = (Instant::now(), Duration::from_secs(60));
        assert!(shared.decide(at("203.0.113.1:443")).is_err());
        shared.pins().pin("a.org", Ipv4Addr::new(203, 0, 113, 1), life, now);
        shared.pins().pin("b.org", Ipv4Addr::new(203, 0, 113, 1), life, now);
        let mut names = shared.decide(at("203.0.113.1:443")).unwrap().names;
        names.sort();
        assert_eq!(names, ["a.org", "b.org"]);
        assert_eq!(shared.decide(at("203.0.113.1:80")).unwrap().names, ["b.org"]);
        assert_eq!(shared.decide(at("203.0.113.1:25")), Err("the port is not allowed"));
        assert!(shared.decide(at("203.0.113.2:443")).is_err());
        assert_eq!(shared.decide(at("172.16.0.1:11434")), Err("a service that is not allowed"));
        // Not even by an answer that says so.
        for (closed, reason) in [
            ("10.0.0.1", "a private address"),
            ("127.0.0.1", "the host"),
            ("169.254.169.254", "metadata"),
            ("168.63.129.16", "metadata"),
            ("100.100.100.200", "metadata"),
            ("172.16.0.9", "another VM"),
        ] {
            let address: Ipv4Addr = closed.parse().unwrap();
            shared.pins().pin("a.org", address, life, now);
            assert_eq!(shared.decide(SocketAddrV4::new(address, 443)), Err(reason));
        }
    }

    #[test]
    fn an_expired_answer_is_told_as_expired() {
        let shared = shared("allow:a.org");
        let wanted = at("203.0.113.1:443");
        let long_ago = Instant::now() - Duration::from_secs(100);
        shared.pins().pin("a.org", *wanted.ip(), Duration::from_secs(5), long_ago);
        assert_eq!(shared.decide(wanted), Err(EXPIRED));
        assert_eq!(shared.decide(at("203.0.113.2:443")), Err("no allowed name has this address"));
        shared.pins().pin("a.org", *wanted.ip(), Duration::from_secs(5), Instant::now());
        assert!(shared.decide(wanted).is_ok());
    }

    #[test]
    fn services_and_ranges() {
        for (policy, service, range, internet) in [
            ("none", false, false, false),
            ("local", true, true, false),
            ("full", true, true, true),
            ("allow:a.org", false, false, false),
            ("allow:host.fireclaw.internal:11434", true, false, false),
        ] {
            let shared = shared(policy);
            let open = |address| shared.decide(at(address)).is_ok();
            assert_eq!(open("172.16.0.1:11434"), service, "{policy}");
            assert_eq!(shared.has_services(), service, "{policy}");
            assert!(!open("172.16.0.1:22"), "{policy}");
            assert_eq!(open("192.168.77.3:80"), range, "{policy}");
            assert!(!open("192.168.78.3:80"), "{policy}");
            assert_eq!(open("203.0.113.1:80"), internet, "{policy}");
        }
    }

    #[test]
    fn a_change_of_policy_cuts_what_is_no_longer_allowed() {
        let shared = shared("allow:a.org,b.org");
        let address = Ipv4Addr::new(203, 0, 113, 1);
        shared.pins().pin("a.org", address, Duration::from_secs(60), Instant::now());
        let permit = shared.decide(at("203.0.113.1:80")).unwrap();
        assert!(shared.still(&permit));
        shared.set_policy("allow:b.org".parse().unwrap());
        assert!(!shared.still(&permit));
        shared.set_policy("allow:a.org:80".parse().unwrap());
        assert!(shared.still(&permit));
        shared.set_policy("local".parse().unwrap());
        assert!(!shared.still(&permit));
        // One that was not read may speak to anybody; a service is who it is.
        shared.set_policy("full".parse().unwrap());
        let permit = shared.decide(at("203.0.113.1:80")).unwrap();
        let service = shared.decide(at("172.16.0.1:11434")).unwrap();
        shared.set_policy("allow:a.org,host.fireclaw.internal".parse().unwrap());
        assert!(!shared.still(&permit) && shared.still(&service));
    }
}
