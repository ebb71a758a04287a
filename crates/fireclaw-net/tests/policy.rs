//! Policies that change while connections are open, and what is told of refusals.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::time::Duration;

use common::{Machine, STATE, runtime, without_nft};
use fireclaw_net::{Error, NetworkMode, clean, list};
use fireclaw_netlab::{Lab, enter, run};
use rustix::fs::{FlockOperation, flock};
use socket2::SockRef;

/// A connection of the guest that has been answered, and is open.
fn connected(machine: &Machine, address: &str) -> TcpStream {
    let mut stream = machine.guest.namespace.run(|| TcpStream::connect((address, 22)).unwrap());
    let mut banner = [0; 13];
    stream.read_exact(&mut banner).unwrap();
    stream
}

/// Whether it is answered still; otherwise it must have been reset, not left to wait.
fn is_answered(stream: &mut TcpStream) -> bool {
    let mut echo = [0; 5];
    match stream.write_all(b"word\n").and_then(|()| stream.read_exact(&mut echo)) {
        Ok(()) => true,
        Err(e) => {
            let kind = e.kind();
            assert!(kind != std::io::ErrorKind::WouldBlock && kind != std::io::ErrorKind::TimedOut);
            false
        }
    }
}

#[test]
fn what_is_open_follows_the_policy() {
    let Some(_lab) = enter("what_is_open_follows_the_policy") else { return };
    for mode in [NetworkMode::Host, NetworkMode::Namespace] {
        let machine = Machine::start(mode, "allow:allowed.example,elsewhere.example", "machine");
        let change = |policy: &str| {
            let policy = policy.parse().unwrap();
            machine.runtime.block_on(machine.client().set_policy(&policy))
        };
        assert_eq!(machine.way("port"), "open");
        let mut stream = connected(&machine, "203.0.113.10");
        change("allow:allowed.example:22").unwrap();
        assert!(is_answered(&mut stream), "it is allowed still");
        assert_eq!(machine.way("banner"), "refused");
        change("allow:elsewhere.example").unwrap();
        assert!(!is_answered(&mut stream));

        // What the kernel forwards is cut as well.
        change("full").unwrap();
        let mut stream = connected(&machine, "203.0.113.20");
        assert!(is_answered(&mut stream));
        change("local").unwrap();
        assert!(!is_answered(&mut stream));
        assert_eq!(machine.way("service"), "open");

        // Nothing at all, then one name again.
        change("none").unwrap();
        assert_eq!(machine.way("service"), "refused");
        machine.runtime.block_on(machine.client().allow("*.allowed.example:443")).unwrap();
        assert_eq!(machine.way("below"), "open");
        let bad = machine.runtime.block_on(machine.client().allow("10.0.0.1")).unwrap_err();
        assert!(matches!(bad, Error::NotHere { .. }), "{bad}");
        machine.end();
    }
}

#[test]
fn every_refusal_is_counted() {
    let Some(_lab) = enter("every_refusal_is_counted") else { return };
    let machine = Machine::start(NetworkMode::Host, "allow:allowed.example", "machine");
    for probe in ["resolve", "samehost", "raw", "udp", "icmp", "dns", "metadata", "ipv6", "spoof"] {
        machine.way(probe);
    }
    let refused = machine.runtime.block_on(machine.client().allow("x y"));
    assert!(refused.is_err());
    let status = machine.status();
    assert_eq!(status.interface, machine.interface);
    let denied = |what: &str, reason: &str| {
        status.denials.iter().any(|denial| denial.what == what && denial.reason == reason)
    };
    assert!(denied("other.example", "not an allowed name of this address"), "{status:#?}");
    assert!(denied("203.0.113.10", "TLS without a name"), "{status:#?}");
    assert!(denied("203.0.113.20", "no allowed name has this address"), "{status:#?}");
    assert!(denied("169.254.169.254", "metadata"), "{status:#?}");
    assert_eq!(status.denied, status.denials.iter().map(|denial| denial.count).sum::<u64>());
    assert!(!status.last.is_empty());
    for what in ["udp", "icmp", "dns elsewhere", "ipv6", "another sender", "another sender (MAC)"] {
        assert!(status.packets.iter().any(|refused| refused.what == what), "{what}: {status:#?}");
    }
    let there = |word: &str| status.packets.iter().any(|refused| refused.what.contains(word));
    assert!(there("203.0.113.20:9999") && there("203.0.113.53:"), "{status:#?}");
    machine.end();
}

