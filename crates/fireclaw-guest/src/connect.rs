//! Connections from the host to a port of this machine.

use std::net::Ipv4Addr;

use fireclaw_protocol::frame;
use fireclaw_protocol::message::Connected;
use fireclaw_protocol::session::Channel;
use tokio::io::{AsyncWriteExt, copy_bidirectional_with_sizes};
use tokio::net::TcpStream;

/// How much is copied at once, in bytes.
const BUFFER: usize = 64 * 1024;

/// Connects a channel with whoever listens on 127.0.0.1, until both directions
/// have ended or one has broken.
pub async fn serve(port: u16, mut channel: Channel) {
    let connected = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await;
    let problem = connected.as_ref().err().map(ToString::to_string);
    let told = frame::write(&mut channel, &Connected { problem }).await;
    match (connected, told) {
        (Ok(mut stream), Ok(())) => {
            let _ = copy_bidirectional_with_sizes(&mut stream, &mut channel, BUFFER, BUFFER).await;
        }
        _ => {
            let _ = channel.shutdown().await;
        }
    }
}
