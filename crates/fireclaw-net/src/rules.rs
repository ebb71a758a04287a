//! The packet rules: what a VM's packets may do, as nft has it.
//!
//! One table of our own, `inet fireclaw`, for all VMs of a bridge, with two chains for
//! each, found by its address; and one table for each tap, `netdev fc-…`, which lets only
//! packets through that have the interface's own addresses. A verdict does not depend on the
//! connection but on the packet, so that a change of policy holds for what is open too.

mod build;
mod read;
#[cfg(test)]
mod tests;

use std::net::Ipv4Addr;

use fireclaw_policy::{HostConfig, Network};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::address::{CLOSED, METADATA, Mac, tap_name};
use crate::mode::NetworkMode;
use build::{
    accept, add, chain, commented, compare, element, field, flush, gone, hook, is, meta, prefix,
    refusal, rule, table, to, to_any,
};
pub use read::Refused;
pub(crate) use read::{all, counts, found, has_base, read_counts};

/// The table of all VMs.
pub(crate) const TABLE: &str = "fireclaw";

/// Most connections of one VM that the kernel keeps in mind: they all share one table
/// with those of the host (`nf_conntrack_max`, 262144 where there is memory enough).
const CONNECTIONS: u32 = 4096;

/// Most destinations that are told apart in the counts of what was refused.
const DESTINATIONS: u32 = 128;

/// What the rules have to know of a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// Everything goes through the proxy, which decides: `local` and `allow`.
    Proxied,
    /// Packets leave as they are: `full`. Out of a namespace connections do not: there the
    /// way out is a program that copies packets, and the proxy is much faster.
    Open,
}

impl Kind {
    /// That of a policy. A VM that has an interface and may do nothing has a proxy that
    /// refuses.
    pub fn of(policy: &Network) -> Self {
        match policy {
            Network::None | Network::Local | Network::Allow { .. } => Self::Proxied,
            Network::Full => Self::Open,
        }
    }
}

/// Where the gateway of a VM listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ports {
    /// For connections.
    pub proxy: u16,
    /// For the resolver, over UDP.
    pub dns: u16,
    /// For the resolver, over TCP.
    pub dns_tcp: u16,
}

/// A VM, as the rules see it.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    pub address: Ipv4Addr,
    pub ports: Ports,
    pub kind: Kind,
    pub mode: NetworkMode,
    /// Addresses of the host that its own namespace does not know of.
    pub host: Vec<Ipv4Net>,
}

/// The chains of a VM, and the one that refuses.
struct Names {
    bound: String,
    nat: String,
    filter: String,
    refuse: String,
    refused: String,
}

impl Names {
    fn of(address: Ipv4Addr) -> Self {
        let tap = tap_name(address);
        Self {
            bound: format!("{tap}-bound"),
            nat: format!("{tap}-nat"),
            refuse: format!("{tap}-refuse"),
            refused: format!("{tap}-refused"),
            filter: tap,
        }
    }
}

/// Where packets were refused to. What packets change needs a timeout: the kernel then takes
/// a kind of set that can be changed by them, and nft has no other word for it in JSON.
fn refused_set(names: &Names) -> Value {
    json!({ "family": "inet", "table": TABLE, "name": names.refused,
        "type": ["ipv4_addr", "inet_proto", "inet_service"], "flags": ["timeout"],
        "timeout": 24 * 3600, "size": DESTINATIONS })
}

