//! A guest that wants out, or wants others to suffer: what is no line of the matrix.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::path::Path;

use common::{Machine, PROGRAM, request, runtime};
use fireclaw_net::{Error, NetworkMode};
use fireclaw_netlab::{Wire, enter, run};
use fireclaw_vm::TapAttachment;

const PLACES: [NetworkMode; 2] = [NetworkMode::Host, NetworkMode::Namespace];

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
    for mode in PLACES {
        let machine = Machine::start(mode, "full", "machine");
        machine.python(OF_NO_CONNECTION);
        let own = machine.interface.address.octets();
        let left = |frame: &[u8]| frame.get(26..30) == Some(&own);
        assert!(!lab.internet.wire.any(left), "{mode:?}");
        // What others are told of their connections they are told by their hosts.
        let server = Ipv4Addr::new(203, 0, 113, 20).octets();
        let told = |frame: &[u8]| {
            frame.get(30..34) == Some(&server) && frame[23] == 1 && frame.get(34) != Some(&8)
        };
        assert!(!lab.internet.wire.any(told), "{mode:?}");
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
    for mode in PLACES {
        let machine = Machine::start(mode, "local", "machine");
        assert_eq!(machine.python(WHO_HAS), "True\nFalse\nFalse\nFalse\n", "{mode:?}");
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
    let request = request(NetworkMode::Host, "local", directory.path());
    let open = fireclaw_net::open(Path::new(PROGRAM), &[], request);
    let error = runtime().block_on(open).unwrap_err();
    assert!(matches!(&error, Error::Conflict { with, .. } if with.contains("lan0")), "{error}");
    run("ip", &["link", "set", "lan0", "nomaster"]);
    let machine = Machine::start(NetworkMode::Host, "local", "machine");
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
    let machine = Machine::start(NetworkMode::Host, "local", "machine");
    let gateway = machine.interface.gateway;
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
    // For the VM they are what they are, also by number.
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
    for mode in PLACES {
        for policy in ["allow:allowed.example,host.fireclaw.internal:11434", "full"] {
            let machine = Machine::start(mode, policy, "machine");
            let said = machine.python(&[QUIET, HALF_OPEN].concat());
            let said: Vec<&str> = said.lines().filter(|line| line.starts_with('=')).collect();
            assert_eq!(said, ["= refused"; 3], "{mode:?}, {policy}");
            let packets = machine.status().packets;
            assert!(packets.iter().any(|refused| refused.what == "too many connections"));
            let other = Machine::start(mode, "allow:allowed.example", "other");
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
    let other = Machine::start(NetworkMode::Host, "full", "other");
    let mut stream = other.guest.namespace.run(|| TcpStream::connect("203.0.113.20:22").unwrap());
    let machine = Machine::start(NetworkMode::Host, "full", "machine");
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

/// Frames that no interface would send, as a tap takes them: after the header of virtio.
fn nonsense() -> Vec<Vec<u8>> {
    let mut frames = vec![Vec::new(), vec![0; 9], vec![0; 10], vec![0; 11], vec![0; 23]];
    // Flags, kind, length of headers, size of segments, where the checksum starts and is.
    for flags in [0, 1, 2, 0xff] {
        for kind in [0, 1, 3, 4, 5, 0x81, 0xff] {
            for (length, size, start, at) in
                [(0, 0, 0, 0), (0xffff, 1, 0xffff, 0xffff), (54, 1, 34, 16), (14, 0xffff, 34, 6)]
            {
                let words = [length, size, start, at].map(u16::to_le_bytes).concat();
                for body in [0, 13, 14, 33, 60, 1514, 65_000] {
                    let frame = [&[flags, kind][..], &words, &vec![0x45; body]].concat();
                    frames.push(frame);
                }
            }
        }
    }
    frames
}

#[test]
fn nonsense_at_the_tap_is_lost() {
    let Some(_lab) = enter("nonsense_at_the_tap_is_lost") else { return };
    for mode in PLACES {
        let directory = tempfile::tempdir().unwrap();
        let request = request(mode, "full", directory.path());
        let runtime = runtime();
        let open = fireclaw_net::open(Path::new(PROGRAM), &[], request);
        let gateway = runtime.block_on(open).unwrap();
        let TapAttachment::Tap(tap) = gateway.attachment() else { panic!("no tap") };
        let own = [&[0xff; 6][..], &gateway.interface().mac.0, &[8, 0, 0x45]].concat();
        let mut taken = 0;
        for mut frame in nonsense() {
            taken += usize::from(rustix::io::write(tap, &frame).is_ok());
            // The same from whom frames pass.
            if let Some(part) = frame.get_mut(10..10 + own.len()) {
                part.copy_from_slice(&own);
            }
            if let Some(part) = frame.get_mut(36..40) {
                part.copy_from_slice(&gateway.interface().address.octets());
            }
            taken += usize::from(rustix::io::write(tap, &frame).is_ok());
        }
        assert!(taken > 0, "the tap takes some");
        let other = Machine::start(mode, "full", "other");
        assert_eq!(other.way("raw"), "open");
        other.end();
        runtime.block_on(gateway.client().status()).unwrap();
        runtime.block_on(gateway.close()).unwrap();
    }
}

/// Questions that are none, or too many, and clients that say little.
const FLOOD: &str = r#"
import random
def question(labels, kind=1, extra=b"", counts=(1, 0, 0, 0)):
    return struct.pack("!6H", 7, 0x100, *counts) + labels + struct.pack("!2H", kind, 1) + extra
name = b"\x07allowed\x07example\0"
whole = question(name)
opt = b"\0" + struct.pack("!HHIH", 41, 0xffff, 0, 0)
junk = [whole[:n] for n in range(len(whole))] + [
    question(b"\xc0\x0c"), question(b"\x01a\xc0\x0c"), question(b"\x01a\xc0\x0e"),
    question(b"\x3f" + b"a" * 63 + b"\x3f" + b"b" * 63 + b"\x3f" + b"c" * 63 + b"\x3f" + b"d" * 63 + b"\0"),
    question(b"\0"), question(b"\x40a\0"), question(b"\xff\xff"), question(name, 255), question(name, 252),
    question(name, extra=opt, counts=(1, 0, 0, 1)), question(name, extra=opt * 2, counts=(1, 0, 0, 2)),
    question(name, counts=(65535, 65535, 65535, 65535)), question(name, extra=name * 50, counts=(2, 0, 0, 0)),
    question(b"\x04\\\"\0\n" + name), question(b"\x01." + name),
] + [random.Random(1).randbytes(n) for n in range(0, 1400, 7)]
asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for message in junk * 5: asking.sendto(message, (GATEWAY, 53))

# Many questions in one connection, one after the other.
def many():
    with socket.create_connection((GATEWAY, 53), WAIT) as stream:
        stream.sendall(b"".join(struct.pack("!H", len(whole)) + whole for _ in range(200)))
        for _ in range(200): exactly(stream, struct.unpack("!H", exactly(stream, 2))[0])
# Refused while the others are at work.
while attempt(many) != "open": pass
for message in junk:
    stream = socket.create_connection((GATEWAY, 53), WAIT)
    attempt(lambda: stream.sendall(struct.pack("!H", len(message)) + message))
    stream.close()

# Silent ones, and such as do not go on.
def held(port, first):
    stream = socket.socket()
    stream.settimeout(WAIT)
    # One too many is reset.
    attempt(lambda: stream.connect((INTERNET if port != 53 else GATEWAY, port)))
    attempt(lambda: stream.sendall(first))
    return stream
silent = [held(53, b"") for _ in range(100)] + [held(53, b"\0") for _ in range(100)]
silent += [held(80, b"") for _ in range(300)] + [held(443, b"\x16\x03\x01") for _ in range(300)]
print("full", attempt(lambda: http(INTERNET, 80, "allowed.example", "hello")))
for stream in silent: stream.close()
# The gateway hears of that.
while attempt(lambda: http(resolve("allowed.example", tcp=True), 80, "allowed.example", "hello")) != "open": pass
"#;

#[test]
fn a_flooded_gateway_recovers() {
    let Some(_lab) = enter("a_flooded_gateway_recovers") else { return };
    for mode in PLACES {
        let machine = Machine::start(mode, "allow:allowed.example", "machine");
        assert_eq!(machine.way("allowed"), "open");
        let said = machine.python(FLOOD);
        assert!(said.contains("full refused"), "{said}");
        assert_eq!(machine.way("allowed"), "open");
        machine.end();
    }
}

/// First bytes in other ways than those of the matrix. Each is for a name that is allowed, and
/// for another one at the same address.
const FIRST_BYTES: &str = r#"
def said(first, step=None, port=80):
    with socket.create_connection((INTERNET, port), WAIT) as stream:
        stream.settimeout(WAIT)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(first), step or len(first)): stream.sendall(first[at : at + (step or len(first))])
        if not stream.recv(4096): raise Refused("it was closed")

def hello(name, step):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    out = ssl.MemoryBIO()
    try: context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=name).do_handshake()
    except ssl.SSLWantReadError: pass
    bytes_ = out.read()
    if step != "records": return said(bytes_, step, 443)
    # One message, in a record for each byte of its first ten.
    body = bytes_[5:]
    parts = [body[n : n + 1] for n in range(10)] + [body[10:]]
    said(b"".join(b"\x16\x03\x01" + struct.pack("!H", len(part)) + part for part in parts), None, 443)

def head(line, *fields): return "\r\n".join([line, *fields, "", ""]).encode()
resolve("allowed.example")
A, B = "allowed.example", "other.example"
def tries(n):
    yield "single bytes", lambda: said(head("GET / HTTP/1.1", f"Host: {n}"), 1)
    yield "upper case, dot and port", lambda: said(head("GET / HTTP/1.1", f"hOST:{n.upper()}.:80"))
    yield "absolute", lambda: said(head(f"GET http://{n}/ HTTP/1.1", f"Host: {n}"))
    yield "upgrade", lambda: said(head("GET / HTTP/1.1", f"Host: {n}", "Connection: Upgrade", "Upgrade: websocket"))
    yield "hello in single bytes", lambda: hello(n, 1)
    yield "hello in records", lambda: hello(n, "records")
for name in (A, B):
    for what, try_ in tries(name): print("=", what, "|", name, attempt(try_))
for what, first in {
    "two hosts": head("GET / HTTP/1.1", f"Host: {A}", f"Host: {B}"),
    "a folded host": head("GET / HTTP/1.1", "Host:", f" {B}", f"Host: {A}"),
    "absolute and host": head(f"GET http://{B}/ HTTP/1.1", f"Host: {A}"),
    "user": head(f"GET http://{A}@{B}/ HTTP/1.1", f"Host: {A}"),
    "connect": head(f"CONNECT {B}:443 HTTP/1.1", f"Host: {A}"),
    "no version": f"GET http://{B}/\r\n\r\n".encode(),
    "vertical tabs": head("GET\x0b/\x0bHTTP/1.1", f"Host: {B}"),
    "http/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0",
    "a long head": head("GET / HTTP/1.1", "X: " + "x" * 17000, f"Host: {A}"),
    "a long hello": b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc\x03\x03" + b"x" * 17000,
    "an alert first": b"\x15\x03\x01\0\2\1\x70" + b"\x16\x03\x01",
    # Held back for as long as it may take, and then refused.
    "slow": b"GET / HTTP/1.1\r\nHost: ",
}.items():
    if what == "slow": WAIT = 30
    print("=", what, "|", attempt(lambda: said(first)))
"#;

#[test]
fn first_bytes_are_judged_however_they_come() {
    let Some(_lab) = enter("first_bytes_are_judged_however_they_come") else { return };
    let machine = Machine::start(NetworkMode::Host, "allow:allowed.example", "machine");
    let said = machine.python(FIRST_BYTES);
    let lines: Vec<&str> = said.lines().filter(|line| line.starts_with('=')).collect();
    assert_eq!(lines.len(), 24, "{said}");
    for line in lines {
        let way = if line.contains("| allowed.example") { "open" } else { "refused" };
        assert!(line.ends_with(way), "{line} instead of {way}\n{said}");
    }
    machine.end();
}

/// Says to be the gateway and another VM, asks for an address, and has many.
const SOMEBODY_ELSE: &str = r#"
def claim(kind, address, sender=OWN, to=b"\xff" * 6):
    body = struct.pack("!HHBBH", 1, 0x800, 6, 4, kind) + mac(sender) + socket.inet_aton(address)
    return to + mac(OWN) + b"\x08\x06" + body + mac(GATEWAY) + socket.inet_aton(GATEWAY)
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
    raw.bind(("eth0", 0))
    for kind in (1, 2):
        for address in (GATEWAY, "172.16.0.3", "172.16.0.99", "192.0.2.1"):
            for to in (b"\xff" * 6, mac(GATEWAY), mac("172.16.0.3")):
                raw.send(claim(kind, address, to=to))
                raw.send(claim(kind, address, sender=address, to=to))
    discover = struct.pack("!4H", 68, 67, 8 + 240, 0) + b"\1\1\6\0" + bytes(232) + b"\x63\x82\x53\x63"
    raw.send(b"\xff" * 6 + mac(OWN) + b"\x08\0" + packet("0.0.0.0", "255.255.255.255", 17, discover))
    for n in range(2000):
        raw.send(mac(GATEWAY) + struct.pack("!HI", 0x02fc, n) + b"\x08\0" + ipv4(OWN, ELSEWHERE, b"flood"))
    # Bridges speak of loops so.
    raw.send(b"\x01\x80\xc2\0\0\0" + mac(OWN) + b"\0\x26\x42\x42\x03" + bytes(35))
sent()
"#;

#[test]
fn a_guest_is_nobody_else() {
    let Some(_lab) = enter("a_guest_is_nobody_else") else { return };
    let machine = Machine::start(NetworkMode::Host, "local", "machine");
    let other = Machine::start(NetworkMode::Host, "local", "other");
    assert_eq!(other.interface.address, Ipv4Addr::new(172, 16, 0, 3));
    assert_eq!(other.way("service"), "open");
    let wire = other.guest.namespace.run(Wire::new);
    machine.python(SOMEBODY_ELSE);
    machine.way("many");
    assert!(!wire.saw("way-many"));
    let (own, its) = (machine.interface.mac.to_string(), other.interface.mac.to_string());
    let neighbours = run("ip", &["neigh", "show", "dev", "fcbr0"]);
    for line in neighbours.lines().filter(|line| line.contains(&own)) {
        assert!(line.starts_with("172.16.0.2 "), "{neighbours}");
    }
    let known = run("bridge", &["fdb", "show", "br", "fcbr0", "dynamic"]);
    for line in known.lines() {
        assert!(line.starts_with(&own) || line.starts_with(&its), "{known}");
    }
    let other_neighbours = other.guest.namespace.run(|| run("ip", &["neigh"]));
    assert!(!other_neighbours.contains(&own), "{other_neighbours}");
    assert_eq!(other.way("service"), "open");
    other.end();
    machine.end();
}

/// A host that has other addresses than at the start, and such as no interface has.
#[test]
fn addresses_that_are_the_hosts_in_other_ways_are_closed() {
    let Some(_lab) = enter("addresses_that_are_the_hosts_in_other_ways_are_closed") else { return };
    // As kube-proxy sets it.
    run("sysctl", &["-q", "net.ipv4.conf.all.route_localnet=1"]);
    run("ip", &["route", "add", "local", "198.51.100.96/28", "dev", "lo"]);
    // As Docker has them.
    run("ip", &["link", "add", "docker0", "type", "bridge"]);
    run("ip", &["addr", "add", "172.17.0.1/16", "dev", "docker0"]);
    run("ip", &["link", "set", "docker0", "up"]);
    for mode in PLACES {
        for policy in ["local", "allow:sub.allowed.example", "full"] {
            let machine = Machine::start(mode, policy, "machine");
            machine.guest.namespace.run(|| {
                for setting in ["all", "eth0"] {
                    run("sysctl", &["-q", &format!("net.ipv4.conf.{setting}.route_localnet=1")]);
                }
                run("ip", &["route", "del", "table", "local", "local", "127.0.0.0/8", "dev", "lo"]);
                run(
                    "ip",
                    &["route", "add", "127.0.0.0/8", "via", "172.16.0.1", "src", "172.16.0.2"],
                );
            });
            for (address, port) in [
                ("127.0.0.1", 2222),
                ("127.0.0.1", 11434),
                ("127.3.2.1", 2222),
                ("198.51.100.97", 2222),
                ("172.17.0.1", 2222),
                ("172.16.0.1", 2222),
                ("192.0.2.2", 2222),
                ("240.0.0.1", 80),
                // Where slirp4netns has a host and a resolver of its own.
                ("198.18.0.2", 2222),
                ("198.18.0.3", 53),
            ] {
                let speak = format!("print('=', attempt(lambda: speak('{address}', {port})))");
                let said = machine.python(&speak);
                assert!(!said.contains("= open"), "{mode:?}, {policy}: {address}:{port}: {said}");
            }
            machine.end();
        }
    }
}

#[test]
fn a_pinned_address_that_becomes_the_hosts_is_closed() {
    let Some(_lab) = enter("a_pinned_address_that_becomes_the_hosts_is_closed") else { return };
    for mode in PLACES {
        let machine = Machine::start(mode, "allow:sub.allowed.example", "machine");
        assert_eq!(machine.way("below"), "open");
        run("ip", &["addr", "add", "198.51.100.10/32", "dev", "up0"]);
        let said = machine.python(
            "print(attempt(lambda: http('198.51.100.10', 2222, 'sub.allowed.example', 'hello')))",
        );
        assert!(said.ends_with("refused\n"), "{mode:?}: {said}");
        run("ip", &["addr", "del", "198.51.100.10/32", "dev", "up0"]);
        machine.end();
    }
}

/// Holds as many connections as it may.
const HOLD: &str = r#"
address, held = resolve("elsewhere.example"), []
for _ in range(512):
    stream = socket.create_connection((address, 22), WAIT)
    held.append(stream)
    exactly(stream, 13)
print("held", flush=True)
sys.stdin.read()
"#;

#[test]
fn a_gateway_obeys_however_many_connections_there_are() {
    let Some(_lab) = enter("a_gateway_obeys_however_many_connections_there_are") else { return };
    // As a shell starts programs: the soft limit is for those who use select(2).
    let arguments = ["--nofile=1024:4096", PROGRAM];
    let machine =
        Machine::start_by("prlimit", &arguments, NetworkMode::Host, "allow:elsewhere.example");
    let mut guest = machine.python_process(HOLD);
    let mut held = String::new();
    BufReader::new(guest.stdout.as_mut().unwrap()).read_line(&mut held).unwrap();
    assert_eq!(held, "held\n");
    machine.status();
    let policy = "local".parse().unwrap();
    machine.runtime.block_on(machine.client().set_policy(&policy)).unwrap();
    drop(guest.stdin.take());
    guest.wait().unwrap();
    machine.end();
}
