//! The taker's side.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::time::Duration;

use fireclaw_host::SocketDir;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tokio::io::Interest;
use tokio::net::UnixStream;

use super::{Offer, is_there, socket_name};
use crate::backend::NoControl;
use crate::lease::Lease;
use crate::{Machine, VmmProcess};

/// How long a pool may take to make its offer: one that is stuck must not cost
/// more than a restore.
const TIMEOUT: Duration = Duration::from_millis(100);

/// A VM from the pool with this id in `directory`, if there is a pool and
/// it has one ready. Its guest waits for its identity.
pub async fn take(directory: &Path, id: &str) -> Option<Machine> {
    if !is_there(directory, id) {
        return None;
    }
    let dir = SocketDir::open(directory).ok()?;
    let connection = UnixStream::connect(dir.name(&socket_name(id))).await.ok()?;
    let offer = receive(&connection);
    let (offer, stream) = tokio::time::timeout(TIMEOUT, offer).await.ok()?.ok()??;
    let stream = StdUnixStream::from(stream);
    stream.set_nonblocking(true).ok()?;
    let stream = UnixStream::from_std(stream).ok()?;
    let lease = Lease::new(offer.pid, connection);
    Some(Machine {
        process: VmmProcess::leased(lease),
        stream: Box::new(stream),
        control: Box::new(NoControl),
        has_said_hello: true,
        is_restored: true,
        run_dir: None,
    })
}

/// The offer with its descriptor; none if the pool closed instead.
async fn receive(connection: &UnixStream) -> io::Result<Option<(Offer, OwnedFd)>> {
    let mut bytes = [0; 256];
    let (length, fd) = connection
        .async_io(Interest::READABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let flags = RecvFlags::CMSG_CLOEXEC;
            let mut slices = [IoSliceMut::new(&mut bytes)];
            let got = recvmsg(connection.as_fd(), &mut slices, &mut control, flags)?;
            let fd = control.drain().find_map(|message| match message {
                RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
                _ => None,
            });
            Ok((got.bytes, fd))
        })
        .await?;
    let Some(fd) = fd else { return Ok(None) };
    let offer = serde_json::from_slice(bytes.get(..length).unwrap_or_default())?;
    Ok(Some((offer, fd)))
}
