//! What each policy opens, as one table: for tests, with guests of any kind, and for people.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use crate::Internet;

/// The program that tries: for python3, as root of the guest.
pub const PROBE: &str = include_str!("probe.py");

/// The policies, in the order of the columns.
pub const POLICIES: [&str; 3] = [
    "local",
    "allow:allowed.example:80,allowed.example:443,*.allowed.example,elsewhere.example,\
     lan.example,host.example,metadata.example,loopback.example",
    "full",
];

/// How an attempt ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// It is answered.
    Open,
    /// It is refused at once.
    Refused,
    /// It comes to nothing, without a word.
    Dropped,
}

use Way::{Dropped as D, Open as O, Refused as R};

impl Way {
    fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Refused => "refused",
            Self::Dropped => "dropped",
        }
    }
}

/// Attempts: the probe's word, what it is, and how it ends under each policy.
pub const ROWS: [(&str, &str, [Way; 3]); 24] = [
    ("service", "a named service of the host", [O, R, O]),
    ("host", "another service of the host, by any of its addresses", [R, R, R]),
    ("other", "another VM", [D, D, D]),
    ("resolve", "the address of an allowed name", [R, O, O]),
    ("allowed", "an allowed name, HTTP or TLS", [R, O, O]),
    ("below", "a name below an allowed domain", [R, O, O]),
    ("banner", "an allowed name, other protocols", [R, O, O]),
    ("port", "an allowed name, another port", [R, R, O]),
    ("samehost", "another name at the same address, or none", [R, R, O]),
    ("rebind", "an allowed name with a private address, or the host's", [R, R, R]),
    ("raw", "an address on the internet", [R, R, O]),
    ("range", "an address in a named range", [O, R, O]),
    ("private", "another private address", [R, R, R]),
    ("udp", "UDP", [R, R, O]),
    ("icmp", "ICMP echo", [R, R, O]),
    ("dns", "another resolver", [R, R, O]),
    ("metadata", "metadata of clouds: 169.254.169.254, 168.63.129.16, 100.100.100.200", [R, R, R]),
    ("ipv6", "IPv6", [D, D, D]),
    ("spoof", "with another sender", [D, D, D]),
    ("protocols", "other protocols: GRE, ESP, SCTP, IPv6 in IPv4", [D, D, D]),
    ("options", "with IP options, as source routes", [D, D, D]),
    ("fragments", "in fragments", [D, D, D]),
    ("many", "broadcast and multicast", [D, D, D]),
    ("vlan", "with VLAN tags", [D, D, D]),
];

/// Who the probe is told about.
#[derive(Debug, Clone, Copy)]
pub struct Sides {
    /// The host's address on the bridge.
    pub gateway: Ipv4Addr,
    /// Another VM's address.
    pub other: Ipv4Addr,
    /// The guest's own address.
    pub own: Ipv4Addr,
}

/// The arguments of the program for these probes. `word` is one that no other call has.
pub fn arguments(sides: Sides, word: &str, probes: &[&str]) -> Vec<String> {
    let Sides { gateway, other, own } = sides;
    let mut all = [gateway, other, own].map(|address| address.to_string()).to_vec();
    all.push(word.into());
    all.extend(probes.iter().map(|&probe| probe.to_owned()));
    all
}

/// All probes.
pub fn probes() -> [&'static str; ROWS.len()] {
    ROWS.map(|(probe, ..)| probe)
}

/// How an attempt ended, by what the program said; nothing if it did not try.
pub fn way<'a>(said: &'a str, probe: &str) -> &'a str {
    let of_it = |line: &'a str| line.strip_prefix("= ")?.strip_prefix(probe)?.strip_prefix(' ');
    said.lines().find_map(of_it).unwrap_or_default()
}

/// What ended another way than it should under the policy with the number `policy`, by what
/// the program said of all probes.
pub fn wrong(policy: usize, said: &str, word: &str, internet: &Internet) -> Vec<String> {
    let mut wrong = Vec::new();
    for (probe, what, ways) in ROWS {
        let way = match way(said, probe) {
            _ if internet.wire.saw(&format!("{word}-{probe}")) => "open",
            "sent" => "dropped",
            way => way,
        };
        let should = ways.get(policy).map_or("", |way| way.word());
        if way != should {
            wrong.push(format!("{probe} ({what}): {way:?} instead of {should}"));
        }
    }
    if !wrong.is_empty() {
        wrong.push(format!("all that was said:\n{said}"));
    }
    wrong
}

/// The table, in Markdown.
pub fn table() -> String {
    let mut text = String::from("| from a VM | `local` | `allow:` | `full` |\n");
    text.push_str("| --- | --- | --- | --- |\n");
    for (_, what, ways) in ROWS {
        let [a, b, c] = ways.map(Way::word);
        let _ = writeln!(text, "| {what} | {a} | {b} | {c} |");
    }
    text
}
