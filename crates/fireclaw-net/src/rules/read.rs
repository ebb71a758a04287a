//! What nft says of the rules that are there: what they counted, and whose they are.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::build::chain;
use super::{Names, TABLE};
use crate::address::{TAP_PREFIX, tap_name};

/// Whether a list of all rules has what all VMs share.
pub(crate) fn has_base(answer: &[Value]) -> bool {
    let shared = |table: &Value| table["family"] == "inet" && table["name"] == TABLE;
    answer.iter().any(|object| shared(&object["table"]))
}

/// Asks for all rules.
pub(crate) fn all() -> Vec<Value> {
    vec![json!({ "list": { "ruleset": null } })]
}

/// Asks for the counts of a VM, in several runs: nft lists one family at a time, and one
/// chain (1.0.6 mixes the sets of two up).
pub(crate) fn counts(address: Ipv4Addr) -> [Vec<Value>; 3] {
    let names = Names::of(address);
    let ingress = json!({ "family": "netdev", "table": tap_name(address), "name": "ingress" });
    [
        vec![json!({ "list": { "chain": chain(&names.bound) } })],
        vec![
            json!({ "list": { "chain": chain(&names.filter) } }),
            json!({ "list": { "set": chain(&names.refused) } }),
        ],
        vec![json!({ "list": { "chain": ingress } })],
    ]
}

/// Packets that the kernel refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Why, or where to: `udp 203.0.113.9:53`.
    pub what: String,
    /// How many.
    pub packets: u64,
}

/// Reads what [`counts`] asked for: what was refused at least once.
pub(crate) fn read_counts(answer: &[Value]) -> Vec<Refused> {
    let mut refused = Vec::new();
    for object in answer {
        let rule = &object["rule"];
        if let (Some(what), Some(expressions)) = (rule["comment"].as_str(), rule["expr"].as_array())
        {
            let packets = expressions.iter().find_map(|e| e["counter"]["packets"].as_u64());
            refused.extend(packets.map(|packets| Refused { what: what.into(), packets }));
        }
        for element in object["set"]["elem"].as_array().into_iter().flatten() {
            let element = &element["elem"];
            let packets = element["counter"]["packets"].as_u64().unwrap_or_default();
            let Some([address, protocol, port]) =
                element["val"]["concat"].as_array().map(Vec::as_slice)
            else {
                continue;
            };
            let text = |value: &Value| value.as_str().map_or(value.to_string(), str::to_owned);
            let what = format!("{} {}:{}", text(protocol), text(address), text(port));
            refused.push(Refused { what, packets });
        }
    }
    refused.retain(|refused| refused.packets > 0 && refused.what != "passed");
    refused
}

/// The VMs of which a list of all rules has something, by address.
pub(crate) fn found(answer: &[Value]) -> Vec<Ipv4Addr> {
    let mut addresses = Vec::new();
    for object in answer {
        let (table, chain) = (&object["table"], &object["chain"]);
        let name = if table["family"] == "netdev" {
            table["name"].as_str()
        } else if chain["family"] == "inet" && chain["table"] == TABLE {
            chain["name"].as_str()
        } else {
            None
        };
        let name = name.filter(|name| name.starts_with(TAP_PREFIX));
        let tap = name.and_then(|name| name.get(..TAP_PREFIX.len() + 8));
        addresses.extend(tap.and_then(crate::address::of_tap));
    }
    addresses.sort();
    addresses.dedup();
    addresses
}
