//! What stands between a guest's bytes and yamux.
//!
//! It reads every header: what a guest may not send ends the session, and what
//! would cost more memory than its bytes is joined (see [`super::ledger`]).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::ledger::{Ledger, Verdict};
use super::wire::{self, HEADER, Header};

/// Bytes read from the transport at once. Small, so that a flood of headers
/// gives the other tasks their turn: each read counts against tokio's budget.
const CHUNK: usize = 8 * 1024;

/// Why the gate ended a session.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Refused(pub(super) &'static str);

/// A transport from a guest whose frames are checked.
#[derive(Debug)]
pub(super) struct Gate<S> {
    transport: S,
    ledger: Ledger,
    input: Input,
    /// What goes to yamux next, before anything else.
    output: Piece,
    state: State,
}

#[derive(Debug)]
struct Input {
    buffer: Box<[u8; CHUNK]>,
    from: usize,
    to: usize,
}

#[derive(Debug, Default)]
struct Piece {
    bytes: Vec<u8>,
    from: usize,
}

#[derive(Debug)]
enum State {
    Header { bytes: [u8; HEADER], have: usize },
    Body { left: usize, then: Then },
    Over(Option<io::Error>),
}

#[derive(Debug, Clone, Copy)]
enum Then {
    Pass,
    Join(u32),
    Discard,
}

const NEXT: State = State::Header { bytes: [0; HEADER], have: 0 };

impl<S: AsyncRead + Unpin> Gate<S> {
    pub(super) fn new(transport: S, ledger: Ledger) -> Self {
        let input = Input { buffer: Box::new([0; CHUNK]), from: 0, to: 0 };
        Self { transport, ledger, input, output: Piece::default(), state: NEXT }
    }

    /// Fills the input if it is empty; false at the transport's end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if self.input.from < self.input.to {
            return Poll::Ready(Ok(true));
        }
        let mut buffer = ReadBuf::new(&mut self.input.buffer[..]);
        ready!(Pin::new(&mut self.transport).poll_read(cx, &mut buffer))?;
        let got = buffer.filled().len();
        (self.input.from, self.input.to) = (0, got);
        Poll::Ready(Ok(got > 0))
    }

    /// Moves on by one step. The state is whole again when it returns.
    fn judge(&mut self, bytes: [u8; HEADER]) -> io::Result<()> {
        let refuse = |why| io::Error::new(io::ErrorKind::InvalidData, Refused(why));
        let header = Header::from_guest(bytes).map_err(refuse)?;
        let mut then = Then::Pass;
        let mut left = 0;
        if header.kind == wire::DATA {
            left = header.length as usize;
            then = match self.ledger.charge(&header) {
                Verdict::Pass => Then::Pass,
                Verdict::Join => Then::Join(header.channel),
                Verdict::Discard => Then::Discard,
                Verdict::Overrun => return Err(refuse("more data than there is a window for")),
            };
        } else if header.kind == wire::WINDOW_UPDATE && !self.ledger.is_open(header.channel) {
            then = Then::Discard;
        }
        if matches!(then, Then::Pass) {
            self.output = Piece { bytes: bytes.to_vec(), from: 0 };
        }
        self.state = if left > 0 { State::Body { left, then } } else { NEXT };
        Ok(())
    }
}

impl Input {
    fn ready(&self) -> &[u8] {
        &self.buffer[self.from..self.to]
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gate<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            let rest = this.output.bytes.get(this.output.from..).unwrap_or_default();
            if !rest.is_empty() {
                let count = rest.len().min(buffer.remaining());
                buffer.put_slice(&rest[..count]);
                this.output.from += count;
                return Poll::Ready(Ok(()));
            }
            this.output = Piece::default();
            if let State::Over(error) = &mut this.state {
                // What was sent before the end is read before the end.
                if let Some(bytes) = this.ledger.rest() {
                    this.output = Piece { bytes, from: 0 };
                    continue;
                }
                return Poll::Ready(error.take().map_or(Ok(()), Err));
            }
            // Not inside a frame that goes through.
            let inside = matches!(this.state, State::Body { then: Then::Pass, .. });
            if !inside && let Some(bytes) = this.ledger.drained(cx.waker()) {
                this.output = Piece { bytes, from: 0 };
                continue;
            }
            match ready!(this.poll_fill(cx)) {
                Ok(true) => {}
                Ok(false) => {
                    let cut = match this.state {
                        State::Header { have: 0, .. } => None,
                        _ => Some(io::ErrorKind::UnexpectedEof.into()),
                    };
                    if inside {
                        return Poll::Ready(cut.map_or(Ok(()), Err));
                    }
                    this.state = State::Over(cut);
                    continue;
                }
                Err(e) if inside => return Poll::Ready(Err(e)),
                Err(e) => {
                    this.state = State::Over(Some(e));
                    continue;
                }
            }
            let ready = this.input.ready();
            match &mut this.state {
                State::Header { bytes, have } => {
                    let count = ready.len().min(HEADER - *have);
                    bytes[*have..*have + count].copy_from_slice(&ready[..count]);
                    *have += count;
                    this.input.from += count;
                    if *have == HEADER {
                        let bytes = *bytes;
                        if let Err(e) = this.judge(bytes) {
                            return Poll::Ready(Err(e));
                        }
                    }
                }
                State::Body { left, then } => {
                    let mut count = ready.len().min(*left);
                    match *then {
                        Then::Pass => {
                            count = count.min(buffer.remaining());
                            buffer.put_slice(&ready[..count]);
                        }
                        Then::Join(id) => this.ledger.join(id, &ready[..count]),
                        Then::Discard => {}
                    }
                    let passed = matches!(then, Then::Pass);
                    this.input.from += count;
                    *left -= count;
                    if *left == 0 {
                        this.state = NEXT;
                    }
                    if passed {
                        return Poll::Ready(Ok(()));
                    }
                }
                // Dealt with above.
                State::Over(_) => {}
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gate<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.transport).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_shutdown(cx)
    }
}
