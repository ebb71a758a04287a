//! Lists of names, made quick to ask.

use std::collections::{HashMap, HashSet};

use crate::{Host, Network, Target};

/// The names of a policy. To ask takes as long for ten thousand targets as for one.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    allow: Names,
    deny: Names,
}

#[derive(Debug, Clone, Default)]
struct Names {
    exact: HashMap<String, Ports>,
    below: HashMap<String, Ports>,
}

#[derive(Debug, Clone)]
enum Ports {
    All,
    Some(HashSet<u16>),
}

impl Rules {
    /// The rules of a policy; those of any but [`Network::Allow`] allow no name.
    pub fn of(network: &Network) -> Self {
        match network {
            Network::Allow { allow, deny, .. } => {
                Self { allow: Names::of(allow), deny: Names::of(deny) }
            }
            Network::None | Network::Local | Network::Full => Self::default(),
        }
    }

    /// Whether this port of this host is allowed. The name is in lower case and without a
    /// dot at the end.
    pub fn allows(&self, name: &str, port: u16) -> bool {
        self.allow.matches(name, |ports| ports.has(port))
            && !self.deny.matches(name, |ports| ports.has(port))
    }

    /// Whether any port of this host may be allowed, so that its address is told.
    pub fn resolves(&self, name: &str) -> bool {
        self.allow.matches(name, |_| true)
            && !self.deny.matches(name, |ports| matches!(ports, Ports::All))
    }
}

impl Names {
    fn of(targets: &[Target]) -> Self {
        let mut names = Self::default();
        for target in targets {
            let (map, name) = match &target.host {
                Host::Name(name) => (&mut names.exact, name),
                Host::Below(domain) => (&mut names.below, domain),
            };
            let ports = map.entry(name.clone()).or_insert_with(|| Ports::Some(HashSet::new()));
            match (target.port, ports) {
                (None, ports) => *ports = Ports::All,
                (Some(_), Ports::All) => {}
                (Some(port), Ports::Some(set)) => {
                    set.insert(port);
                }
            }
        }
        names
    }

    /// Whether an entry for the name, or for a domain that it is below, is as asked.
    fn matches(&self, name: &str, asked: impl Fn(&Ports) -> bool) -> bool {
        let domains =
            std::iter::successors(name.split_once('.'), |(_, domain)| domain.split_once('.'));
        self.exact.get(name).is_some_and(&asked)
            || domains.filter_map(|(_, domain)| self.below.get(domain)).any(asked)
    }
}

impl Ports {
    fn has(&self, port: u16) -> bool {
        match self {
            Self::All => true,
            Self::Some(ports) => ports.contains(&port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Rules {
        Rules::of(&text.parse().unwrap())
    }

    #[test]
    fn names_domains_and_ports() {
        let rules = rules("allow:a.org,*.b.org:443,*.b.org:80,c.org:1,c.org deny:x.b.org,a.org:25");
        for (name, port, allowed) in [
            ("a.org", 443, true),
            ("a.org", 25, false),
            ("www.a.org", 443, false),
            ("b.org", 443, false),
            ("w.b.org", 443, true),
            ("deep.w.b.org", 80, true),
            ("w.b.org", 22, false),
            ("x.b.org", 443, false),
            ("y.x.b.org", 443, true),
            ("c.org", 2, true),
            ("notb.org", 443, false),
            ("org", 443, false),
            ("", 443, false),
        ] {
            assert_eq!(rules.allows(name, port), allowed, "{name}:{port}");
        }
        assert!(rules.resolves("a.org") && rules.resolves("w.b.org") && rules.resolves("c.org"));
        assert!(!rules.resolves("x.b.org") && !rules.resolves("b.org") && !rules.resolves("d.org"));
    }

    #[test]
    fn other_policies_allow_no_name() {
        for policy in ["none", "local", "full"] {
            assert!(!rules(policy).allows("a.org", 80) && !rules(policy).resolves("a.org"));
        }
    }

    #[test]
    fn ten_thousand_rules() {
        let list: Vec<String> = (0..10_000).map(|n| format!("*.d{n}.org:443")).collect();
        let rules = rules(&format!("allow:{}", list.join(",")));
        assert!(rules.allows("www.d9999.org", 443) && !rules.allows("www.d10000.org", 443));
    }
}
