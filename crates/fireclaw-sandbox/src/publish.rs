//! Ports of this host that lead to ports of a guest, through the stream.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::task::Poll;
use std::time::Duration;

use fireclaw_vm::Commands;
use rustix::net::sockopt::set_socket_linger;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional_with_sizes};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::{Error, Publication, Result};

/// The most connections at once; more wait until one has ended. Each takes a
/// channel, and a command takes four of [`fireclaw_protocol::session::MAX_CHANNELS`].
const MAX_CONNECTIONS: usize = 32;

/// How long connections may last after what they were for has ended, for the bytes
/// that are on their way.
const LAST_BYTES: Duration = Duration::from_secs(2);

/// How long nothing is accepted after that failed: most often this process has no
/// descriptors left, and nobody tells when there is one again.
const AFTER_FAILURE: Duration = Duration::from_millis(200);

/// How much is read at once, in bytes.
const BUFFER: usize = 64 * 1024;

/// Ports that are listened on. Connections wait until there is a guest.
#[derive(Debug)]
pub struct Ports(Vec<Port>);

#[derive(Debug)]
struct Port {
    publication: Publication,
    bound: SocketAddr,
    listener: std::net::TcpListener,
}

impl Ports {
    /// Takes all ports, or none.
    ///
    /// # Errors
    /// [`Error::Publish`] for the first that cannot be had.
    pub fn open(publications: &[Publication]) -> Result<Self> {
        let open = |publication: &Publication| {
            Port::open(*publication)
                .map_err(|cause| Error::Publish { publication: *publication, cause })
        };
        Ok(Self(publications.iter().map(open).collect::<Result<_>>()?))
    }

    /// No ports.
    pub fn none() -> Self {
        Self(Vec::new())
    }

    /// What was asked for, with where it is listened: a port that nobody chose is known now.
    pub fn bound(&self) -> Vec<(Publication, SocketAddr)> {
        self.0.iter().map(|port| (port.publication, port.bound)).collect()
    }

    /// Whether no ports are published.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Makes ready to pass connections on to a guest. To be called within a runtime.
    ///
    /// # Errors
    /// What the system says if it cannot wait for connections.
    pub fn serve(self, commands: &Commands) -> io::Result<Serving> {
        Ok(Serving(Server::new(self, commands.clone())?))
    }
}

impl Port {
    fn open(publication: Publication) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(publication.host())?;
        listener.set_nonblocking(true)?;
        Ok(Self { publication, bound: listener.local_addr()?, listener })
    }
}

/// Passes connections on. Dropping it frees the ports and ends all connections.
#[derive(Debug)]
pub struct Serving(Server<Commands>);

impl Serving {
    /// Accepts connections and passes them on until it is dropped. Cancel-safe: connections go
    /// on meanwhile, but no more are accepted.
    pub async fn pass_on(&mut self) -> Infallible {
        self.0.pass_on().await
    }

    /// Frees the ports, and lets connections last for the bytes that are on their way.
    pub async fn finish(self) {
        self.0.finish().await;
    }
}

/// What connections are passed on to.
trait Target: Clone + Send + Sync + 'static {
    /// The other side of a connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send;

    /// Connects to a port of it.
    fn connect(&self, port: u16) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Target for Commands {
    type Stream = fireclaw_protocol::session::Channel;

    async fn connect(&self, port: u16) -> io::Result<Self::Stream> {
        Commands::connect(self, port).await.map_err(io::Error::other)
    }
}

#[derive(Debug)]
struct Server<T> {
    listeners: Vec<(TcpListener, u16)>,
    target: T,
    /// Dropping it ends them all.
    connections: JoinSet<()>,
}

impl<T: Target> Server<T> {
    fn new(ports: Ports, target: T) -> io::Result<Self> {
        let registered =
            |port: Port| Ok((TcpListener::from_std(port.listener)?, port.publication.guest()));
        let listeners = ports.0.into_iter().map(registered).collect::<io::Result<_>>()?;
        Ok(Self { listeners, target, connections: JoinSet::new() })
    }

    async fn pass_on(&mut self) -> Infallible {
        loop {
            tokio::select! {
                accepted = next(&self.listeners), if self.connections.len() < MAX_CONNECTIONS => {
                    match accepted {
                        Ok((stream, guest)) => {
                            self.connections.spawn(relay(stream, self.target.clone(), guest));
                        }
                        Err(_) => tokio::time::sleep(AFTER_FAILURE).await,
                    }
                }
                Some(_) = self.connections.join_next() => {}
            }
        }
    }