#[test]
fn the_hosts_new_addresses_are_closed_too() {
    let Some(_lab) = enter("the_hosts_new_addresses_are_closed_too") else { return };
    let machine = Machine::start(NetworkMode::Namespace, "full", "machine");
    // Datagrams: connections are the proxy's, which asks for each of them.
    let refused = |address: &str| {
        machine.guest.namespace.run(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.connect((address, 7777)).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            let asked = socket.send(b"?").and_then(|_| socket.recv(&mut [0; 9]));
            asked.is_err_and(|e| e.kind() == ErrorKind::HostUnreachable)
        })
    };
    let addresses = ["198.51.100.77", "198.51.100.98"];
    assert!(!addresses.iter().any(|address| refused(address)));
    run("ip", &["addr", "add", "198.51.100.77/32", "dev", "up0"]);
    run("ip", &["route", "add", "local", "198.51.100.96/28", "dev", "lo"]);
    // The rules follow the kernel's word.
    for address in addresses {
        while !refused(address) {}
    }
    machine.end();
}

/// A server on the internet that does this with whoever comes.
fn server(lab: &Lab, port: u16, serve: impl Fn(TcpStream) + Send + 'static) {
    let bind = || TcpListener::bind(("203.0.113.10", port)).unwrap();
    let listener = lab.internet.namespace.run(bind);
    std::thread::spawn(move || listener.incoming().for_each(|stream| serve(stream.unwrap())));
}

#[test]
fn a_connection_ends_as_its_server_ends_it() {
    let Some(lab) = enter("a_connection_ends_as_its_server_ends_it") else { return };
    server(&lab, 4001, |mut stream| stream.write_all(b"421 not now\r\n").unwrap());
    server(&lab, 4002, |mut stream| {
        stream.read_exact(&mut [0]).unwrap();
        stream.write_all(b"part").unwrap();
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    });
    for policy in ["allow:allowed.example", "full"] {
        let machine = Machine::start(NetworkMode::Namespace, policy, "machine");
        assert_eq!(machine.way("resolve"), "open");
        let connect = |port| {
            let connect = || TcpStream::connect(("203.0.113.10", port)).unwrap();
            machine.guest.namespace.run(connect)
        };
        // It says something, and has closed before it is read.
        let mut said = String::new();
        let mut stream = connect(4001);
        stream.peek(&mut [0; 13]).unwrap();
        stream.read_to_string(&mut said).unwrap();
        assert_eq!(said, "421 not now\r\n", "{policy}");
        // What it cuts off does not look whole.
        let mut stream = connect(4002);
        stream.write_all(b"\x01").unwrap();
        let error = stream.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{policy}");
        machine.end();
    }
}

#[test]
fn ten_thousand_rules_hold() {
    let Some(_lab) = enter("ten_thousand_rules_hold") else { return };
    let many: Vec<String> = (0..9_999).map(|n| format!("*.d{n}.example:443")).collect();
    let policy = format!("allow:{},allowed.example", many.join(","));
    let machine = Machine::start(NetworkMode::Host, &policy, "machine");
    assert_eq!(machine.way("allowed"), "open");
    assert_eq!(machine.way("raw"), "refused");
    assert_eq!(machine.status().policy.to_string(), policy);
    let more = machine.runtime.block_on(machine.client().allow("more.example")).unwrap_err();
    assert!(more.to_string().contains("10000 targets"), "{more}");
    assert_eq!(machine.status().policy.to_string(), policy);
    machine.end();
}

#[test]
fn a_wider_policy_that_cannot_be_set_leaves_no_trace() {
    let Some(_lab) = enter("a_wider_policy_that_cannot_be_set_leaves_no_trace") else { return };
    let machine = Machine::start(NetworkMode::Host, "allow:allowed.example", "machine");
    let nft = without_nft();
    let full = "full".parse().unwrap();
    machine.runtime.block_on(machine.client().set_policy(&full)).unwrap_err();
    machine.runtime.block_on(machine.client().allow("elsewhere.example")).unwrap_err();
    run("umount", &[&nft]);
    assert_eq!(std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap(), "0\n");
    assert_eq!(list(Path::new(STATE)).unwrap()[0].policy, "allow");
    assert_eq!((&*machine.way("allowed"), &*machine.way("raw")), ("open", "refused"));
    machine.end();
}

