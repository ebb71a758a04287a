//! A descriptor to the host as a byte stream: a virtio-serial port or a vsock
//! connection.

use std::fs::File;
use std::io::{self, Read, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

/// An open descriptor.
///
/// It differs from tokio's own pipes and sockets in three things:
///
/// - They take a short read for an empty device and wait for the next event. A
///   port returns one virtio buffer, at most a page, for each read however much
///   is waiting, so such a reader would wait for ever. Here only `EAGAIN` means
///   that there is nothing more.
/// - A VM that is restored from a snapshot finds its vsock connection
///   reset, which the kernel tells as an error and nothing else
///   (`EPOLLERR | EPOLLOUT`: neither readable nor hung up). tokio wakes no
///   reader for that; here the reader waits for errors as well.
/// - A port without a host is hung up (`EPOLLHUP`), which tokio never forgets, and
///   takes nothing (`EAGAIN`). Who writes then is told that it is over, or would try
///   for ever.
pub struct Descriptor {
    file: Arc<AsyncFd<File>>,
    /// Ends when the kernel tells of an error; none once it has.
    failure: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Descriptor {
    /// Takes a descriptor that does not block.
    #[allow(unsafe_code)]
    pub fn new(file: File) -> io::Result<Self> {
        // SAFETY: the file owns a valid descriptor, which is neither replaced
        // nor closed while the AsyncFd owns the file.
        let file = Arc::new(unsafe { AsyncFd::register(file)? });
        let watched = Arc::clone(&file);
        let failure = async move {
            let _ = watched.ready(Interest::ERROR).await;
        };
        Ok(Self { file, failure: Some(Box::pin(failure)) })
    }

    fn poll_failure(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if let Some(failure) = &mut self.failure {
            ready!(failure.as_mut().poll(cx));
            self.failure = None;
        }
        Poll::Ready(io::ErrorKind::ConnectionReset.into())
    }
}

impl AsyncRead for Descriptor {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while let Poll::Ready(ready) = self.file.poll_read_ready(cx) {
            let unfilled = buffer.initialize_unfilled();
            let mut ready = ready?;
            let is_hung_up = ready.ready().is_read_closed();
            match ready.try_io(|file| file.get_ref().read(unfilled)) {
                Ok(read) => return Poll::Ready(read.map(|n| buffer.advance(n))),
                // Another host is there already; this one's stream has ended.
                Err(_) if is_hung_up => return Poll::Ready(Ok(())),
                Err(_) => {}
            }
        }
        self.poll_failure(cx).map(Err)
    }
}

impl AsyncWrite for Descriptor {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.file.poll_write_ready(cx))?;
            let is_hung_up = ready.ready().is_write_closed();
            match ready.try_io(|file| file.get_ref().write(bytes)) {
                Ok(written) => return Poll::Ready(written),
                Err(_) if is_hung_up => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                Err(_) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::time::Duration;

    use rustix::fs::OFlags;
    use rustix::pty::OpenptFlags;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::timeout;

    use super::*;

    /// A pipe without a reader has an error and nothing to read, like a vsock
    /// connection after a restore.
    #[tokio::test]
    async fn a_reader_hears_of_an_error() {
        let (reader, writer) = io::pipe().unwrap();
        let mut stream = Descriptor::new(File::from(OwnedFd::from(writer))).unwrap();
        timeout(Duration::from_millis(20), stream.read(&mut [0])).await.unwrap_err();
        drop(reader);
        for _ in 0..2 {
            let read = timeout(Duration::from_secs(10), stream.read(&mut [0])).await.unwrap();
            assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        }
    }

    /// A terminal whose other end was closed is hung up, and takes what fits and then
    /// nothing, like a port without a host.
    #[tokio::test]
    async fn a_writer_hears_that_nobody_takes_it() {
        let master = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        rustix::pty::unlockpt(&master).unwrap();
        drop(File::open(rustix::pty::ptsname(&master, Vec::new()).unwrap().to_str().unwrap()));
        rustix::fs::fcntl_setfl(&master, OFlags::NONBLOCK).unwrap();
        let mut stream = Descriptor::new(File::from(master)).unwrap();
        let write = async {
            while stream.write(&[b'x'; 1000]).await? > 0 {}
            Ok::<_, io::Error>(())
        };
        let written = timeout(Duration::from_secs(10), write).await.unwrap();
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
