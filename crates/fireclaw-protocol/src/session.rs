//! Channels: many flow-controlled streams on one.
//!
//! Each channel may have 256 KiB in flight in each direction (yamux's initial
//! window, never raised), so a side that stops reading stops its writer and
//! nothing in between grows. With [`MAX_CHANNELS`] the whole session holds at
//! most 16 MiB of unread bytes.

use std::future::poll_fn;
use std::task::Poll;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};
use tokio_util::compat::{FuturesAsyncReadCompatExt, TokioAsyncReadCompatExt};

use crate::message::Open;
use crate::{Error, Result, frame};

/// One channel of a session. Shutting it down ends its outgoing direction;
/// dropping it ends both.
pub type Channel = tokio_util::compat::Compat<yamux::Stream>;

/// The most channels that a session can have open at once.
pub const MAX_CHANNELS: usize = 64;

fn config() -> yamux::Config {
    let mut config = yamux::Config::default();
    config.set_max_num_streams(MAX_CHANNELS);
    // Exactly the initial windows: none is ever raised on a guest's account.
    config.set_max_connection_receive_window(Some(MAX_CHANNELS * yamux::DEFAULT_CREDIT as usize));
    config
}

/// The host's end of a session; clones share it. It ends when all are dropped.
#[derive(Debug, Clone)]
pub struct Session {
    requests: mpsc::Sender<oneshot::Sender<Channel>>,
}

impl Session {
    /// Starts a session on a stream after [`crate::hello::greet_guest`].
    ///
    /// The returned future drives it and must be polled (spawned) for as long
    /// as channels are used; it resolves when the session is over.
    pub fn host<S>(stream: S) -> (Self, impl Future<Output = Result<()>> + use<S>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let connection = yamux::Connection::new(stream.compat(), config(), yamux::Mode::Client);
        let (requests, incoming) = mpsc::channel(MAX_CHANNELS);
        // A guest has no reason to open a channel: refuse it by dropping it.
        (Self { requests }, drive(connection, Some(incoming), drop))
    }

    /// Opens a channel for the given purpose.
    pub async fn open(&self, purpose: &Open) -> Result<Channel> {
        let (reply, channel) = oneshot::channel();
        self.requests.send(reply).await.map_err(|_| Error::Closed)?;
        let mut channel = channel.await.map_err(|_| Error::Closed)?;
        frame::write(&mut channel, purpose).await?;
        Ok(channel)
    }
}

/// The guest's end: calls `accept` for each channel that the host opens, until
/// the session is over.
pub async fn serve<S>(stream: S, accept: impl FnMut(Channel)) -> Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let connection = yamux::Connection::new(stream.compat(), config(), yamux::Mode::Server);
    drive(connection, None, accept).await
}

async fn drive<S>(
    mut connection: yamux::Connection<S>,
    mut requests: Option<mpsc::Receiver<oneshot::Sender<Channel>>>,
    mut accept: impl FnMut(Channel),
) -> Result<()>
where
    S: futures_util::AsyncRead + futures_util::AsyncWrite + Unpin,
{
    let mut waiting: Option<oneshot::Sender<Channel>> = None;
    poll_fn(|cx| {
        loop {
            let mut progress = false;
            if let (None, Some(queue)) = (&waiting, &mut requests) {
                match queue.poll_recv(cx) {
                    Poll::Ready(Some(reply)) => waiting = Some(reply),
                    Poll::Ready(None) => return connection.poll_close(cx).map_err(broken),
                    Poll::Pending => {}
                }
            }
            if waiting.is_some()
                && let Poll::Ready(opened) = connection.poll_new_outbound(cx)
            {
                let channel = opened.map_err(broken)?.compat();
                if let Some(reply) = waiting.take() {
                    // The asker may have gone meanwhile; the channel is then dropped.
                    let _ = reply.send(channel);
                }
                progress = true;
            }
            match connection.poll_next_inbound(cx) {
                Poll::Ready(Some(Ok(channel))) => accept(channel.compat()),
                Poll::Ready(Some(Err(e))) => return Poll::Ready(Err(broken(e))),
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Pending if !progress => return Poll::Pending,
                Poll::Pending => {}
            }
        }
    })
    .await
}

