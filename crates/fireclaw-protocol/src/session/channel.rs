//! One channel of a session.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt};

use super::ledger::Ledger;

/// One channel of a session. Shutting it down ends its outgoing direction;
/// dropping it ends both.
#[derive(Debug)]
pub struct Channel {
    stream: Compat<yamux::Stream>,
    /// In the host: where what it reads is counted.
    account: Option<Account>,
}

#[derive(Debug)]
struct Account {
    ledger: Ledger,
    id: u32,
    _permit: OwnedSemaphorePermit,
}

impl Channel {
    /// A channel of the guest's end.
    pub(super) fn accepted(stream: yamux::Stream) -> Self {
        Self { stream: stream.compat(), account: None }
    }

    /// A channel of the host's end, with its place among all of them.
    pub(super) fn opened(
        stream: yamux::Stream,
        ledger: &Ledger,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        let id = stream.id().val();
        ledger.open(id);
        let account = Account { ledger: ledger.clone(), id, _permit: permit };
        Self { stream: stream.compat(), account: Some(account) }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        let Some(Account { ledger, id, .. }) = &self.account else { return };
        // From here on the gate lets nothing through to it. What came before is
        // freed now: yamux forgets the channel only when it has told the guest,
        // who may not listen.
        ledger.close(*id);
        let mut bytes = [0; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut bytes);
            let mut cx = Context::from_waker(Waker::noop());
            match Pin::new(&mut self.stream).poll_read(&mut cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
                _ => break,
            }
        }
    }
}

impl AsyncRead for Channel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let done = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let count = buffer.filled().len() - before;
        if count > 0
            && let Some(account) = &self.account
        {
            account.ledger.read(account.id, count);
        }
        done
    }
}

impl AsyncWrite for Channel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
