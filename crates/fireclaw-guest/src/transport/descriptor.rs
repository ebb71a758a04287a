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
/// It differs from tokio's own pipes and sockets in two things:
///
/// - They take a short read for an empty device and wait for the next event. A
///   port returns one virtio buffer, at most a page, for each read however much
///   is waiting, so such a reader would wait for ever. Here only `EAGAIN` means
///   that there is nothing more.
/// - A machine that is restored from a snapshot finds its vsock connection
///   reset, which the kernel tells as an error and nothing else
///   (`EPOLLERR | EPOLLOUT`: neither readable nor hung up). tokio wakes no
///   reader for that; here the reader waits for errors as well.
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
            if let Ok(read) = ready?.try_io(|file| file.get_ref().read(unfilled)) {
                return Poll::Ready(read.map(|n| buffer.advance(n)));
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
            if let Ok(written) = ready.try_io(|file| file.get_ref().write(bytes)) {
                return Poll::Ready(written);
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

    use tokio::io::AsyncReadExt;
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
}