/// What all VMs of a bridge share. May be set again at any time.
fn base(config: &HostConfig) -> Vec<Value> {
    let bridge = &config.bridge[..];
    let from_bridge = || is(meta("iifname"), bridge);
    let map = |name: &str| {
        let map = json!({ "family": "inet", "table": TABLE, "name": name, "type": "ipv4_addr",
            "map": "verdict" });
        add("map", map)
    };
    let dispatch =
        |name: &str| json!({ "vmap": { "key": field("ip", "saddr"), "data": format!("@{name}") } });
    // As a set: without, nft takes "not" of two states for "not both".
    let states = json!({ "set": ["established", "related"] });
    vec![
        add("table", table()),
        map("bound"),
        map("nat"),
        map("filter"),
        // Before: what refuses there would answer with the translated address.
        hook("bounds", "filter", "prerouting", -150),
        hook("redirect", "nat", "prerouting", -100),
        // After the addresses were translated (at -100).
        hook("guard", "filter", "prerouting", -50),
        hook("inward", "filter", "forward", 0),
        hook("leave", "nat", "postrouting", 100),
        flush("bounds"),
        flush("redirect"),
        flush("guard"),
        flush("inward"),
        flush("leave"),
        rule("bounds", vec![from_bridge(), dispatch("bound")]),
        rule("redirect", vec![from_bridge(), dispatch("nat")]),
        rule("guard", vec![from_bridge(), dispatch("filter")]),
        // Whoever has no chain has no business here.
        rule("guard", vec![from_bridge(), json!({ "drop": null })]),
        rule(
            "inward",
            vec![
                is(meta("oifname"), bridge),
                compare("!=", json!({ "ct": { "key": "state" } }), states),
                json!({ "drop": null }),
            ],
        ),
        rule(
            "leave",
            vec![
                is(field("ip", "saddr"), prefix(config.subnet)),
                compare("!=", meta("oifname"), bridge.into()),
                json!({ "masquerade": null }),
            ],
        ),
    ]
}

/// Everything for a VM whose tap is there.
pub(crate) fn set_up(config: &HostConfig, guest: &Endpoint) -> Vec<Value> {
    set_up_on(config, guest, &tap_name(guest.address))
}

/// Something of each kind, to be checked where no tap is.
pub(crate) fn sample(config: &HostConfig) -> Vec<Value> {
    let ports = Ports { proxy: 1, dns: 1, dns_tcp: 1 };
    let address = config.gateway();
    set_up_on(
        config,
        &Endpoint { address, ports, kind: Kind::Open, mode: NetworkMode::Host, host: Vec::new() },
        "lo",
    )
}

fn set_up_on(config: &HostConfig, guest: &Endpoint, device: &str) -> Vec<Value> {
    let names = Names::of(guest.address);
    let mut commands = base(config);
    commands.extend([
        add("chain", chain(&names.bound)),
        add("chain", chain(&names.nat)),
        add("chain", chain(&names.refuse)),
        add("chain", chain(&names.filter)),
        add("set", refused_set(&names)),
        json!({ "add": element("bound", guest.address, &names.bound) }),
        json!({ "add": element("nat", guest.address, &names.nat) }),
        json!({ "add": element("filter", guest.address, &names.filter) }),
    ]);
    commands.extend(bounds(&names));
    commands.extend(policy(config, guest));
    commands.extend(bind(guest.address, device));
    commands
}

/// The rules of a VM, instead of those it had.
pub(crate) fn policy(config: &HostConfig, guest: &Endpoint) -> Vec<Value> {
    let names = Names::of(guest.address);
    let mut commands = vec![flush(&names.nat), flush(&names.filter), flush(&names.refuse)];
    commands.extend(redirects(config, guest, &names));
    commands.extend(filter(config, guest, &names));
    commands.extend(refuse(&names));
    commands
}

/// What holds under each policy, for connections.
fn bounds(names: &Names) -> Vec<Value> {
    let state = |state: &str| compare("in", json!({ "ct": { "key": "state" } }), state.into());
    let too_many = json!({ "ct count": { "val": CONNECTIONS, "inv": true } });
    let drop = json!({ "drop": null });
    let invalid = vec![state("invalid"), json!({ "counter": null }), drop];
    vec![
        // It would leave the host with the VM's address: only connections are translated.
        commented(&names.bound, "of no connection", invalid),
        refusal(&names.bound, &names.refuse, "too many connections", vec![state("new"), too_many]),
    ]
}

/// Leads to a port of the gateway; "redirect" would lead to the bridge's first address, and
/// a bridge of somebody else has others.
fn redirect(config: &HostConfig, port: u16) -> Value {
    json!({ "dnat": { "family": "ip", "addr": config.gateway().to_string(), "port": port } })
}

