//! A guest that wants out, or wants others to suffer: what is no line of the matrix.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::path::Path;

use common::{Machine, PROGRAM, request, runtime};
use fireclaw_net::{Error, Place};
use fireclaw_netlab::{enter, run};

const PLACES: [Place; 2] = [Place::Host, Place::Namespace];

/// Segments with each byte of flags, and errors of ICMP about connections that never were.
const OF_NO_CONNECTION: &str = r#"
def segment(flags):
    body = struct.pack("!HHIIBBHHH", 4000 + flags, 80, 1, 1, 0x50, flags, 1000, 0, 0)
    pseudo = socket.inet_aton(OWN) + socket.inet_aton(ELSEWHERE) + struct.pack("!HH", 6, len(body))
    body = body[:16] + struct.pack("!H", checksum(pseudo + body)) + body[18:]
    frame(0x0800, packet(OWN, ELSEWHERE, 6, body))
def message(kind):
    body = struct.pack("!BBHI", kind, 1, 0, 0) + packet(ELSEWHERE, OWN, 6, bytes(20))
    body = body[:2] + struct.pack("!H", checksum(body)) + body[4:]
    frame(0x0800, packet(OWN, ELSEWHERE, 1, body))
for flags in range(64): segment(flags)
for kind in range(20): message(kind)
sent()
"#;

#[test]
fn nothing_leaves_the_host_with_a_machines_address() {
    let Some(lab) = enter("nothing_leaves_the_host_with_a_machines_address") else { return };
    for place in PLACES {
        let machine = Machine::start(place, "full", "machine");
        machine.python(OF_NO_CONNECTION);
        let own = machine.card.address.octets();
        let left = |frame: &[u8]| frame.get(26..30) == Some(&own);
        assert!(!lab.internet.wire.any(left), "{place:?}");
        assert!(machine.status().packets.iter().any(|refused| refused.what == "of no connection"));
        machine.end();
    }
}

/// Who has an address: whether that is answered.
const WHO_HAS: &str = r#"
def who_has(target):
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806)) as raw:
        raw.bind(("eth0", 0x0806))
        raw.settimeout(1)
        question = struct.pack("!HHBBH", 1, 0x800, 6, 4, 1) + mac(OWN) + socket.inet_aton(OWN)
        raw.send(b"\xff" * 6 + mac(OWN) + b"\x08\x06" + question + bytes(6) + socket.inet_aton(target))
        try:
            while raw.recv(100)[20:32] != b"\0\x02" + mac(GATEWAY) + socket.inet_aton(target): pass
            return True
        except TimeoutError:
            return False
for address in (GATEWAY, "192.0.2.2", "127.0.0.1", OTHER): print(who_has(address))
"#;

#[test]
fn a_guest_cannot_ask_for_the_hosts_addresses() {
    let Some(_lab) = enter("a_guest_cannot_ask_for_the_hosts_addresses") else { return };
    for place in PLACES {
        let machine = Machine::start(place, "local", "machine");
        assert_eq!(machine.python(WHO_HAS), "True\nFalse\nFalse\nFalse\n", "{place:?}");
        machine.end();
    }
}

#[test]
fn a_bridge_with_others_on_it_is_not_used() {
    let Some(_lab) = enter("a_bridge_with_others_on_it_is_not_used") else { return };
    run("ip", &["link", "add", "fcbr0", "type", "bridge"]);
    run("ip", &["link", "add", "lan0", "type", "veth", "peer", "name", "lan1"]);
    run("ip", &["link", "set", "lan0", "master", "fcbr0"]);
    let directory = tempfile::tempdir().unwrap();
    let request = request(Place::Host, "local", directory.path());
    let open = fireclaw_net::open(Path::new(PROGRAM), &[], request);
    let error = runtime().block_on(open).unwrap_err();
    assert!(matches!(&error, Error::Conflict { with, .. } if with.contains("lan0")), "{error}");
    run("ip", &["link", "set", "lan0", "nomaster"]);
    let machine = Machine::start(Place::Host, "local", "machine");
    assert_eq!(machine.way("service"), "open");
    machine.end();
}

/// The ports at an address that a list of sockets (proc(5)) has.
fn ports(list: &str, address: Ipv4Addr) -> Vec<u16> {
    let list = std::fs::read_to_string(list).unwrap();
    let own = format!("{:08X}:", u32::from_ne_bytes(address.octets()));
    let local = list.lines().filter_map(|line| line.split_whitespace().nth(1));
    let ports = local.filter_map(|local| local.strip_prefix(&own));
    ports.map(|port| u16::from_str_radix(port, 16).unwrap()).collect()
}

