//! The rules of each policy, byte for byte: what is in `golden/` is what a VM gets, and a
//! change of it is to be read by somebody. `UPDATE_GOLDEN=1` writes them anew.

use std::fs;
use std::path::Path;

use super::*;

const ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 2);

fn guest(policy: &Network, mode: NetworkMode) -> Endpoint {
    let ports = Ports { proxy: 40_001, dns: 40_002, dns_tcp: 40_003 };
    let host = match mode {
        NetworkMode::Host => Vec::new(),
        NetworkMode::Namespace => vec!["192.0.2.0/24".parse().unwrap()],
    };
    Endpoint { address: ADDRESS, ports, kind: Kind::of(policy), mode, host }
}

#[track_caller]
fn is_golden(name: &str, commands: &[Value]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/rules/golden")
        .join(format!("{name}.jsonl"));
    // A command a line, as nft reads them one by one.
    let text: String = commands.iter().map(|command| format!("{command}\n")).collect();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &text).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    for (n, (is, should)) in text.lines().zip(golden.lines()).enumerate() {
        assert_eq!(is, should, "{name}, line {}", n + 1);
    }
    assert_eq!(text.len(), golden.len(), "{name}");
}

fn ranges() -> HostConfig {
    HostConfig {
        ranges: vec!["10.9.0.0/16".to_owned().try_into().unwrap()],
        ..HostConfig::default()
    }
}

#[test]
fn what_all_machines_share_is_as_it_was_read() {
    is_golden("base", &base(&HostConfig::default()));
    is_golden("tap", &bind(ADDRESS, &tap_name(ADDRESS)));
    is_golden("bounds", &bounds(&Names::of(ADDRESS)));
    is_golden("end", &tear_down(ADDRESS).concat());
    is_golden("end-of-the-last", &tear_down_last(ADDRESS));
}

#[test]
fn the_rules_of_each_policy_are_as_they_were_read() {
    let config = HostConfig::default();
    let target = fireclaw_policy::Target::parse("example.org").unwrap();
    let allow = Network::Allow { allow: vec![target], deny: Vec::new(), dns: Default::default() };
    for (mode, of) in [(NetworkMode::Host, "host"), (NetworkMode::Namespace, "namespace")] {
        for (name, network) in [("local", &Network::Local), ("full", &Network::Full)] {
            is_golden(&format!("{name}-{of}"), &policy(&config, &guest(network, mode)));
        }
        // What a proxy decides is not in the packet rules.
        for network in [&allow, &Network::None] {
            is_golden(&format!("local-{of}"), &policy(&config, &guest(network, mode)));
        }
        is_golden(&format!("full-{of}-ranges"), &policy(&ranges(), &guest(&Network::Full, mode)));
    }
}

#[test]
fn a_machine_gets_the_parts_together() {
    let config = HostConfig::default();
    let guest = guest(&Network::Local, NetworkMode::Host);
    let whole = set_up(&config, &guest);
    for part in [
        base(&config),
        bounds(&Names::of(ADDRESS)),
        policy(&config, &guest),
        bind(ADDRESS, &tap_name(ADDRESS)),
    ] {
        assert!(whole.windows(part.len()).any(|window| window == part), "{part:?}");
    }
}