fn redirects(config: &HostConfig, guest: &Endpoint, names: &Names) -> Vec<Value> {
    let gateway = config.gateway();
    let nat = &names.nat;
    let tcp = || is(meta("l4proto"), "tcp");
    let proxied = match (guest.kind, guest.mode) {
        // The services of the host only.
        (Kind::Open, NetworkMode::Host) => {
            vec![to(gateway), tcp(), redirect(config, guest.ports.proxy)]
        }
        _ => vec![tcp(), redirect(config, guest.ports.proxy)],
    };
    vec![
        rule(
            nat,
            vec![to(gateway), is(field("udp", "dport"), 53), redirect(config, guest.ports.dns)],
        ),
        rule(
            nat,
            vec![to(gateway), is(field("tcp", "dport"), 53), redirect(config, guest.ports.dns_tcp)],
        ),
        rule(nat, proxied),
    ]
}

fn filter(config: &HostConfig, guest: &Endpoint, names: &Names) -> Vec<Value> {
    let gateway = config.gateway();
    let Ports { proxy, dns, dns_tcp } = guest.ports;
    let no = |reason: &str, matches| refusal(&names.filter, &names.refuse, reason, matches);
    let yes = |mut matches: Vec<Value>| {
        matches.push(accept());
        rule(&names.filter, matches)
    };
    let tcp_ports = json!({ "set": [proxy, dns_tcp] });
    let mut rules = vec![
        yes(vec![to(gateway), is(field("tcp", "dport"), tcp_ports)]),
        yes(vec![to(gateway), is(field("udp", "dport"), dns)]),
        yes(vec![to(gateway), is(field("icmp", "type"), "echo-request")]),
        no("metadata", vec![to_any(METADATA.map(Ipv4Net::from))]),
    ];
    if guest.kind == Kind::Proxied {
        rules.extend([
            no("dns elsewhere", vec![is(field("udp", "dport"), 53)]),
            no("udp", vec![is(meta("l4proto"), "udp")]),
            no("icmp", vec![is(meta("l4proto"), "icmp")]),
            no("not by the proxy", vec![]),
        ]);
        return rules;
    }
    // Of the host or of everybody on a wire: whatever else is open.
    let local = json!({ "set": ["local", "broadcast", "anycast", "multicast"] });
    let kind = json!({ "fib": { "flags": ["daddr"], "result": "type" } });
    rules.push(no("the host", vec![is(kind, local)]));
    if !guest.host.is_empty() {
        rules.push(no("the host", vec![to_any(guest.host.iter().copied())]));
    }
    rules.push(no("another VM", vec![is(field("ip", "daddr"), prefix(config.subnet))]));
    let transports = match guest.mode {
        NetworkMode::Host => json!({ "set": ["tcp", "udp"] }),
        // Connections are the proxy's.
        NetworkMode::Namespace => "udp".into(),
    };
    let transports = is(meta("l4proto"), transports);
    // No other: an error would be about somebody's connection, maybe another VM's.
    let echo = is(field("icmp", "type"), "echo-request");
    if !config.ranges.is_empty() {
        let ranges = to_any(config.ranges.iter().map(|range| range.network()));
        rules.push(yes(vec![ranges.clone(), transports.clone()]));
        rules.push(yes(vec![ranges, echo.clone()]));
    }
    let closed = CLOSED.map(|(address, prefix)| Ipv4Net::new_assert(address.into(), prefix));
    rules.extend([
        no("a private address", vec![to_any(closed)]),
        yes(vec![transports]),
        yes(vec![echo]),
        no("another protocol", vec![]),
    ]);
    rules
}

