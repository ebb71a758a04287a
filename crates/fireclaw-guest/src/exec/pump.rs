//! Bytes between a command's pipes and the host's channels.
//!
//! One 64 KiB buffer each: when the host stops reading, the pump waits, the
//! pipe fills, and the kernel stops the command.

use std::os::fd::OwnedFd;

use fireclaw_protocol::session::Channel;
use tokio::io::{AsyncWriteExt, BufReader, copy_buf};
use tokio::net::unix::pipe;
use tokio::sync::oneshot;

pub const BUFFER: usize = 64 * 1024;

/// A channel that the host may not have opened yet.
pub type Coming = Option<oneshot::Receiver<Channel>>;

/// Copies from the host into a command's standard input.
pub async fn feed(channel: Coming, to: Option<impl Into<OwnedFd>>) {
    let (Some(channel), Some(to)) = (channel, to) else { return };
    let Ok(mut to) = pipe::Sender::from_owned_fd(to.into()) else { return };
    let Ok(channel) = channel.await else { return };
    // A command that closes its input ends the copy, and dropping the channel
    // tells the host.
    let _ = copy_buf(&mut BufReader::with_capacity(BUFFER, channel), &mut to).await;
}

/// Copies a command's output to the host, then ends the channel.
pub async fn drain(from: Option<impl Into<OwnedFd>>, channel: Coming) {
    let (Some(from), Some(channel)) = (from, channel) else { return };
    let Ok(from) = pipe::Receiver::from_owned_fd(from.into()) else { return };
    let Ok(mut channel) = channel.await else { return };
    let _ = copy_buf(&mut BufReader::with_capacity(BUFFER, from), &mut channel).await;
    let _ = channel.shutdown().await;
}

/// Ends a channel on which nothing comes.
pub async fn end(channel: Coming) {
    let Some(channel) = channel else { return };
    if let Ok(mut channel) = channel.await {
        let _ = channel.shutdown().await;
    }
}