fn broken(error: yamux::ConnectionError) -> Error {
    match error {
        yamux::ConnectionError::Io(e) => Error::Io(e),
        yamux::ConnectionError::Closed => Error::Closed,
        other => Error::violation(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// A session over an in-memory pipe whose guest echoes every channel.
    fn echo() -> Session {
        let (host, guest) = tokio::io::duplex(64 * 1024);
        tokio::spawn(serve(guest, |mut channel| {
            tokio::spawn(async move {
                let _: Option<Open> =
                    frame::read(&mut channel, frame::MAX_FROM_HOST).await.unwrap();
                let (mut from, mut to) = tokio::io::split(channel);
                let _ = tokio::io::copy(&mut from, &mut to).await;
                let _ = to.shutdown().await;
            });
        }));
        let (session, driver) = Session::host(host);
        tokio::spawn(driver);
        session
    }

    #[tokio::test]
    async fn channels_do_not_mix() {
        let session = echo();
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..16u8 {
            let session = session.clone();
            tasks.spawn(async move {
                let channel = session.open(&Open::Stdin { exec: n.into() }).await.unwrap();
                let (mut from, mut to) = tokio::io::split(channel);
                let sent = vec![n; 300_000];
                let writer = tokio::spawn({
                    let sent = sent.clone();
                    async move {
                        to.write_all(&sent).await.unwrap();
                        to.shutdown().await.unwrap();
                    }
                });
                let mut got = Vec::new();
                from.read_to_end(&mut got).await.unwrap();
                writer.await.unwrap();
                assert!(got == sent);
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
    }

    /// A writer whose reader has stopped is stopped too, within the window.
    #[tokio::test(start_paused = true)]
    async fn a_stopped_reader_stops_its_writer() {
        let (host, guest) = tokio::io::duplex(64 * 1024);
        let (count, counted) = tokio::sync::watch::channel(0usize);
        tokio::spawn(serve(guest, move |mut channel| {
            let count = count.clone();
            tokio::spawn(async move {
                let _: Option<Open> =
                    frame::read(&mut channel, frame::MAX_FROM_HOST).await.unwrap();
                loop {
                    let n = channel.write(&[b'y'; 16 * 1024]).await.unwrap();
                    count.send_modify(|total| *total += n);
                }
            });
        }));
        let (session, driver) = Session::host(host);
        tokio::spawn(driver);
        let mut stopped = session.open(&Open::Stdout { exec: 1 }).await.unwrap();
        // Time is paused: it moves on only when every task waits, so this
        // returns when the writer has been stopped.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let blocked_at = *counted.borrow();
        assert!(blocked_at >= 256 * 1024, "{blocked_at}");
        assert!(blocked_at <= 256 * 1024 + 512 * 1024, "{blocked_at}");
        // It goes on when the reader does, and other channels never noticed.
        let mut buffer = vec![0; 128 * 1024];
        for _ in 0..16 {
            stopped.read_exact(&mut buffer).await.unwrap();
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(*counted.borrow() >= 16 * buffer.len());
    }

    #[tokio::test]
    async fn a_guest_cannot_open_channels() {
        let (host, guest) = tokio::io::duplex(64 * 1024);
        let (_session, driver) = Session::host(host);
        let driver = tokio::spawn(driver);
        let mut connection = yamux::Connection::new(guest.compat(), config(), yamux::Mode::Server);
        let mut channel = poll_fn(|cx| connection.poll_new_outbound(cx)).await.unwrap().compat();
        tokio::spawn(async move {
            while let Some(Ok(_)) = poll_fn(|cx| connection.poll_next_inbound(cx)).await {}
        });
        let _ = channel.write_all(b"hello").await;
        let mut answer = Vec::new();
        let got = channel.read_to_end(&mut answer).await;
        assert!(got.is_err() || answer.is_empty());
        assert!(!driver.is_finished(), "refusing one channel must not end the session");
    }

    #[tokio::test]
    async fn opening_after_the_end_says_closed() {
        let (host, guest) = tokio::io::duplex(1024);
        let (session, driver) = Session::host(host);
        let driver = tokio::spawn(driver);
        drop(guest);
        let _ = driver.await.unwrap();
        let got = session.open(&Open::Stdin { exec: 1 }).await;
        assert!(matches!(got, Err(Error::Closed)), "{got:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Whatever a guest sends instead of yamux, the driver ends with an
        /// error or waits for more; it does not panic and does not spin.
        #[test]
        fn noise_ends_the_session(noise in prop::collection::vec(any::<u8>(), 0..4096)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let (host, mut guest) = tokio::io::duplex(64 * 1024);
                let (_session, driver) = Session::host(host);
                guest.write_all(&noise).await.unwrap();
                drop(guest);
                let _ = driver.await;
            });
        }
    }
}
