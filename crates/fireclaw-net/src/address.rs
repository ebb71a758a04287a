//! Addresses and the names that follow from them.

use std::fmt;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

/// The address of a network interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The one that belongs to an IPv4 address: locally administered, so of no maker.
    pub fn of(address: Ipv4Addr) -> Self {
        let [a, b, c, d] = address.octets();
        Self([0x02, 0xfc, a, b, c, d])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// What the names of all our taps begin with.
pub(crate) const TAP_PREFIX: &str = "fc-";

/// The name of the tap of the VM that has this address.
pub(crate) fn tap_name(address: Ipv4Addr) -> String {
    format!("{TAP_PREFIX}{:08x}", u32::from(address))
}

/// The address to which the name of a tap belongs, if it is one of ours.
pub(crate) fn of_tap(name: &str) -> Option<Ipv4Addr> {
    let digits = name.strip_prefix(TAP_PREFIX).filter(|digits| digits.len() == 8)?;
    let address = u32::from_str_radix(digits, 16).ok().map(Ipv4Addr::from)?;
    (tap_name(address) == name).then_some(address)
}

/// What is closed to VMs unless the host's configuration names it: IPv4's special
/// purpose addresses (RFC 6890) but those for documentation, which reach nobody.
pub(crate) const CLOSED: [([u8; 4], u8); 10] = [
    ([0, 0, 0, 0], 8),
    ([10, 0, 0, 0], 8),
    ([100, 64, 0, 0], 10),
    ([127, 0, 0, 0], 8),
    ([169, 254, 0, 0], 16),
    ([172, 16, 0, 0], 12),
    ([192, 0, 0, 0], 24),
    ([192, 168, 0, 0], 16),
    ([198, 18, 0, 0], 15),
    ([224, 0, 0, 0], 3),
];

/// Where instances of clouds read who they are, often with credentials: most clouds, Azure's
/// second one, and Alibaba's. No range opens them.
pub(crate) const METADATA: [Ipv4Addr; 3] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(100, 100, 100, 200),
];

/// Whether an address is of a closed network.
pub(crate) fn is_closed(address: Ipv4Addr) -> bool {
    CLOSED
        .iter()
        .any(|(network, prefix)| Ipv4Net::new_assert((*network).into(), *prefix).contains(&address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_mac_is_unicast_and_of_no_maker() {
        let mac = Mac::of(Ipv4Addr::new(172, 16, 0, 5));
        assert_eq!(mac.to_string(), "02:fc:ac:10:00:05");
        assert_eq!(mac.0[0] & 0b11, 0b10);
    }

    #[test]
    fn what_is_closed() {
        for closed in [
            "127.0.0.1",
            "10.1.2.3",
            "172.31.255.255",
            "192.168.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "0.0.0.0",
        ] {
            assert!(is_closed(closed.parse().unwrap()), "{closed}");
        }
        for open in ["8.8.8.8", "172.32.0.1", "100.128.0.1", "203.0.113.7", "223.255.255.255"] {
            assert!(!is_closed(open.parse().unwrap()), "{open}");
        }
    }

    proptest! {
        #[test]
        fn a_tap_has_the_name_of_one_address(bits: u32, other in "fc-[0-9a-fA-F+]{8}|\\PC{0,12}") {
            let address = Ipv4Addr::from(bits);
            let name = tap_name(address);
            prop_assert!(name.len() <= 15);
            prop_assert_eq!(of_tap(&name), Some(address));
            if let Some(address) = of_tap(&other) {
                prop_assert_eq!(tap_name(address), other);
            }
        }
    }
}
