//! The name that a client's first bytes speak of: SNI in TLS, Host in HTTP/1.

use rustls::server::Acceptor;

/// The most bytes that are looked at.
pub(super) const MAX: usize = 16 << 10;

/// The most header lines of a request.
const MAX_HEADERS: usize = 128;

/// What the first bytes say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sniff {
    /// More are needed.
    More,
    /// It is TLS or HTTP/1 for this host, in lower case and without a dot at the end.
    Name(String),
    /// It is neither.
    Other,
    /// It is one of both, but has no name, or cannot be understood.
    Unclear(&'static str),
}

/// Looks at all bytes that came so far.
pub(super) fn sniff(bytes: &[u8]) -> Sniff {
    let found = match bytes.first() {
        None => Sniff::More,
        // A TLS record with a handshake message (RFC 8446, 5.1).
        Some(0x16) => tls(bytes),
        // A record of another kind before the hello: no client begins so.
        Some(0x14..=0x18) if matches!(bytes, [_] | [_, 3, ..]) => match bytes {
            [_] => Sniff::More,
            _ => INVALID_TLS,
        },
        // A hello in the frame of SSL 2, in which servers take TLS too (RFC 5246, E.2): it
        // has no name.
        Some(0x80..) if matches!(bytes, [_, _, 1, ..]) => Sniff::Unclear("TLS without a name"),
        Some(0x80..) if bytes.len() < 3 => Sniff::More,
        Some(_) => text(bytes),
    };
    match found {
        Sniff::More if bytes.len() >= MAX => Sniff::Unclear("a first message that is too long"),
        found => found,
    }
}

const INVALID_TLS: Sniff = Sniff::Unclear("TLS that is not understood");

fn tls(bytes: &[u8]) -> Sniff {
    let mut acceptor = Acceptor::default();
    let mut rest = bytes;
    while !rest.is_empty() {
        // It takes a part at a time.
        match acceptor.read_tls(&mut rest) {
            Ok(0) | Err(_) => return INVALID_TLS,
            Ok(_) => {}
        }
        match acceptor.accept() {
            Ok(None) => {}
            Ok(Some(accepted)) => {
                return match accepted.client_hello().server_name() {
                    Some(name) => Sniff::Name(plain(name)),
                    None => Sniff::Unclear("TLS without a name"),
                };
            }
            Err(_) => return INVALID_TLS,
        }
    }
    Sniff::More
}

/// What servers take for space in a request line (RFC 9112, 3; Python also takes the others).
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | 0x0b..=0x0d | 0x1c..=0x1f | 0x85 | 0xa0)
}

/// Whether a byte may be of the first word of something that a server takes for HTTP. More
/// than a method may have: whoever reads leniently must not see a request where we see none.
/// Other control characters are of protocols that are not text.
fn is_wordy(byte: &u8) -> bool {
    byte.is_ascii_graphic() || *byte >= 0x80 || is_space(*byte)
}

/// HTTP/1 begins with a line of text: a method, a space, and at its end the version. Empty
/// lines before it are passed over, as servers do (RFC 9112, 2.2), and so are spaces and
/// NULs. What may become such a line is waited for, so that nobody gains by how bytes are
/// cut; what it becomes is parsed strictly.
fn text(bytes: &[u8]) -> Sniff {
    let start = bytes.iter().position(|&byte| !(b"\n\0".contains(&byte) || is_space(byte)));
    let Some(line) = start.and_then(|start| bytes.get(start..)) else { return Sniff::More };
    let end = line.iter().position(|&byte| byte == b'\n');
    let line = line.get(..end.unwrap_or(line.len())).unwrap_or_default();
    let method = line.split(|byte| b" \t".contains(byte)).next().unwrap_or_default();
    // git's own protocol: a length in digits, a command, and a NUL (gitprotocol-pack(5)). It
    // does not end its line; and no server has methods of digits, with a NUL in the target.
    let is_git = method.first().is_some_and(u8::is_ascii_digit) && line.contains(&0);
    if is_git || !method.iter().all(is_wordy) {
        return Sniff::Other;
    }
    let has_version = line.windows(6).any(
        |part| matches!(part, [space, name @ ..] if is_space(*space) && name.eq_ignore_ascii_case(b"HTTP/")),
    );
    match end {
        None => Sniff::More,
        Some(_) if has_version => http(bytes),
        // HTTP/0.9, in which servers take the name of any host.
        Some(_) if is_simple(line) => Sniff::Unclear("HTTP without a version"),
        Some(_) => Sniff::Other,
    }
}

/// Whether a line is a request without a version: `GET`, and a path or a URI.
fn is_simple(line: &[u8]) -> bool {
    let mut words = line.split(|&byte| is_space(byte)).filter(|word| !word.is_empty());
    words.next().is_some_and(|method| method.eq_ignore_ascii_case(b"GET"))
        && words.next().is_some_and(|target| {
            target.starts_with(b"/") || target.windows(3).any(|part| part == b"://")
        })
}

