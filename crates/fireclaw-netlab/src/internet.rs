//! The internet of the lab: addresses, names, servers.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, CNAME};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use crate::namespace::ip;
use crate::{Namespace, Wire};

/// The host's address on its uplink.
pub const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// The resolver that the host uses.
pub const DNS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 53);

/// All addresses of the internet's one VM, and of the private networks beside it.
const ADDRESSES: [&str; 9] = [
    "203.0.113.10",
    "203.0.113.20",
    "203.0.113.53",
    "198.51.100.10",
    "192.168.77.10",
    "192.168.78.10",
    "169.254.169.254",
    "168.63.129.16",
    "100.100.100.200",
];

/// What the resolver knows.
const NAMES: [(&str, &str); 10] = [
    ("allowed.example", "203.0.113.10"),
    // Another name of the same VM.
    ("other.example", "203.0.113.10"),
    ("elsewhere.example", "203.0.113.20"),
    ("sub.allowed.example", "198.51.100.10"),
    // Names of the internet that lead where none should.
    ("lan.example", "192.168.78.10"),
    ("host.example", "192.0.2.2"),
    ("metadata.example", "169.254.169.254"),
    ("loopback.example", "127.0.0.1"),
    // Other names of others.
    ("www.allowed.example", "sub.allowed.example"),
    ("alias.allowed.example", "lan.example"),
];

/// The internet, running.
#[derive(Debug)]
pub struct Internet {
    /// Where it is.
    pub namespace: Namespace,
    /// All that came to it.
    pub wire: Wire,
}

#[allow(clippy::expect_used)]
impl Internet {
    pub(crate) fn start() -> Self {
        let namespace = Namespace::new();
        ip(&format!("link add up0 type veth peer name net0 netns {}", namespace.path()));
        ip(&format!("addr add {HOST}/24 dev up0"));
        ip("addr add 2001:db8::2/64 dev up0 nodad");
        ip("link set up0 up");
        namespace.run(|| {
            ip("addr add 192.0.2.1/24 dev net0");
            ip("addr add 2001:db8::1/64 dev net0 nodad");
            ip("link set net0 up");
            for address in ADDRESSES {
                ip(&format!("addr add {address}/32 dev lo"));
            }
        });
        ip("route add default via 192.0.2.1");
        let wire = namespace.run(Wire::new);
        namespace.run(servers);
        let host = bind_host();
        start(move || async move {
            let (named, unnamed) = host;
            let named = TcpListener::from_std(named).expect("a listener");
            let unnamed = TcpListener::from_std(unnamed).expect("a listener");
            tokio::join!(http(named, "named"), http(unnamed, "unnamed"));
        });
        Self { namespace, wire }
    }
}

/// A service on the host's loopback, and one on all of its addresses.
#[allow(clippy::expect_used)]
fn bind_host() -> (std::net::TcpListener, std::net::TcpListener) {
    let bind = |address: &str| {
        let listener = std::net::TcpListener::bind(address).expect("the port is free");
        listener.set_nonblocking(true).expect("a listener");
        listener
    };
    (bind("127.0.0.1:11434"), bind("0.0.0.0:2222"))
}

/// Runs servers in a thread of their own.
#[allow(clippy::expect_used)]
fn start<F: Future<Output = ()>>(work: impl FnOnce() -> F + Send + 'static) {
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(work());
    });
}

/// Opens all sockets in this thread's namespace, and serves them from another.
#[allow(clippy::expect_used)]
fn servers() {
    let tcp = |port: u16| {
        let listener = std::net::TcpListener::bind(("0.0.0.0", port)).expect("the port is free");
        listener.set_nonblocking(true).expect("a listener");
        listener
    };
    let udp = |address: &str| {
        let socket = std::net::UdpSocket::bind(address).expect("the port is free");
        socket.set_nonblocking(true).expect("a socket");
        socket
    };
    let (web, tls, banner, dns_tcp) = (tcp(80), tcp(443), tcp(22), tcp(53));
    // One for each address, so that an answer comes from where the question went.
    let echoes: Vec<_> = ADDRESSES.iter().map(|address| udp(&format!("{address}:9999"))).collect();
    let echo6 = udp("[::]:9998");
    let dns: Vec<_> = ADDRESSES.iter().map(|address| udp(&format!("{address}:53"))).collect();
    start(move || async move {
        let listener = |std| TcpListener::from_std(std).expect("a listener");
        tokio::spawn(http(listener(web), "internet"));
        tokio::spawn(https(listener(tls)));
        tokio::spawn(ssh(listener(banner)));
        tokio::spawn(resolver_tcp(listener(dns_tcp)));
        for socket in dns {
            tokio::spawn(resolver(UdpSocket::from_std(socket).expect("a socket")));
        }
        for socket in echoes.into_iter().chain([echo6]) {
            let socket = UdpSocket::from_std(socket).expect("a socket");
            tokio::spawn(echo(socket));
        }
        std::future::pending().await
    });
}

