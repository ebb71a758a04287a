//! What each policy opens, as one table: for tests, with guests of any kind, and for people.

use std::fmt::Write as _;

use fireclaw_net::Card;

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
pub const ROWS: [(&str, &str, [Way; 3]); 19] = [
    ("service", "a named service of the host", [O, R, O]),
    ("host", "another service of the host, by any of its addresses", [R, R, R]),
    ("other", "another machine", [D, D, D]),
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
    ("metadata", "metadata of a cloud, 169.254.169.254", [R, R, R]),
    ("ipv6", "IPv6", [D, D, D]),
    ("spoof", "with another sender", [D, D, D]),
];

/// The arguments of the probe for an attempt.
pub fn arguments(probe: &str, card: &Card, other: &Card, word: &str) -> [String; 5] {
    let word = format!("{word}-{probe}");
    [
        card.gateway.to_string(),
        other.address.to_string(),
        card.address.to_string(),
        word,
        probe.into(),
    ]
}

/// Tries everything under one policy, the number of its column, and says what ended another
/// way than it should. `run` runs the probe in the guest with arguments and returns what it
/// printed; `word` is one that no other call has.
pub fn check(
    policy: usize,
    card: &Card,
    other: &Card,
    word: &str,
    internet: &Internet,
    mut run: impl FnMut(&[String; 5]) -> String,
) -> Vec<String> {
    let mut wrong = Vec::new();
    for (probe, what, ways) in ROWS {
        let arguments = arguments(probe, card, other, word);
        let said = run(&arguments);
        let way = match said.lines().last().unwrap_or_default() {
            "sent" if internet.saw(&arguments[3]) => "open",
            "sent" => "dropped",
            way => way,
        };
        let should = ways.get(policy).map_or("", |way| way.word());
        if way != should {
            wrong.push(format!("{probe} ({what}): {way} instead of {should}: {said}"));
        }
    }
    wrong
}

/// The table, in Markdown.
pub fn table() -> String {
    let mut text = String::from("| from a machine | `local` | `allow:` | `full` |\n");
    text.push_str("| --- | --- | --- | --- |\n");
    for (_, what, ways) in ROWS {
        let [a, b, c] = ways.map(Way::word);
        let _ = writeln!(text, "| {what} | {a} | {b} | {c} |");
    }
    text
}
