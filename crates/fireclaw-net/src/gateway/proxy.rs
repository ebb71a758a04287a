//! Connections of the guest: decided, looked at, made from the host's side, and cut when
//! the policy changes.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout, timeout_at};

use super::access::{Access, Permit, Policy};
use super::sniff::{self, Sniff};

/// The most connections at a time.
const CONNECTIONS: usize = 512;
/// Buffer for each direction of one connection, in bytes.
const BUFFER: usize = 64 << 10;
/// How long the other side may take to accept.
const CONNECT: Duration = Duration::from_secs(15);
/// How long a client may take to say whom it speaks to, once it has begun.
const SPEAK: Duration = Duration::from_secs(10);

/// Serves the guest's connections for as long as the gateway lives. Others on the host, or on
/// its wire, reach the port too and are sent away.
pub(super) async fn serve(shared: Arc<Access>, listener: TcpListener, guest: Ipv4Addr) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok((client, from)) = listener.accept().await else {
            // Out of descriptors or memory: it passes.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Some(wanted) = wanted(&client).filter(|_| from.ip() == guest) else {
            refuse(client);
            continue;
        };
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
            shared.deny(&wanted.ip().to_string(), Some(wanted.port()), "too many connections");
            refuse(client);
            continue;
        };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            connection(&shared, client, wanted).await;
            drop(permit);
        });
    }
}

/// Where the guest wanted to, before it was redirected.
fn wanted(client: &TcpStream) -> Option<SocketAddrV4> {
    SockRef::from(client).original_dst_v4().ok()?.as_socket_ipv4()
}

/// Ends a connection at once and visibly: with a reset.
fn refuse(client: TcpStream) {
    let _ = SockRef::from(&client).set_linger(Some(Duration::ZERO));
}

async fn connection(shared: &Access, mut client: TcpStream, wanted: SocketAddrV4) {
    // Before it is decided, so that no change is missed.
    let mut changes = shared.changes();
    let deny = |what: &str, reason| shared.deny(what, Some(wanted.port()), reason);
    let mut permit = match shared.decide(wanted) {
        Ok(permit) => permit,
        Err(reason) => {
            deny(&wanted.ip().to_string(), reason);
            return refuse(client);
        }
    };
    let Ok(Ok(mut server)) = timeout(CONNECT, TcpStream::connect(permit.to)).await else {
        return refuse(client);
    };
    // What is small is not to wait for more.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    // What is cut off at one side is not to look whole at the other.
    let break_off = |client, server| {
        refuse(client);
        refuse(server);
    };
    let cut = |client, server| {
        deny(&wanted.ip().to_string(), "cut by a change of the policy");
        break_off(client, server);
    };
    if !permit.names.is_empty() {
        let introduced = tokio::select! {
            introduced = introduction(&mut client, &mut server, &permit) => Some(introduced),
            () = not_permitted(shared, &mut changes, &permit) => None,
        };
        match introduced {
            Some(Introduction::Done(None)) => {}
            // From here on it is this name's connection alone.
            Some(Introduction::Done(Some(name))) => permit.names = vec![name],
            Some(Introduction::Denied { what, reason }) => {
                deny(&what.unwrap_or_else(|| wanted.ip().to_string()), reason);
                return refuse(client);
            }
            Some(Introduction::Ended) => return refuse(client),
            None => return cut(client, server),
        }
        // The policy may have changed for this one of the names.
        if !shared.still(&permit) {
            return cut(client, server);
        }
    }
    tokio::select! {
        copied = tokio::io::copy_bidirectional_with_sizes(&mut client, &mut server, BUFFER, BUFFER) => {
            if copied.is_err() {
                break_off(client, server);
            }
        }
        () = not_permitted(shared, &mut changes, &permit) => cut(client, server),
    }
}

/// Resolves when the policy permits a connection no longer.
async fn not_permitted(
    shared: &Access,
    changes: &mut watch::Receiver<Arc<Policy>>,
    permit: &Permit,
) {
    while changes.changed().await.is_ok() {
        if !shared.still(permit) {
            return;
        }
    }
    std::future::pending().await
}

enum Introduction {
    /// The first bytes are through; the name that they spoke of.
    Done(Option<String>),
    Denied {
        what: Option<String>,
        reason: &'static str,
    },
    Ended,
}

/// Holds the client's first bytes back until it is clear whom they speak to, however long
/// the client is silent. What the server says passes.
async fn introduction(
    client: &mut TcpStream,
    server: &mut TcpStream,
    permit: &Permit,
) -> Introduction {
    let mut first = Vec::new();
    let mut deadline = None;
    let mut from_server = vec![0; 4 << 10];
    let mut server_speaks = true;
    loop {
        let read = async {
            match deadline {
                None => Some(client.read_buf(&mut first).await),
                Some(deadline) => timeout_at(deadline, client.read_buf(&mut first)).await.ok(),
            }
        };
        let ended;
        tokio::select! {
            read = read => match read {
                None => return denied(None, "a first message that does not end"),
                Some(Err(_)) => return Introduction::Ended,
                Some(Ok(read)) => ended = read == 0,
            },
            said = server.read(&mut from_server), if server_speaks => {
                let passed = match said {
                    // It has said all; the client may have read none of it yet.
                    Ok(0) => {
                        server_speaks = false;
                        client.shutdown().await
                    }
                    Ok(length) => {
                        client.write_all(from_server.get(..length).unwrap_or_default()).await
                    }
                    Err(e) => Err(e),
                };
                if passed.is_err() {
                    return Introduction::Ended;
                }
                continue;
            }
        }
        deadline.get_or_insert_with(|| Instant::now() + SPEAK);
        let name = match sniff::sniff(&first) {
            // A client that says nothing more says nothing that a name would change.
            Sniff::More if ended && first.is_empty() => None,
            Sniff::More if ended => return denied(None, "a first message that does not end"),
            Sniff::More => continue,
            Sniff::Other => None,
            Sniff::Unclear(reason) => return denied(None, reason),
            Sniff::Name(name) if permit.names.contains(&name) => Some(name),
            Sniff::Name(name) => {
                return denied(Some(name), "not an allowed name of this address");
            }
        };
        if server.write_all(&first).await.is_err() {
            return Introduction::Ended;
        }
        return Introduction::Done(name);
    }
}

fn denied(what: Option<String>, reason: &'static str) -> Introduction {
    // Guests write it; people read it.
    let what = what.map(|name| {
        name.chars().take(255).map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect()
    });
    Introduction::Denied { what, reason }
}