async fn each<F: Future<Output = ()> + Send + 'static>(
    listener: TcpListener,
    serve: impl Fn(TcpStream) -> F,
) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve(stream));
    }
}

/// Says which Host was asked for, and goes on.
async fn http(listener: TcpListener, who: &'static str) {
    each(listener, move |stream| answer(stream, who)).await;
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, who: &'static str) {
    let mut request = Vec::new();
    while stream.read_buf(&mut request).await.is_ok_and(|read| read > 0) {
        if request.ends_with(b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&request).to_lowercase();
            let host = text.lines().find_map(|line| line.strip_prefix("host:")).unwrap_or("");
            let body = format!("{who} says hello as {}\n", host.trim());
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            if stream.write_all((head + &body).as_bytes()).await.is_err() {
                return;
            }
            request.clear();
        }
    }
}

#[allow(clippy::expect_used)]
async fn https(listener: TcpListener) {
    let names = NAMES.map(|(name, _)| name.to_owned()).to_vec();
    let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
    let key = made.signing_key.serialize_der().try_into().expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("a certificate and its key");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    each(listener, move |stream| {
        let acceptor = acceptor.clone();
        async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                answer(stream, "internet").await;
            }
        }
    })
    .await;
}

/// Speaks first, then echoes.
async fn ssh(listener: TcpListener) {
    each(listener, |mut stream| async move {
        if stream.write_all(b"SSH-2.0-lab\r\n").await.is_ok() {
            let (mut read, mut write) = stream.split();
            let _ = tokio::io::copy(&mut read, &mut write).await;
        }
    })
    .await;
}

async fn echo(socket: UdpSocket) {
    let mut buffer = [0; 2048];
    while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
        let bytes = buffer.get(..length).unwrap_or_default();
        let _: std::io::Result<(usize, SocketAddr)> =
            socket.send_to(bytes, from).await.map(|sent| (sent, from));
    }
}

async fn resolver(socket: UdpSocket) {
    let mut buffer = [0; 2048];
    while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
        if let Some(reply) = reply(buffer.get(..length).unwrap_or_default()) {
            let _ = socket.send_to(&reply, from).await;
        }
    }
}

async fn resolver_tcp(listener: TcpListener) {
    each(listener, |mut stream| async move {
        while let Ok(length) = stream.read_u16().await {
            let mut question = vec![0; length.into()];
            if stream.read_exact(&mut question).await.is_err() {
                return;
            }
            let Some(reply) = reply(&question) else { return };
            let length = u16::try_from(reply.len()).unwrap_or_default();
            if stream.write_u16(length).await.is_err() || stream.write_all(&reply).await.is_err() {
                return;
            }
        }
    })
    .await;
}

fn reply(question: &[u8]) -> Option<Vec<u8>> {
    let question = Message::from_vec(question).ok()?;
    let query = question.queries.first()?.clone();
    let mut reply = Message::response(question.metadata.id, question.metadata.op_code);
    reply.metadata.recursion_desired = true;
    reply.metadata.recursion_available = true;
    let name = query.name().to_ascii().to_lowercase();
    let known = |name: &str| NAMES.into_iter().find(|(known, _)| *known == name);
    let mut owner = query.name().clone();
    let mut known_as = known(name.trim_end_matches('.'));
    reply.add_query(query.clone());
    if let Some((_, other)) = known_as
        && let Some(known) = known(other)
    {
        let other = Name::from_ascii(format!("{other}.")).ok()?;
        reply.add_answer(Record::from_rdata(owner, 300, RData::CNAME(CNAME(other.clone()))));
        (owner, known_as) = (other, Some(known));
    }
    match known_as {
        None => reply.metadata.response_code = ResponseCode::NXDomain,
        Some((_, address)) if query.query_type() == RecordType::A => {
            let data = RData::A(A(address.parse().ok()?));
            reply.add_answer(Record::from_rdata(owner, 300, data));
        }
        Some(_) => {}
    }
    reply.to_vec().ok()
}
