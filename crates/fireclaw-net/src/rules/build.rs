//! The words that rules are made of, in nft's JSON (libnftables-json(5)).

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde_json::{Value, json};

use super::TABLE;

pub(super) fn add(what: &str, object: Value) -> Value {
    json!({ "add": { what: object } })
}

pub(super) fn table() -> Value {
    json!({ "family": "inet", "name": TABLE })
}

pub(super) fn chain(name: &str) -> Value {
    json!({ "family": "inet", "table": TABLE, "name": name })
}

pub(super) fn flush(name: &str) -> Value {
    json!({ "flush": { "chain": chain(name) } })
}

pub(super) fn hook(name: &str, kind: &str, hook: &str, priority: i32) -> Value {
    add(
        "chain",
        json!({ "family": "inet", "table": TABLE, "name": name, "type": kind, "hook": hook,
            "prio": priority, "policy": "accept" }),
    )
}

pub(super) fn rule(chain: &str, expressions: Vec<Value>) -> Value {
    add("rule", json!({ "family": "inet", "table": TABLE, "chain": chain, "expr": expressions }))
}

/// A rule that counts, under a name, and refuses.
pub(super) fn refusal(chain: &str, refuse: &str, reason: &str, mut matches: Vec<Value>) -> Value {
    matches.push(json!({ "counter": null }));
    matches.push(json!({ "goto": { "target": refuse } }));
    commented(chain, reason, matches)
}

pub(super) fn commented(chain: &str, comment: &str, expressions: Vec<Value>) -> Value {
    add(
        "rule",
        json!({ "family": "inet", "table": TABLE, "chain": chain, "expr": expressions,
            "comment": comment }),
    )
}

pub(super) fn compare(op: &str, left: Value, right: Value) -> Value {
    json!({ "match": { "op": op, "left": left, "right": right } })
}

pub(super) fn is(left: Value, right: impl Into<Value>) -> Value {
    compare("==", left, right.into())
}

pub(super) fn meta(key: &str) -> Value {
    json!({ "meta": { "key": key } })
}

pub(super) fn field(protocol: &str, field: &str) -> Value {
    json!({ "payload": { "protocol": protocol, "field": field } })
}

pub(super) fn to(address: Ipv4Addr) -> Value {
    is(field("ip", "daddr"), address.to_string())
}

pub(super) fn prefix(network: Ipv4Net) -> Value {
    json!({ "prefix": { "addr": network.network().to_string(), "len": network.prefix_len() } })
}

pub(super) fn to_any(networks: impl IntoIterator<Item = Ipv4Net>) -> Value {
    let set: Vec<Value> = networks.into_iter().map(prefix).collect();
    is(field("ip", "daddr"), json!({ "set": set }))
}

pub(super) fn accept() -> Value {
    json!({ "accept": null })
}

/// Removes a table, whether it is there or not.
pub(super) fn gone(table: Value) -> Vec<Value> {
    vec![add("table", table.clone()), json!({ "delete": { "table": table } })]
}

/// An element of a map from a VM's address to its chain.
pub(super) fn element(map: &str, address: Ipv4Addr, chain: &str) -> Value {
    json!({ "element": { "family": "inet", "table": TABLE, "name": map,
        "elem": [[address.to_string(), { "jump": { "target": chain } }]] } })
}
