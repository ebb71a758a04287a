"""Tries to reach something from inside a guest, as root.

probe.py GATEWAY OTHER OWN WORD PROBE...: the host's address on the bridge, another machine's,
its own, a word for packets, and what to try. After each attempt a line `= PROBE WAY` says
how it went: `open`, `refused` (at once), `dropped` (no answer), or `sent` (the receiver
knows).
"""

import socket
import ssl
import struct
import sys

GATEWAY, OTHER, OWN, WORD = sys.argv[1:5]
WAIT = 3
INTERNET, ELSEWHERE, RESOLVER = "203.0.113.10", "203.0.113.20", "203.0.113.53"


class Refused(Exception):
    pass


def attempt(tried):
    try:
        tried()
        return "open"
    except (TimeoutError, socket.timeout):
        return "dropped"
    except (OSError, Refused, ssl.SSLError) as error:
        print("  ", error)
        return "refused"


def best(*tries):
    """The most open of several ways."""
    found = {attempt(tried) for tried in tries}
    return next(way for way in ("open", "dropped", "refused") if way in found)


def exactly(socket_, length):
    data = b""
    while len(data) < length:
        part = socket_.recv(length - len(data))
        if not part:
            raise Refused("it was closed")
        data += part
    return data


def answered(datagrams, message):
    """Asks again: one message may be lost, and the kernel limits how often it refuses."""
    datagrams.settimeout(1)
    for last in (False, False, True):
        datagrams.send(message)
        try:
            return datagrams.recv(4096)
        except (TimeoutError, socket.timeout):
            if last:
                raise