fn http(bytes: &[u8]) -> Sniff {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Partial) => return Sniff::More,
        Ok(httparse::Status::Complete(_)) => {}
        Err(_) => return Sniff::Unclear("HTTP that is not understood"),
    }
    let target = request.path.unwrap_or_default();
    let mut hosts =
        request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("host"));
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return Sniff::Unclear("HTTP without one Host");
    };
    let Some(host) = std::str::from_utf8(host.value).ok().and_then(authority) else {
        return Sniff::Unclear("HTTP without one Host");
    };
    // What the target says goes before Host (RFC 9112, 3.2.2 and 3.2.3). A path says nothing.
    let named = match target.split_once("://") {
        Some((_, rest)) if !target.starts_with('/') => rest.split(['/', '?', '#']).next(),
        _ if request.method == Some("CONNECT") => Some(target),
        _ => None,
    };
    if named.is_some_and(|named| authority(named).as_ref() != Some(&host)) {
        return Sniff::Unclear("HTTP with two hosts");
    }
    Sniff::Name(host)
}

/// The host of `host` or `host:port`; none if it is neither.
fn authority(text: &str) -> Option<String> {
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    port.bytes().all(|byte| byte.is_ascii_digit()).then(|| plain(host))
}

fn plain(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Arc;

    /// What a real client says first.
    fn hello(name: &'static str) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let name = name.try_into().unwrap();
        let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        bytes
    }

    #[test]
    fn tls() {
        let bytes = hello("Www.Example.org");
        assert_eq!(sniff(&bytes), Sniff::Name("www.example.org".into()));
        for cut in 0..bytes.len() {
            assert_eq!(sniff(&bytes[..cut]), Sniff::More, "{cut}");
        }
        // The client names no address (RFC 6066).
        assert_eq!(sniff(&hello("203.0.113.1")), Sniff::Unclear("TLS without a name"));
        // In the frame of SSL 2: its length, the message, the version.
        let old = [0x80, 0x2e, 1, 3, 3, 0, 3];
        assert_eq!(sniff(&old), Sniff::Unclear("TLS without a name"));
        assert_eq!(sniff(&old[..2]), Sniff::More);
        assert_eq!(sniff(&[0x80, 0x2e, 2]), Sniff::Other);
        // An alert, or a change of cipher, before the hello.
        for first in [&[0x15, 3, 1, 0, 2, 1, 0x70][..], &[0x14, 3, 3, 0, 1, 1]] {
            assert!(matches!(sniff(&[first, &bytes].concat()), Sniff::Unclear(_)));
            assert_eq!(sniff(&first[..1]), Sniff::More);
        }
        assert_eq!(sniff(&[0x15, 9]), Sniff::Other);
        let mut broken = bytes;
        broken[5] = 99;
        assert!(matches!(sniff(&broken), Sniff::Unclear(_)));
    }

    #[test]
    fn http() {
        let name = |text: &str| sniff(text.as_bytes());
        let a = || Sniff::Name("a.org".into());
        assert_eq!(name("GET / HTTP/1.1\r\nHost: A.org.\r\n\r\n"), a());
        assert_eq!(name("\r\n\nGET / HTTP/1.1\nhost:a.org:8080\n\n"), a());
        assert_eq!(name("FOO /x HTTP/1.0\r\nX: y\r\nHOST: a.org\r\n\r\n"), a());
        assert_eq!(name("GET http://a.org:80/x HTTP/1.1\r\nHost: a.org\r\n\r\n"), a());
        assert_eq!(name("GET /?next=http://b.org/ HTTP/1.1\r\nHost: \ta.org: \r\n\r\n"), a());
        for unclear in [
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a.org\r\nHost: b.org\r\n\r\n",
            "GET http://b.org/ HTTP/1.1\r\nHost: a.org\r\n\r\n",
            "CONNECT b.org:443 HTTP/1.1\r\nHost: a.org\r\n\r\n",
            "GET http://a.org:x@b.org/ HTTP/1.1\r\nHost: a.org\r\n\r\n",
            "GET http://a.org@b.org:80/ HTTP/1.1\r\nHost: a.org\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a.org:b.org\r\n\r\n",
            "GET / HTTP/1.1\r\nHost : a.org\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: b.org\r\n a.org\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "GET / http/1.1\r\nHost: a.org\r\n\r\n",
            "GET /\x01 HTTP/1.1\r\nHost: a.org\r\n\r\n",
            // What Python's server takes for a space, and nginx for a request to b.org.
            "GET\x0b/\x0bHTTP/1.1\r\nHost: b.org\r\n\r\n",
            "GET /\x0cHTTP/1.1\r\nHost: b.org\r\n\r\n",
            "GET\x1c/\x1fHTTP/1.1\r\nHost: b.org\r\n\r\n",
            "GET /\rHTTP/1.1\r\nHost: b.org\r\n\r\n",
            "GET http://b.org/\r\n",
            "get  /\r\n",
            // What begins like HTTP and is none: no server may find a request in it.
            "\"GET / HTTP/1.1\r\nHost: b.org\r\n\r\n",
            "G\u{c9}T / HTTP/1.1\r\nHost: b.org\r\n\r\n",
            "\u{feff}GET / HTTP/1.1\r\nHost: b.org\r\n\r\n",
            "\0GET / HTTP/1.1\r\nHost: b.org\r\n\r\n",
            "\0\0\r\n\0GET / HTTP/1.1\r\nHost: b.org\r\n\r\n",
            " GET / HTTP/1.1\r\nHost: b.org\r\n\r\n",
            "\t\x0b\r\nGET / HTTP/1.1\r\nHost: b.org\r\n\r\n",
            "(GET) / HTTP/1.1\r\nHost: b.org\r\n\r\n",
            "G,T / HTTP/1.1\r\nHost: b.org\r\n\r\n",
            "GET@ / HTTP/1.1\r\nHost: a.org\r\n\r\n",
            "GET /\0 HTTP/1.1\r\nHost: a.org\r\n\r\n",
            "GET / HTTP/1.1\r\nA: b\rHost: b.org\r\nHost: a.org\r\n\r\n",
            "GET / HTTP/1.1\r\nA: b\0\r\nHost: a.org\r\n\r\n",
            "\0GET /\r\n",
        ] {
            assert!(matches!(name(unclear), Sniff::Unclear(_)), "{unclear}");
        }
        for more in [
            "",
            "G",
            "\r\n",
            "GET / HTTP/1.1",
            "GET / HTTP/1.1\r\nHost: a.org\r\n",
            "GET /\x01",
            "GET /\0",
            "0032git",
            "\0",
            "\0GET",
            "\"G",
            "\u{c9}",
            " ",
        ] {
            assert_eq!(name(more), Sniff::More, "{more}");
        }
        for other in [
            "SSH-2.0-x\r\n",
            "EHLO x\r\n",
            "*1\r\n$4\r\nPING\r\n",
            "\0\x01",
            "ab\x01",
            "0\x0c\x02",
            "get key\r\n",
            "0032git-upload-pack /a.git\0host=a.org\0",
            "\"quoted\" text\r\n",
            "gr\u{fc}n HTTP\r\n",
        ] {
            assert_eq!(name(other), Sniff::Other, "{other}");
        }
        // Protocols that are not text are known at once: PostgreSQL, a question over TCP (its
        // first length is a letter), MQTT, RDP, LDAP, Kafka, SMB.
        for other in [
            &b"\0\0\0\x08\x04\xd2\x16\x2f"[..],
            b"\0A\x12\x34\x01\0\0\x01",
            b"\x10\x0c\0\x04MQTT",
            b"\x03\0\0\x13",
            b"0\x0c\x02\x01",
            b"\0\0\0\x2a\0\x12\0\x04",
            b"\0\0\0\x40\xfeSMB@\0",
        ] {
            assert_eq!(sniff(other), Sniff::Other, "{other:?}");
        }
        // Not a space of HTTP.
        assert_ne!(name("GET / HTTP/1.1\r\nHost: a.org\u{a0}\r\n\r\n"), a());
        assert!(matches!(sniff(&[b'a'; MAX]), Sniff::Unclear(_)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(bytes: Vec<u8>, tls: bool) {
            let mut bytes = bytes;
            if tls {
                bytes.splice(0..0, [0x16, 3, 1]);
            }
            sniff(&bytes);
        }

        /// Whatever stands before and in its method: a line that ends like a request's is
        /// read as HTTP and never passed as something else, or it is no text at all.
        #[test]
        fn what_ends_like_a_request_is_no_other_protocol(
            before in "[\r\n\0 \t]{0,3}",
            method in "[!-~\u{80}-\u{ff}]{0,8}",
            version in "(HTTP|http|Http)/[0-9]\\.[0-9]",
        ) {
            let text = format!("{before}{method} / {version}\r\nHost: b.org\r\n\r\n");
            let found = sniff(text.as_bytes());
            // A C1 character is two bytes, of which the first may look like a frame of SSL 2.
            let is_b = found == Sniff::Name("b.org".into());
            prop_assert!(is_b || matches!(found, Sniff::Unclear(_)), "{:?}: {:?}", text, found);
            for cut in 0..text.len() {
                let part = sniff(&text.as_bytes()[..cut]);
                prop_assert!(!matches!(part, Sniff::Other | Sniff::Name(_)), "{}: {:?}", cut, part);
            }
        }

        /// What was judged does not change with what comes after it: a client gains nothing
        /// by how it cuts its bytes.
        #[test]
        fn more_bytes_do_not_change_a_verdict(
            text in "(GET|ab) ?/ ?(HTTP/1.1)?\r?\n(Host: a\\.org\r\n)?(\r\n)?[ -~\r\n]{0,30}",
            cut in 0usize..60,
        ) {
            let bytes = text.as_bytes();
            let cut = cut.min(bytes.len());
            let part = sniff(&bytes[..cut]);
            if matches!(part, Sniff::Name(_) | Sniff::Other) {
                prop_assert_eq!(part, sniff(bytes));
            }
        }
    }
}