/// Notes where to, then says no at once.
fn refuse(names: &Names) -> Vec<Value> {
    let destination = json!({ "concat": [field("ip", "daddr"), meta("l4proto"),
        { "payload": { "protocol": "th", "field": "dport" } }] });
    let transport = is(meta("l4proto"), json!({ "set": ["tcp", "udp"] }));
    let note = json!({ "set": { "op": "update", "elem": destination,
        "set": format!("@{}", names.refused), "stmt": [{ "counter": null }] } });
    let tcp = is(meta("l4proto"), "tcp");
    vec![
        rule(&names.refuse, vec![transport, note]),
        rule(&names.refuse, vec![tcp, json!({ "reject": { "type": "tcp reset" } })]),
        rule(
            &names.refuse,
            vec![json!({ "reject": { "type": "icmpx", "expr": "admin-prohibited" } })],
        ),
    ]
}

/// Binds the addresses to the tap: ARP and IPv4 with them pass, and nothing else.
fn bind(address: Ipv4Addr, device: &str) -> Vec<Value> {
    let tap = tap_name(address);
    let (mac, address) = (Mac::of(address).to_string(), address.to_string());
    let rule = |reason: &str, mut expressions: Vec<Value>, verdict: &str| {
        expressions.extend([json!({ "counter": null }), json!({ verdict: null })]);
        add(
            "rule",
            json!({ "family": "netdev", "table": tap, "chain": "ingress", "expr": expressions,
                "comment": reason }),
        )
    };
    let kind = || field("ether", "type");
    vec![
        add("table", json!({ "family": "netdev", "name": tap })),
        add(
            "chain",
            json!({ "family": "netdev", "table": tap, "name": "ingress", "type": "filter",
                "hook": "ingress", "dev": device, "prio": 0, "policy": "drop" }),
        ),
        rule(
            "another sender (MAC)",
            vec![compare("!=", field("ether", "saddr"), mac.clone().into())],
            "drop",
        ),
        rule("ipv6", vec![is(kind(), "ip6")], "drop"),
        // Source routes lead elsewhere than what is checked; nobody honest sends any.
        rule("ip options", vec![compare("!=", field("ip", "hdrlength"), 5.into())], "drop"),
        // The host puts fragments together before it checks them, in memory that is everybody's
        // (ipfrag_high_thresh).
        rule(
            "fragment",
            vec![compare("!=", json!({ "&": [field("ip", "frag-off"), 0x3fff] }), 0.into())],
            "drop",
        ),
        rule(
            "passed",
            vec![
                is(kind(), "arp"),
                is(field("arp", "saddr ether"), mac),
                is(field("arp", "saddr ip"), &address[..]),
            ],
            "accept",
        ),
        rule("passed", vec![is(kind(), "ip"), is(field("ip", "saddr"), address)], "accept"),
        rule("another sender", vec![], "drop"),
    ]
}

/// Removes a VM's rules, in two parts: what is in the table of all, and the tap's own.
/// They were set all at once, so each part is there as a whole or not at all.
pub(crate) fn tear_down(address: Ipv4Addr) -> [Vec<Value>; 2] {
    let names = Names::of(address);
    let delete = |what: &str, object: Value| json!({ "delete": { what: object } });
    let chains = [("bound", &names.bound), ("nat", &names.nat), ("filter", &names.filter)];
    let mut shared = Vec::new();
    shared.extend(chains.map(|(map, chain)| json!({ "delete": element(map, address, chain) })));
    let chains = chains.map(|(_, chain)| chain).into_iter().chain([&names.refuse]);
    shared.extend(chains.clone().map(|name| flush(name)));
    shared.extend(chains.map(|name| delete("chain", chain(name))));
    shared.push(delete("set", chain(&names.refused)));
    let own = json!({ "family": "netdev", "name": tap_name(address) });
    [shared, vec![delete("table", own)]]
}

/// Removes what all VMs share, and with it what is in there of each.
pub(crate) fn remove_base() -> Vec<Value> {
    gone(table())
}

/// Removes the rules of the last VM, and what all share.
pub(crate) fn tear_down_last(address: Ipv4Addr) -> Vec<Value> {
    [gone(table()), gone(json!({ "family": "netdev", "name": tap_name(address) }))].concat()
}