def resolve(name, server=GATEWAY, tcp=False, kind=1):
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    question = struct.pack("!6H", 7, 0x100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", kind, 1)
    if tcp:
        with socket.create_connection((server, 53), WAIT) as stream:
            stream.sendall(struct.pack("!H", len(question)) + question)
            answer = exactly(stream, struct.unpack("!H", exactly(stream, 2))[0])
    else:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
            datagrams.connect((server, 53))
            answer = answered(datagrams, question)
    _, flags, _, answers, _, _ = struct.unpack("!6H", answer[:12])
    if flags & 15 or not answers:
        raise Refused(f"no address of {name} (code {flags & 15})")
    # One record after the question; its name is a pointer or the name again.
    return socket.inet_ntoa(answer[-4:])


def http(address, port, host, words):
    with socket.create_connection((address, port), WAIT) as stream:
        stream.settimeout(WAIT)
        stream.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        data = stream.recv(4096)
        if words.encode() not in data:
            raise Refused(f"said {data!r}")


def tls(address, port, host):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with socket.create_connection((address, port), WAIT) as stream:
        with context.wrap_socket(stream, server_hostname=host) as secure:
            secure.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            if b"hello" not in secure.recv(4096):
                raise Refused("it was closed")


def banner(address):
    with socket.create_connection((address, 22), WAIT) as stream:
        stream.settimeout(WAIT)
        exactly(stream, 13)
        stream.sendall(b"echo\n")
        exactly(stream, 5)


def udp(address, port=9999, word="hello"):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.connect((address, port))
        answered(datagrams, word.encode())


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def ping(address):
    echo = struct.pack("!BBHHH", 8, 0, 0, 77, 1)
    echo = echo[:2] + struct.pack("!H", checksum(echo)) + echo[4:]
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
        raw.connect((address, 0))
        while True:
            data = answered(raw, echo)
            kind = data[(data[0] & 15) * 4]
            if kind == 0:
                return
            if kind == 3:
                raise Refused("it is said to be unreachable")


def mac(address):
    if address == "255.255.255.255":
        return b"\xff" * 6
    if int(address.split(".")[0]) >= 224:
        return b"\x01\x00\x5e" + socket.inet_aton(address)[1:]
    return b"\x02\xfc" + socket.inet_aton(address)


def frame(kind, body, sender=None, to=None):
    device = next(name for _, name in socket.if_nameindex() if name != "lo")
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind((device, 0))
        raw.send(mac(to or GATEWAY) + (sender or mac(OWN)) + struct.pack("!H", kind) + body)


def datagram(word):
    return struct.pack("!4H", 5555, 9999, 8 + len(word), 0) + word


def packet(source, destination, protocol, body, options=b"", fragment=0):
    """An IPv4 packet. `fragment` is its place in units of 8 bytes, and 0x2000 for more."""
    length = 20 + len(options)
    head = struct.pack("!BBHH", 0x40 | length // 4, 0, length + len(body), 1)
    head += struct.pack("!HBBH", fragment, 64, protocol, 0)
    head += socket.inet_aton(source) + socket.inet_aton(destination) + options
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + body


def ipv4(source, destination, word):
    return packet(source, destination, 17, datagram(word))


def ipv6(source, destination, word):
    source, destination = (socket.inet_pton(socket.AF_INET6, a) for a in (source, destination))
    body = struct.pack("!4H", 5555, 9998, 8 + len(word), 0) + word
    pseudo = source + destination + struct.pack("!II", len(body), 17) + body
    sum_ = checksum(pseudo + b"\0" * (len(pseudo) % 2))
    body = body[:6] + struct.pack("!H", sum_) + body[8:]
    return struct.pack("!IHBB", 6 << 28, len(body), 17, 64) + source + destination + body


def optioned(options):
    """To a server, with options of IPv4."""
    frame(0x0800, packet(OWN, ELSEWHERE, 17, datagram(word("options")), options))


def route(kind):
    """By way of the gateway to a server (RFC 791, 3.1)."""
    options = bytes([kind, 7, 4]) + socket.inet_aton(ELSEWHERE) + b"\0"
    frame(0x0800, packet(OWN, GATEWAY, 17, datagram(word("options")), options))


def fragment(place, body):
    frame(0x0800, packet(OWN, ELSEWHERE, 17, body, fragment=place))


def tagged(*tags):
    """With VLAN tags before what a server would answer."""
    tags = [struct.pack("!HH", *tag) for tag in tags]
    for kind, body in (
        (0x0800, ipv4(OWN, ELSEWHERE, word("vlan"))),
        (0x86DD, ipv6("2001:db8:1::5", "2001:db8::1", word("vlan"))),
    ):
        first, *rest = [*tags, struct.pack("!H", kind)]
        rest = b"".join(rest)
        frame(struct.unpack("!H", first[:2])[0], first[2:] + rest + body)


def tunnelled(number, to):
    """A packet in one of that protocol."""
    inner = ipv4(OWN, ELSEWHERE, word("protocols"))
    if number == 41:
        inner = ipv6("2001:db8:1::5", "2001:db8::1", word("protocols"))
    return packet(OWN, to, number, inner)


def word(probe):
    """What the receiver knows a probe's packets by."""
    return f"{WORD}-{probe}".encode()


def sent(*frames):
    for sending in frames:
        sending()
    # What comes after it has arrived once this is answered.
    attempt(lambda: udp(ELSEWHERE))
    attempt(lambda: resolve("allowed.example"))
    return "sent"


PROBES = {
    "service": lambda: best(
        lambda: http(resolve("host.fireclaw.internal"), 11434, "x", "named"),
        lambda: http(GATEWAY, 11434, "x", "named"),
    ),
    "host": lambda: best(
        lambda: speak(GATEWAY, 2222),
        lambda: speak("192.0.2.2", 2222),
        lambda: speak(GATEWAY, 22),
        lambda: udp("192.0.2.2"),
    ),
    "other": lambda: best(lambda: speak(OTHER, 80), lambda: ping(OTHER), lambda: udp(OTHER)),
    "allowed": lambda: best(
        lambda: http(resolve("allowed.example"), 80, "allowed.example", "hello"),
        lambda: tls(resolve("allowed.example"), 443, "allowed.example"),
        lambda: http(resolve("www.allowed.example"), 80, "www.allowed.example", "hello"),
    ),
    "below": lambda: best(lambda: tls(resolve("sub.allowed.example"), 443, "sub.allowed.example")),
    "port": lambda: best(lambda: banner(resolve("allowed.example"))),
    "banner": lambda: best(lambda: banner(resolve("elsewhere.example"))),
    "samehost": lambda: best(
        lambda: http(known("allowed.example"), 80, "other.example", "hello"),
        lambda: tls(known("allowed.example"), 443, "other.example"),
        lambda: tls(known("allowed.example"), 443, None),
    ),
    "raw": lambda: best(lambda: http(ELSEWHERE, 80, "allowed.example", "hello")),
    "range": lambda: best(lambda: http("192.168.77.10", 80, "x", "hello")),
    "private": lambda: best(
        lambda: http("192.168.78.10", 80, "x", "hello"), lambda: udp("192.168.78.10")
    ),
    "udp": lambda: best(lambda: udp(ELSEWHERE)),
    "icmp": lambda: best(lambda: ping(ELSEWHERE)),
    "dns": lambda: best(
        lambda: resolve("allowed.example", RESOLVER),
        lambda: resolve("allowed.example", RESOLVER, tcp=True),
    ),
    "resolve": lambda: best(
        lambda: resolve("allowed.example"), lambda: resolve("allowed.example", tcp=True)
    ),
    "rebind": lambda: best(
        lambda: resolve("lan.example"),
        lambda: resolve("host.example"),
        lambda: resolve("metadata.example"),
        lambda: resolve("loopback.example"),
        lambda: resolve("alias.allowed.example"),
    ),
    "metadata": lambda: best(
        *(
            lambda a=a, to=to: to(a)
            for a in ("169.254.169.254", "168.63.129.16", "100.100.100.200")
            for to in (lambda a: http(a, 80, a, "hello"), udp)
        ),
    ),
    "ipv6": lambda: sent(
        lambda: frame(0x86DD, ipv6("2001:db8:1::5", "2001:db8::1", word("ipv6"))),
    ),
    "spoof": lambda: sent(
        lambda: frame(0x0800, ipv4("172.16.0.99", ELSEWHERE, word("spoof"))),
        lambda: frame(0x0800, ipv4(OTHER, ELSEWHERE, word("spoof"))),
        lambda: frame(0x0800, ipv4(OWN, ELSEWHERE, word("spoof")), sender=mac(OTHER)),
    ),
    # Record route, loose and strict source routes, a time stamp.
    "options": lambda: sent(
        lambda: optioned(b"\x07\x0b\x04" + bytes(8) + b"\0"),
        lambda: optioned(b"\x83\x07\x04" + socket.inet_aton(RESOLVER) + b"\0"),
        lambda: optioned(b"\x44\x08\x05\0" + bytes(4)),
        lambda: route(0x83),
        lambda: route(0x89),
    ),
    # Ports in the second, and whole ones that come together.
    "fragments": lambda: sent(
        lambda: fragment(0x2000, datagram(word("fragments") + b"12345678")[:8]),
        lambda: fragment(1, datagram(word("fragments") + b"12345678")[8:]),
    ),
    # To all and to some, as frames of one and of many.
    "many": lambda: sent(
        *(
            lambda a=a, to=to: frame(0x0800, packet(OWN, a, 17, datagram(word("many"))), to=to)
            for a in ("255.255.255.255", "172.16.0.255", "192.0.2.255", "224.0.0.1", "239.1.1.1")
            for to in (None, "255.255.255.255", "224.0.0.1", "224.0.0.251")
        ),
    ),
    # A priority alone, one, two.
    "vlan": lambda: sent(
        lambda: tagged((0x8100, 0xE000)),
        lambda: tagged((0x8100, 5)),
        lambda: tagged((0x88A8, 0), (0x8100, 0)),
    ),
    # IP in IP, IPv6 in IP, GRE, ESP, SCTP.
    "protocols": lambda: sent(
        *(
            lambda n=n, to=to: frame(0x0800, tunnelled(n, to))
            for n in (4, 41, 47, 50, 132)
            for to in (ELSEWHERE, "192.168.77.10")
        ),
    ),
}


def known(name):
    """The address of a name, asked for so that it is open if it may be."""
    try:
        resolve(name)
    except (OSError, Refused):
        pass
    return INTERNET


def speak(address, port):
    """Connected is not enough: a proxy may accept and then refuse."""
    http(address, port, "x", "hello")


for probe in sys.argv[5:]:
    print("=", probe, PROBES[probe](), flush=True)