#[test]
fn a_gateway_hears_its_machine_alone() {
    let Some(lab) = enter("a_gateway_hears_its_machine_alone") else { return };
    let machine = Machine::start(Place::Host, "local", "machine");
    let gateway = machine.card.gateway;
    let (tcp, udp) = (ports("/proc/net/tcp", gateway), ports("/proc/net/udp", gateway));
    assert_eq!((tcp.len(), udp.len()), (2, 1));
    lab.internet
        .namespace
        .run(|| run("ip", &["route", "add", "172.16.0.0/24", "via", "192.0.2.2"]));
    let elsewhere = || {
        assert!(tcp.iter().all(|&port| is_sent_away(gateway, port)));
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.send_to(&question("stranger"), (gateway, udp[0])).unwrap();
    };
    elsewhere();
    lab.internet.namespace.run(elsewhere);
    // For the machine they are what they are, also by number.
    let asked = format!("print(best(*(lambda p=p: speak(GATEWAY, p) for p in {tcp:?})))");
    assert!(machine.python(&asked).ends_with("refused\n"));
    assert_eq!(machine.way("resolve"), "refused");
    let status = machine.status();
    let denied = |name: &str| status.denials.iter().any(|denial| denial.what == name);
    assert!(denied("allowed.example") && !denied("stranger"), "{status:#?}");
    machine.end();
}

/// Whether nothing is to be had, and that is said.
fn is_sent_away(gateway: Ipv4Addr, port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect((gateway, port)) else { return false };
    let question = question("stranger");
    let length = u16::try_from(question.len()).unwrap().to_be_bytes();
    let _ = stream.write_all(&[&length[..], &question].concat());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer.is_empty()
}

/// For the address of a name with one label.
fn question(name: &str) -> Vec<u8> {
    let length = u8::try_from(name.len()).unwrap();
    let head = [0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, length];
    [&head[..], name.as_bytes(), &[0, 0, 1, 0, 1]].concat()
}

/// Has the guest's kernel end nothing: whoever floods does not take it back.
const QUIET: &str = r#"
import subprocess
subprocess.run(["nft", "add table ip t; add chain ip t o { type filter hook output priority 0; };"
    "add rule ip t o tcp flags & (fin|rst) != 0 drop"], check=True)
"#;

/// As many half-open connections as there may be, and what comes of one more.
const HALF_OPEN: &str = r#"
attempt(lambda: resolve("allowed.example"))
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
raw.bind(("eth0", 0))
for port in range(10000, 16000):
    body = struct.pack("!HHIIBBHHH", port, 80, 1, 0, 0x50, 2, 1000, 0, 0)
    pseudo = socket.inet_aton(OWN) + socket.inet_aton(INTERNET) + struct.pack("!HH", 6, len(body))
    body = body[:16] + struct.pack("!H", checksum(pseudo + body)) + body[18:]
    raw.send(mac(GATEWAY) + mac(OWN) + b"\x08\0" + packet(OWN, INTERNET, 6, body))
    # A tap's queue is short: this is answered once all before it have come.
    if port % 100 == 0 and attempt(lambda: resolve("allowed.example")) == "refused": break
for address, port in ((GATEWAY, 11434), (INTERNET, 80), (ELSEWHERE, 22)):
    print("=", attempt(lambda: socket.create_connection((address, port), WAIT).close()))
"#;

#[test]
fn too_many_connections_are_reset_and_disturb_nobody() {
    let Some(_lab) = enter("too_many_connections_are_reset_and_disturb_nobody") else { return };
    for place in PLACES {
        for policy in ["allow:allowed.example,host.fireclaw.internal:11434", "full"] {
            let machine = Machine::start(place, policy, "machine");
            let said = machine.python(&[QUIET, HALF_OPEN].concat());
            let said: Vec<&str> = said.lines().filter(|line| line.starts_with('=')).collect();
            assert_eq!(said, ["= refused"; 3], "{place:?}, {policy}");
            let packets = machine.status().packets;
            assert!(packets.iter().any(|refused| refused.what == "too many connections"));
            let other = Machine::start(place, "allow:allowed.example", "other");
            assert_eq!(other.way("allowed"), "open");
            other.end();
            machine.end();
        }
    }
}

#[test]
fn nothing_of_a_machines_connections_stays() {
    let Some(_lab) = enter("nothing_of_a_machines_connections_stays") else { return };
    let tracked = || {
        let count = std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count");
        count.unwrap().trim().parse::<u32>().unwrap()
    };
    let other = Machine::start(Place::Host, "full", "other");
    let mut stream = other.guest.namespace.run(|| TcpStream::connect("203.0.113.20:22").unwrap());
    let machine = Machine::start(Place::Host, "full", "machine");
    // Nobody says that they end.
    machine.python(&format!(
        "{QUIET}
kept = [socket.create_connection((ELSEWHERE, 22)) for _ in range(20)]"
    ));
    assert!(tracked() > 20);
    machine.end();
    assert!(tracked() < 20, "{}", tracked());
    // Those of others go on.
    let mut banner = [0; 13];
    stream.read_exact(&mut banner).unwrap();
    other.end();
}
