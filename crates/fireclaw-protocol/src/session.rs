//! Channels: many flow-controlled streams on one.
//!
//! Each channel may have 256 KiB in flight in each direction (yamux's initial
//! window, never raised), so a side that stops reading stops its writer and
//! nothing in between grows. With [`MAX_CHANNELS`] the whole session holds at
//! most 16 MiB of unread bytes, whatever the size of the frames they came in;
//! see `gate` and `ledger`.

mod channel;
mod gate;
mod ledger;
mod wire;

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::compat::TokioAsyncReadCompatExt;

pub use self::channel::Channel;
use self::gate::{Gate, Refused};
use self::ledger::Ledger;
use crate::message::Open;
use crate::{Error, Result, frame};

/// The most channels that a session can have open at once. Who wants another
/// one waits.
pub const MAX_CHANNELS: usize = 64;

/// How many may wait for a free channel. A command takes four channels, so this
/// is four times what runs; more means that nobody counts any more.
pub const MAX_WAITING: usize = 64;

/// The most channels in yamux's own table, which ends the session beyond. More
/// than [`MAX_CHANNELS`]: it forgets a dropped channel only when the other side
/// was told, and 256 that the other side has not answered stop new ones.
const MAX_KNOWN: usize = 1024;

fn config() -> yamux::Config {
    let mut config = yamux::Config::default();
    config.set_max_connection_receive_window(None);
    config.set_max_num_streams(MAX_KNOWN);
    // Exactly the initial windows: none is ever raised on a guest's account.
    config.set_max_connection_receive_window(Some(MAX_KNOWN * yamux::DEFAULT_CREDIT as usize));
    config
}

/// The host's end of a session; clones share it. It ends when all are dropped.
#[derive(Debug, Clone)]
pub struct Session {
    requests: mpsc::Sender<Request>,
    permits: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct Request {
    permit: OwnedSemaphorePermit,
    reply: oneshot::Sender<Channel>,
}

/// Room for channels that belong together: whoever has it waits for none of them.
#[derive(Debug)]
pub struct Places(OwnedSemaphorePermit);

/// Counts one who waits, for as long as they do.
struct Turn<'a>(&'a AtomicUsize);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
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
        Self::with_ledger(stream, Ledger::default())
    }

    fn with_ledger<S>(
        stream: S,
        ledger: Ledger,
    ) -> (Self, impl Future<Output = Result<()>> + use<S>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let stream = Gate::new(stream, ledger.clone()).compat();
        let connection = yamux::Connection::new(stream, config(), yamux::Mode::Client);
        let (requests, incoming) = mpsc::channel(MAX_CHANNELS);
        let session = Self {
            requests,
            permits: Arc::new(Semaphore::new(MAX_CHANNELS)),
            waiting: Arc::default(),
        };
        (session, drive(connection, incoming, ledger))
    }

    /// Waits until so many channels can be open at once.
    ///
    /// # Errors
    /// [`Error::Busy`] if [`MAX_WAITING`] others wait already, [`Error::Closed`]
    /// if the session is over.
    pub async fn reserve(&self, channels: u32) -> Result<Places> {
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _turn = Turn(&self.waiting);
        if before >= MAX_WAITING {
            return Err(Error::Busy);
        }
        let permits = self.permits.clone().acquire_many_owned(channels);
        tokio::select! {
            permits = permits => permits.map(Places).map_err(|_| Error::Closed),
            () = self.requests.closed() => Err(Error::Closed),
        }
    }

    /// Opens a channel for the given purpose, as soon as there is room for it.
    ///
    /// # Errors
    /// As [`Session::reserve`].
    pub async fn open(&self, purpose: &Open) -> Result<Channel> {
        let mut permits = self.reserve(1).await?;
        self.open_in(&mut permits, purpose).await
    }

    /// Opens a channel in room that was reserved.
    ///
    /// # Errors
    /// [`Error::Busy`] if all of it is taken, [`Error::Closed`] if the session is
    /// over.
    pub async fn open_in(&self, permits: &mut Places, purpose: &Open) -> Result<Channel> {
        let permit = permits.0.split(1).ok_or(Error::Busy)?;
        let (reply, channel) = oneshot::channel();
        self.requests.send(Request { permit, reply }).await.map_err(|_| Error::Closed)?;
        let mut channel = channel.await.map_err(|_| Error::Closed)?;
        frame::write(&mut channel, purpose).await?;
        Ok(channel)
    }
}

/// The guest's end: calls `accept` for each channel that the host opens, until
/// the session is over.
pub async fn serve<S>(stream: S, mut accept: impl FnMut(Channel)) -> Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let mut connection = yamux::Connection::new(stream.compat(), config(), yamux::Mode::Server);
    while let Some(stream) = poll_fn(|cx| connection.poll_next_inbound(cx)).await {
        accept(Channel::accepted(stream.map_err(broken)?));
    }
    Ok(())
}

