//! When a gateway ends.

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use fireclaw_host::ProcessStamp;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Resolves when a process has ended.
pub(super) async fn ended(process: ProcessStamp) {
    if let Some(pidfd) = process.pidfd() {
        readable(pidfd).await;
    }
}

/// Resolves when the other end of a stream, on which nothing is said, is closed.
pub(super) async fn closed(stream: &UnixStream) {
    if let Ok(descriptor) = stream.try_clone() {
        readable(descriptor.into()).await;
    }
}

async fn readable(descriptor: OwnedFd) {
    // What cannot be watched counts as ended: better too early than never.
    if let Ok(watched) = watch(descriptor) {
        let _ = watched.readable().await;
    }
}

/// Has the runtime wait for a descriptor that owns itself: it must be open, and neither be
/// replaced nor closed while it lives.
#[allow(unsafe_code)]
pub(super) fn watch<T: AsRawFd>(descriptor: T) -> std::io::Result<AsyncFd<T>> {
    // SAFETY: both users, an OwnedFd and a netlink socket, are as asked above.
    unsafe { Ok(AsyncFd::register_with_interest(descriptor, Interest::READABLE)?) }
}