#[test]
fn rules_may_go_while_the_policy_changes() {
    let Some(_lab) = enter("rules_may_go_while_the_policy_changes") else { return };
    for (before, after) in [("full", "local"), ("local", "full")] {
        let machine = Machine::start(NetworkMode::Host, before, "machine");
        let held = File::options().write(true).open(Path::new(STATE).join("net.lock")).unwrap();
        flock(&held, FlockOperation::LockExclusive).unwrap();
        std::thread::scope(|scope| {
            let (client, after) = (machine.client(), after.parse().unwrap());
            let changed = scope.spawn(move || runtime().block_on(client.set_policy(&after)));
            // Who waits for a lock stands below who has it (proc(5)).
            while !std::fs::read_to_string("/proc/locks").unwrap().contains("-> FLOCK") {
                std::thread::yield_now();
            }
            run("nft", &["flush", "ruleset"]);
            drop(held);
            changed.join().unwrap().unwrap();
        });
        let raw = if after == "full" { "open" } else { "refused" };
        while machine.way("service") != "open" {}
        assert_eq!((&*machine.way("raw"), &*machine.way("host")), (raw, "refused"));
        machine.end();
    }
}

#[test]
fn a_policy_that_cannot_be_held_ends_the_network() {
    let Some(_lab) = enter("a_policy_that_cannot_be_held_ends_the_network") else { return };
    let machine = Machine::start(NetworkMode::Host, "full", "machine");
    let gateway = machine.gateway.as_ref().unwrap();
    let (process, helper) = (gateway.process(), gateway.machine().helper);
    let nft = without_nft();
    // Wider: nothing has changed.
    let change = |policy: &str| {
        machine.runtime.block_on(machine.client().set_policy(&policy.parse().unwrap()))
    };
    change("full").unwrap_err();
    assert_eq!(machine.way("raw"), "open");
    let error = change("local").unwrap_err();
    assert!(error.to_string().contains("ended"), "{error}");
    while process.lives() || helper.lives() {
        std::thread::yield_now();
    }
    assert_ne!(machine.way("raw"), "open");
    // What its helper could not remove is told, and found.
    run("umount", &[&nft]);
    let Machine { mut gateway, runtime, .. } = machine;
    let error = runtime.block_on(gateway.take().unwrap().close()).unwrap_err();
    assert!(matches!(&error, Error::Left { reason } if reason.contains("nft")), "{error}");
    assert!(error.hint().unwrap().contains("net prune"));
    let cleaned = clean(NetworkMode::Host, Path::new(STATE)).unwrap();
    assert_eq!(cleaned.machines.len(), 1);
    assert_eq!(run("nft", &["list", "ruleset"]), "");
}

#[test]
fn connections_are_bounded() {
    let Some(_lab) = enter("connections_are_bounded") else { return };
    let machine = Machine::start(NetworkMode::Host, "full", "machine");
    let flood = "import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for port in range(20000, 26000):
    s.sendto(b'x', ('203.0.113.20', port))
    # A tap's queue is short: this is answered once all before it have come, as long as
    # there is room for it.
    if port % 100: continue
    try: socket.create_connection(('172.16.0.1', 53), 1).close()
    except OSError: break";
    let flooded = machine.guest.output("python3", &["-c", flood]);
    assert!(flooded.status.success(), "{}", String::from_utf8_lossy(&flooded.stderr));
    let refused = || {
        let packets = machine.status().packets;
        packets.iter().find(|refused| refused.what == "too many connections").map(|r| r.packets)
    };
    assert!(refused().is_some(), "{:?}", machine.status().packets);
    let count = std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count").unwrap();
    let count: u32 = count.trim().parse().unwrap();
    assert!((4000..4300).contains(&count), "{count}");
    // Another VM has its own bound.
    let other = Machine::start(NetworkMode::Host, "full", "other");
    assert_eq!(other.way("raw"), "open");
    other.end();
    machine.end();
}

#[test]
fn a_gateway_is_nobody() {
    let Some(_lab) = enter("a_gateway_is_nobody") else { return };
    let machine = Machine::start(NetworkMode::Host, "local", "machine");
    let pid = machine.gateway.as_ref().unwrap().process().pid;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(field(set), ["0000000000000000"], "{set}");
    }
    assert_eq!(field("NoNewPrivs:"), ["1"]);
    // In a user namespace that has no other user it stays what a user is outside.
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap();
    if map.split_whitespace().nth(2) != Some("1") {
        assert_eq!(
            (field("Uid:"), field("Gid:")),
            (vec!["65534".into(); 4], vec!["65534".into(); 4])
        );
        assert!(field("Groups:").is_empty());
    }
    machine.end();
}
