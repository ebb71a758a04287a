//! The network policy of a template.

use std::collections::HashSet;

use fireclaw_config::values::{list, text, wrong_kind};
use fireclaw_config::{Fields, Format, Node, Notes, Value, quoted};
use fireclaw_policy::{Dns, Network, Target};

use crate::limits;

const POLICIES: [&str; 3] = ["none", "local", "full"];
const HINT: &str = "\"none\", \"local\", \"full\" or { allow = [\"example.org:443\"] }";

/// Reads a policy. JSON may have true for `full` and false for `none`.
pub(super) fn read(format: Format, node: Node, notes: &mut Notes<'_>) -> Option<Network> {
    match node.value {
        Value::Flag(flag) if format == Format::Json => {
            Some(if flag { Network::Full } else { Network::None })
        }
        Value::Text(ref word) => {
            let policy = match word.as_str() {
                "none" => Some(Network::None),
                "local" => Some(Network::Local),
                "full" => Some(Network::Full),
                _ => None,
            };
            if policy.is_none() {
                let message = format!("there is no network policy \"{}\"", quoted(word));
                let near = fireclaw_config::nearest(word, POLICIES);
                let hint = near.map_or(HINT.into(), |near| format!("did you mean \"{near}\"?"));
                notes.hinted(&node.span, message, hint);
            }
            policy
        }
        Value::Table(fields) => {
            let mut fields = Fields::new(format, fields);
            let allow = fields.take("allow", &[], notes);
            let deny = fields.take("deny", &[], notes);
            let dns = fields.take("dns", &[], notes);
            fields.finish("a network policy", &["allow", "deny", "dns"], notes);
            let deny = deny.and_then(|deny| targets("deny", &deny, notes)).unwrap_or_default();
            let dns = dns.and_then(|dns| resolver(&dns, notes)).unwrap_or_default();
            let Some(allow) = allow else {
                notes.hinted(&node.span, "this network policy has no `allow`", HINT);
                return None;
            };
            let before = notes.count();
            let allow_list = targets("allow", &allow, notes)?;
            if allow_list.is_empty() && notes.count() == before {
                notes.hinted(&allow.span, "`allow` is empty", "for no network, write \"none\"");
            }
            Some(Network::Allow { allow: allow_list, deny, dns })
        }
        _ => wrong_kind("network", "a policy", HINT, &node, notes),
    }
}

fn resolver(node: &Node, notes: &mut Notes<'_>) -> Option<Dns> {
    let word = text("dns", node, notes)?;
    if word == "pinned" {
        return Some(Dns::Pinned);
    }
    let message = format!("`dns` cannot be \"{}\"", quoted(word));
    notes.hinted(&node.span, message, fireclaw_config::hint(word, &Dns::WORDS));
    None
}

/// Hosts and ports, each once. Those that are wrong are left out.
fn targets(field: &str, node: &Node, notes: &mut Notes<'_>) -> Option<Vec<Target>> {
    let mut seen = HashSet::new();
    let mut targets = Vec::new();
    for item in list(field, node, limits::TARGETS, notes)? {
        let Some(text) = text(field, item, notes) else { continue };
        match Target::parse(text) {
            Err(problem) => {
                let message = format!("\"{}\" in `{field}` {problem}", quoted(text));
                notes.mistake(&item.span, message);
            }
            Ok(target) if !seen.insert(target.clone()) => {
                let message = format!("\"{}\" is in `{field}` twice", quoted(text));
                notes.hinted(&item.span, message, "remove one of them");
            }
            Ok(target) => targets.push(target),
        }
    }
    Some(targets)
}
