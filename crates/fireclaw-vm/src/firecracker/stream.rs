//! The stream to a guest that has yet to connect.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker, ready};

use fireclaw_host::{PathError, SocketDir};
use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};

use crate::{Result, StreamIo};

/// A stream that can be used before its other end is there.
///
/// Reads and writes wait for the first connection. It is the only one: the
/// listener closes with it, and Firecracker refuses what the guest tries later.
#[derive(Debug)]
pub struct GuestStream {
    state: State,
    waiting: Arc<Waiting>,
}

#[derive(Debug)]
enum State {
    Listening(UnixListener),
    Connected(UnixStream),
    Closed,
}

/// Who waits for the connection. A listener remembers only who asked last,
/// while reader and writer may be different tasks.
#[derive(Debug, Default)]
struct Waiting {
    reader: AtomicWaker,
    writer: AtomicWaker,
}

impl Wake for Waiting {
    fn wake(self: Arc<Self>) {
        self.reader.wake();
        self.writer.wake();
    }
}

impl GuestStream {
    /// Listens on a new socket `name` in `dir`.
    pub fn listen(dir: &SocketDir, name: &str) -> Result<Self> {
        let listener = UnixListener::bind(dir.name(name))
            .map_err(PathError::at("listen on", dir.path().join(name)))?;
        Ok(Self { state: State::Listening(listener), waiting: Arc::default() })
    }

    /// The connection, or none after a shutdown. `slot` is whose task asks.
    fn poll_stream(
        &mut self,
        cx: &Context<'_>,
        slot: fn(&Waiting) -> &AtomicWaker,
    ) -> Poll<io::Result<Option<Pin<&mut UnixStream>>>> {
        if let State::Listening(listener) = &self.state {
            slot(&self.waiting).register(cx.waker());
            let both = Waker::from(Arc::clone(&self.waiting));
            let accepted = ready!(listener.poll_accept(&mut Context::from_waker(&both)));
            self.state = State::Connected(accepted?.0);
            // The task in the other slot can go on too.
            both.wake();
        }
        Poll::Ready(Ok(match &mut self.state {
            State::Connected(stream) => Some(Pin::new(stream)),
            State::Listening(_) | State::Closed => None,
        }))
    }
}

impl StreamIo for GuestStream {
    fn into_socket(self: Box<Self>) -> Option<UnixStream> {
        match self.state {
            State::Connected(stream) => Some(stream),
            State::Listening(_) | State::Closed => None,
        }
    }
}

impl AsyncRead for GuestStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match ready!(self.poll_stream(cx, |waiting| &waiting.reader))? {
            Some(stream) => stream.poll_read(cx, buf),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for GuestStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match ready!(self.poll_stream(cx, |waiting| &waiting.writer))? {
            Some(stream) => stream.poll_write(cx, buf),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.state {
            State::Connected(stream) => Pin::new(stream).poll_flush(cx),
            // Nothing was taken that could be held back.
            State::Listening(_) | State::Closed => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let State::Connected(stream) = &mut self.state {
            return Pin::new(stream).poll_shutdown(cx);
        }
        self.state = State::Closed;
        Arc::clone(&self.waiting).wake();
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::{Duration, timeout};

    use super::*;

    /// A directory whose path is longer than a socket address.
    fn deep() -> (tempfile::TempDir, SocketDir) {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a".repeat(120));
        std::fs::create_dir(&path).unwrap();
        let dir = SocketDir::open(path).unwrap();
        (temp, dir)
    }

    #[tokio::test]
    async fn reader_and_writer_both_wait_for_the_guest() {
        let (_temp, dir) = deep();
        let stream = GuestStream::listen(&dir, "v.sock_5005").unwrap();
        let (mut reader, mut writer) = tokio::io::split(stream);
        // Two tasks, the one that asked last given up on: the other must hear of it.
        let read = tokio::spawn(async move {
            let mut word = [0; 5];
            reader.read_exact(&mut word).await.unwrap();
            (reader, word)
        });
        tokio::task::yield_now().await;
        timeout(Duration::from_millis(20), writer.write_all(b"lost")).await.unwrap_err();

        let mut guest = UnixStream::connect(dir.name("v.sock_5005")).await.unwrap();
        guest.write_all(b"hello").await.unwrap();
        let (mut reader, word) = read.await.unwrap();
        assert_eq!(&word, b"hello");

        writer.write_all(b"hi").await.unwrap();
        writer.shutdown().await.unwrap();
        let mut said = String::new();
        guest.read_to_string(&mut said).await.unwrap();
        assert_eq!(said, "hi");
        drop(guest);
        assert_eq!(reader.read(&mut [0]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn nobody_connects_after_the_first() {
        let (_temp, dir) = deep();
        let mut stream = GuestStream::listen(&dir, "v.sock_5005").unwrap();
        let _guest = UnixStream::connect(dir.name("v.sock_5005")).await.unwrap();
        stream.write_all(b"x").await.unwrap();
        let error = UnixStream::connect(dir.name("v.sock_5005")).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn a_stream_closed_early_is_at_its_end() {
        let (_temp, dir) = deep();
        let mut stream = GuestStream::listen(&dir, "v.sock_5005").unwrap();
        stream.flush().await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
        assert_eq!(stream.write(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        let error = UnixStream::connect(dir.name("v.sock_5005")).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