    async fn finish(mut self) {
        self.listeners.clear();
        let ended = async { while self.connections.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(LAST_BYTES, ended).await;
    }
}

/// The next connection, with the guest's port to which it goes. Fails only if there is no
/// other. Cancel-safe.
async fn next(listeners: &[(TcpListener, u16)]) -> io::Result<(TcpStream, u16)> {
    poll_fn(|cx| {
        let mut failed = None;
        for (listener, guest) in listeners {
            match listener.poll_accept(cx) {
                Poll::Ready(Ok((stream, _))) => return Poll::Ready(Ok((stream, *guest))),
                Poll::Ready(Err(e)) => failed = Some(e),
                Poll::Pending => {}
            }
        }
        match failed {
            Some(e) => Poll::Ready(Err(e)),
            None => Poll::Pending,
        }
    })
    .await
}

/// Passes bytes both ways until both directions have ended. What goes wrong
/// resets the connection: an end would look like all there was.
async fn relay(mut stream: TcpStream, target: impl Target, guest: u16) {
    let copied = async {
        stream.set_nodelay(true)?;
        let mut other = target.connect(guest).await?;
        copy_bidirectional_with_sizes(&mut stream, &mut other, BUFFER, BUFFER).await
    };
    if copied.await.is_err() {
        let _ = set_socket_linger(&stream, Some(Duration::ZERO));
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::sync::{Arc, Mutex};
    use std::time::Instant;

    use rustix::net::{AddressFamily, SocketType};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
    use tokio::task::{JoinHandle, LocalSet};

    use super::*;

    /// A guest that keeps the ends of all connections to it, with the ports they came to.
    #[derive(Clone, Default)]
    struct Fake(Arc<Mutex<Vec<(u16, DuplexStream)>>>);

    impl Target for Fake {
        type Stream = DuplexStream;

        async fn connect(&self, port: u16) -> io::Result<DuplexStream> {
            if port == 1 {
                return Err(ErrorKind::ConnectionRefused.into());
            }
            let (ours, theirs) = tokio::io::duplex(BUFFER);
            self.0.lock().unwrap().push((port, theirs));
            Ok(ours)
        }
    }

    impl Fake {
        fn count(&self) -> usize {
            self.0.lock().unwrap().len()
        }

        /// The next connection to it.
        async fn accept(&self) -> (u16, DuplexStream) {
            within(async {
                loop {
                    if let Some(next) = self.0.lock().unwrap().pop() {
                        return next;
                    }
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            })
            .await
        }
    }

    /// Nothing here takes long.
    async fn within<T>(work: impl Future<Output = T>) -> T {
        tokio::time::timeout(Duration::from_secs(30), work).await.unwrap()
    }

    fn ports(publications: &[&str]) -> (Ports, Vec<SocketAddr>) {
        let parsed: Vec<_> = publications.iter().map(|text| text.parse().unwrap()).collect();
        let ports = Ports::open(&parsed).unwrap();
        let bound = ports.bound().into_iter().map(|(_, bound)| bound).collect();
        (ports, bound)
    }

    /// Serves as the daemon does: in a task of one thread, whose end is the end of it all.
    fn serving(ports: Ports, guest: &Fake) -> JoinHandle<()> {
        let mut server = Server::new(ports, guest.clone()).unwrap();
        tokio::task::spawn_local(async move { match server.pass_on().await {} })
    }

    #[test]
    fn what_is_taken_is_an_error_and_a_port_that_nobody_chose_is_told() {
        let (ports, bound) = ports(&["0:80", "[::1]:0:81"]);
        assert!(!ports.is_empty());
        assert_eq!(ports.bound()[0].0.to_string(), "127.0.0.1:0:80");
        assert!(bound[0].port() != 0 && bound[1].is_ipv6(), "{bound:?}");
        let publication: Publication = format!("{}:80", bound[0]).parse().unwrap();
        let error = Ports::open(&[publication]).unwrap_err();
        let said = format!("cannot publish {publication}: ");
        assert!(error.to_string().starts_with(&said), "{error}");
        assert!(
            matches!(error, Error::Publish { cause, .. } if cause.kind() == ErrorKind::AddrInUse)
        );
        drop(ports);
        Ports::open(&[publication]).unwrap();
        assert!(Ports::open(&[]).unwrap().is_empty());
    }

    #[tokio::test]
    async fn each_port_leads_to_its_own_and_each_direction_ends_by_itself() {
        let (ports, bound) = ports(&["0:80", "0:81", "0:1"]);
        let guest = Fake::default();
        let asked = async {
            for (at, port) in [(1, 81), (0, 80)] {
                let mut stream = TcpStream::connect(bound[at]).await.unwrap();
                stream.write_all(b"question").await.unwrap();
                stream.shutdown().await.unwrap();
                let (to, mut other) = guest.accept().await;
                assert_eq!(to, port);
                let mut text = String::new();
                other.read_to_string(&mut text).await.unwrap();
                assert_eq!(text, "question");
                other.write_all(b"answer").await.unwrap();
                drop(other);
                text.clear();
                stream.read_to_string(&mut text).await.unwrap();
                assert_eq!(text, "answer");
            }
            // Nobody listens there.
            let mut nobody = TcpStream::connect(bound[2]).await.unwrap();
            let error = nobody.read(&mut [0]).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        };
        let local = LocalSet::new();
        local
            .run_until(async {
                let server = serving(ports, &guest);
                within(asked).await;
                server.abort();
            })
            .await;
    }

    #[tokio::test]
    async fn dropping_it_ends_all_connections_and_frees_the_ports() {
        let (ports, bound) = ports(&["0:80"]);
        let guest = Fake::default();
        let local = LocalSet::new();
        local
            .run_until(async {
                let server = serving(ports, &guest);
                let mut stream = TcpStream::connect(bound[0]).await.unwrap();
                let (_, mut other) = guest.accept().await;
                server.abort();
                // Neither side waits for ever.
                let _ = within(stream.read(&mut [0])).await;
                assert_eq!(within(other.read(&mut [0])).await.unwrap(), 0);
                let error = TcpStream::connect(bound[0]).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
            })
            .await;
    }

    #[tokio::test]
    async fn more_connections_than_there_may_be_wait() {
        let (ports, bound) = ports(&["0:80"]);
        let guest = Fake::default();
        let local = LocalSet::new();
        local
            .run_until(async {
                let server = serving(ports, &guest);
                let mut streams = Vec::new();
                for _ in 0..MAX_CONNECTIONS + 1 {
                    streams.push(TcpStream::connect(bound[0]).await.unwrap());
                }
                within(async {
                    while guest.count() < MAX_CONNECTIONS {
                        tokio::task::yield_now().await;
                    }
                })
                .await;
                tokio::time::sleep(Duration::from_millis(50)).await;
                assert_eq!(guest.count(), MAX_CONNECTIONS);
                drop(guest.accept().await);
                streams.clear();
                within(async {
                    while guest.count() < MAX_CONNECTIONS {
                        tokio::task::yield_now().await;
                    }
                })
                .await;
                server.abort();
            })
            .await;
    }

    #[tokio::test]
    async fn what_is_on_its_way_at_the_end_still_arrives() {
        let (ports, bound) = ports(&["0:80"]);
        let guest = Fake::default();
        let mut server = Server::new(ports, guest.clone()).unwrap();
        let mut stream = TcpStream::connect(bound[0]).await.unwrap();
        let mut idle = TcpStream::connect(bound[0]).await.unwrap();
        let (first, second) = tokio::select! {
            never = server.pass_on() => match never {},
            both = async { (guest.accept().await, guest.accept().await) } => both,
        };
        let (_, mut answering) = first;
        let (_, _silent) = second;
        // Which of them is which connection's is not known: either may get the answer.
        let begun = Instant::now();
        let answer = async {
            answering.write_all(b"late").await.unwrap();
            drop(answering);
        };
        let read = async {
            let (mut one, mut other) = (String::new(), String::new());
            // That which got nothing is cut off.
            let _ = stream.read_to_string(&mut one).await;
            let _ = idle.read_to_string(&mut other).await;
            one + &other
        };
        let ((), (), text) = within(async { tokio::join!(server.finish(), answer, read) }).await;
        assert_eq!(text, "late");
        assert!(begun.elapsed() >= LAST_BYTES, "the other has its time, too");
    }

    #[tokio::test]
    async fn a_port_that_fails_neither_spins_nor_stops_the_others() {
        let (mut ports, bound) = ports(&["0:80"]);
        // Nothing can be accepted from a socket that does not listen.
        let deaf = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        let listener = std::net::TcpListener::from(deaf);
        listener.set_nonblocking(true).unwrap();
        let publication = "0:81".parse().unwrap();
        ports.0.insert(0, Port { publication, bound: bound[0], listener });
        let guest = Fake::default();
        let mut server = Server::new(ports, guest.clone()).unwrap();
        let mut polled = 0;
        let mut stream = TcpStream::connect(bound[0]).await.unwrap();
        let counted = async {
            let passing = server.pass_on();
            tokio::pin!(passing);
            poll_fn(|cx| {
                polled += 1;
                passing.as_mut().poll(cx)
            })
            .await
        };
        let exchange = async {
            let (port, mut other) = guest.accept().await;
            assert_eq!(port, 80);
            other.write_all(b"x").await.unwrap();
            stream.read_exact(&mut [0]).await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
        };
        within(async {
            tokio::select! {
                never = counted => match never {},
                () = exchange => {}
            }
        })
        .await;
        // select! polls this one along with its neighbour, which looks a few times.
        assert!(polled < 100, "{polled}");
    }
}