async fn drive<S>(
    mut connection: yamux::Connection<S>,
    mut requests: mpsc::Receiver<Request>,
    ledger: Ledger,
) -> Result<()>
where
    S: futures_util::AsyncRead + futures_util::AsyncWrite + Unpin,
{
    let mut waiting: Option<Request> = None;
    poll_fn(|cx| {
        loop {
            let mut progress = false;
            if waiting.is_none() {
                match requests.poll_recv(cx) {
                    Poll::Ready(Some(request)) => waiting = Some(request),
                    Poll::Ready(None) => return connection.poll_close(cx).map_err(broken),
                    Poll::Pending => {}
                }
            }
            if waiting.is_some()
                && let Poll::Ready(opened) = connection.poll_new_outbound(cx)
            {
                let stream = opened.map_err(broken)?;
                if let Some(Request { permit, reply }) = waiting.take() {
                    // The asker may have gone meanwhile; the channel is then dropped.
                    let _ = reply.send(Channel::opened(stream, &ledger, permit));
                }
                progress = true;
            }
            match connection.poll_next_inbound(cx) {
                // The gate lets no guest open one.
                Poll::Ready(Some(Ok(channel))) => drop(channel),
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
        yamux::ConnectionError::Io(e)
        | yamux::ConnectionError::Decode(yamux::FrameDecodeError::Io(e)) => {
            match e.get_ref().and_then(|inner| inner.downcast_ref::<Refused>()) {
                Some(refused) => Error::violation(refused),
                None => Error::Io(e),
            }
        }
        yamux::ConnectionError::Closed => Error::Closed,
        other => Error::violation(other),
    }
}

#[cfg(test)]
mod tests {
    use super::wire::Header;
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

    /// A frame as a guest sends it.
    fn frame_of(kind: u8, flags: u16, channel: u32, body: &[u8]) -> Vec<u8> {
        let length = body.len().try_into().unwrap();
        let mut frame = Header { kind, flags, channel, length }.encode().to_vec();
        frame.extend_from_slice(body);
        frame
    }

    type Driver = tokio::task::JoinHandle<Result<()>>;

    /// A host with one channel (number 1) open, whose guest is the test.
    async fn with_a_channel() -> (Session, Ledger, Channel, Driver, tokio::io::DuplexStream) {
        let (host, guest) = tokio::io::duplex(64 * 1024);
        let ledger = Ledger::default();
        let (session, driver) = Session::with_ledger(host, ledger.clone());
        let driver = tokio::spawn(driver);
        let channel = session.open(&Open::Stdout { exec: 1 }).await.unwrap();
        (session, ledger, channel, driver, guest)
    }

    /// Returns when the host has taken all that was sent: it answers a ping.
    async fn taken(guest: &mut tokio::io::DuplexStream) {
        guest.write_all(&frame_of(2, wire::SYN, 0, b"")).await.unwrap();
        let pong = frame_of(2, wire::ACK, 0, b"");
        let mut said = Vec::new();
        while !said.ends_with(&pong) {
            said.push(guest.read_u8().await.unwrap());
        }
    }

    #[tokio::test]
    async fn a_guest_that_opens_a_channel_ends_the_session() {
        for kind in [wire::DATA, wire::WINDOW_UPDATE] {
            let (_session, _, _channel, driver, mut guest) = with_a_channel().await;
            guest.write_all(&frame_of(kind, wire::SYN, 2, b"")).await.unwrap();
            let error = driver.await.unwrap().unwrap_err();
            assert!(matches!(&error, Error::Violation(why) if why.contains("open")), "{error}");
        }
    }

    #[tokio::test]
    async fn more_than_a_window_ends_the_session() {
        for size in [1, 1000, 16 * 1024] {
            let (_session, _, _channel, driver, mut guest) = with_a_channel().await;
            let frame = frame_of(wire::DATA, 0, 1, &vec![b'x'; size]);
            for _ in 0..=wire::WINDOW / size {
                if guest.write_all(&frame).await.is_err() {
                    break;
                }
            }
            let error = driver.await.unwrap().unwrap_err();
            assert!(matches!(error, Error::Violation(_)), "{error}");
        }
    }

    #[tokio::test]
    async fn bytes_in_frames_of_their_own_cost_their_bytes_and_arrive_in_order() {
        let (_session, ledger, mut channel, driver, mut guest) = with_a_channel().await;
        let sent: Vec<u8> = (0..wire::WINDOW).map(|n| (n % 251) as u8).collect();
        for part in sent.chunks(1024) {
            let frames: Vec<u8> =
                part.iter().flat_map(|byte| frame_of(wire::DATA, 0, 1, &[*byte])).collect();
            guest.write_all(&frames).await.unwrap();
        }
        guest.write_all(&frame_of(wire::DATA, wire::FIN, 1, b"")).await.unwrap();
        taken(&mut guest).await;
        let (held, small) = ledger.held();
        assert!(held <= wire::WINDOW + ledger::SMALL, "{held}");
        assert!(small <= ledger::MAX_SMALL, "{small}");
        let mut got = Vec::new();
        channel.read_to_end(&mut got).await.unwrap();
        assert!(got == sent);
        assert!(!driver.is_finished());
    }

    #[tokio::test]
    async fn what_was_sent_before_the_end_is_read_after_it() {
        let (_session, _, mut channel, driver, mut guest) = with_a_channel().await;
        for _ in 0..1000 {
            guest.write_all(&frame_of(wire::DATA, 0, 1, b"x")).await.unwrap();
        }
        drop(guest);
        let mut got = Vec::new();
        let _ = channel.read_to_end(&mut got).await;
        assert_eq!(got.len(), 1000);
        let _ = driver.await.unwrap();
    }

    #[tokio::test]
    async fn what_comes_for_a_dropped_channel_is_not_kept() {
        let (_session, ledger, channel, driver, mut guest) = with_a_channel().await;
        drop(channel);
        for _ in 0..2 * wire::WINDOW / 1024 {
            guest.write_all(&frame_of(wire::DATA, 0, 1, &[b'x'; 1024])).await.unwrap();
        }
        taken(&mut guest).await;
        assert_eq!(ledger.held(), (0, 0));
        assert!(!driver.is_finished(), "what comes late is no violation");
    }

    #[tokio::test]
    async fn who_wants_one_channel_too_many_waits_for_a_free_one() {
        let session = echo();
        let purpose = Open::Stdin { exec: 1 };
        let mut open = Vec::new();
        for _ in 0..MAX_CHANNELS {
            open.push(session.open(&purpose).await.unwrap());
        }
        let waiter = tokio::spawn({
            let session = session.clone();
            async move { session.open(&Open::Stdin { exec: 2 }).await }
        });
        while session.waiting.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        assert!(!waiter.is_finished());
        open.pop();
        let mut channel = waiter.await.unwrap().unwrap();
        channel.write_all(b"hello").await.unwrap();
        channel.shutdown().await.unwrap();
        let mut answer = Vec::new();
        channel.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"hello");
    }

    #[tokio::test]
    async fn many_groups_of_channels_all_get_their_turn() {
        let session = echo();
        let mut tasks = tokio::task::JoinSet::new();
        for exec in 0..MAX_WAITING as u32 {
            let session = session.clone();
            tasks.spawn(async move {
                let mut permits = session.reserve(4).await.unwrap();
                for _ in 0..4 {
                    let purpose = Open::Stdin { exec };
                    let mut channel = session.open_in(&mut permits, &purpose).await.unwrap();
                    channel.shutdown().await.unwrap();
                    channel.read_to_end(&mut Vec::new()).await.unwrap();
                }
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
    }

    #[tokio::test]
    async fn the_queue_for_channels_is_bounded_and_ends_with_the_session() {
        let (session, _, _channel, driver, guest) = with_a_channel().await;
        let _all = session.reserve(MAX_CHANNELS as u32 - 1).await.unwrap();
        let mut queue = tokio::task::JoinSet::new();
        for _ in 0..MAX_WAITING {
            let session = session.clone();
            queue.spawn(async move { session.reserve(1).await });
        }
        while session.waiting.load(Ordering::Relaxed) < MAX_WAITING {
            tokio::task::yield_now().await;
        }
        assert!(matches!(session.reserve(1).await, Err(Error::Busy)));
        drop(guest);
        let _ = driver.await.unwrap();
        while let Some(got) = queue.join_next().await {
            assert!(matches!(got.unwrap(), Err(Error::Closed)));
        }
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

        /// Whatever mixture of frames a guest sends on two channels, each arrives
        /// whole and in order, whatever is read when.
        #[test]
        fn frames_of_any_size_arrive_in_order(
            frames in prop::collection::vec((any::<bool>(), 0usize..2000), 1..100),
            tiny in 0usize..400,
            read in 1usize..5000,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let (session, _, first, _driver, guest) = with_a_channel().await;
                let second = session.open(&Open::Stdout { exec: 2 }).await.unwrap();
                let (mut from, mut to) = tokio::io::split(guest);
                let listener =
                    async move { tokio::io::copy(&mut from, &mut tokio::io::sink()).await };
                tokio::spawn(listener);
                let tiny = (0..tiny).map(|n| (n % 2 == 0, 1));
                let mut sent = [Vec::new(), Vec::new()];
                let mut bytes = Vec::new();
                for (n, (is_second, size)) in tiny.chain(frames).enumerate() {
                    let which = usize::from(is_second);
                    let body = vec![(n % 256) as u8; size];
                    sent[which].extend_from_slice(&body);
                    bytes.extend(frame_of(wire::DATA, 0, [1, 3][which], &body));
                }
                for id in [1, 3] {
                    bytes.extend(frame_of(wire::DATA, wire::FIN, id, b""));
                }
                let writer = tokio::spawn(async move {
                    to.write_all(&bytes).await.unwrap();
                    to
                });
                for (mut channel, expected) in [(second, &sent[1]), (first, &sent[0])] {
                    let mut got = Vec::new();
                    let mut buffer = vec![0; read];
                    while let n @ 1.. = channel.read(&mut buffer).await.unwrap() {
                        got.extend_from_slice(&buffer[..n]);
                        tokio::task::yield_now().await;
                    }
                    assert!(&got == expected);
                }
                let _to = writer.await.unwrap();
            });
        }
    }
}
