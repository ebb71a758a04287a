//! What whoever has the other side of a connection sends to what runs in a VM.

use fireclaw_protocol::message::{ExitStatus, TerminalSize};
use tokio::io::AsyncRead;
use tokio::sync::{mpsc, watch};

use super::frame::{Ended, Frame};

/// Something to do with what runs.
#[derive(Debug, Clone, Copy)]
pub enum Steer {
    /// To send it the signal with Linux's number.
    Signal(i32),
    /// To tell it the size of its terminal.
    Resize(TerminalSize),
}

/// What steers what runs, as it comes.
#[derive(Debug)]
pub struct Steering {
    signals: mpsc::Receiver<u8>,
    sizes: watch::Receiver<TerminalSize>,
}

impl Steering {
    /// What is next. Cancel-safe.
    pub async fn next(&mut self) -> Steer {
        tokio::select! {
            Some(signal) = self.signals.recv() => Steer::Signal(signal.into()),
            Ok(()) = self.sizes.changed() => Steer::Resize(*self.sizes.borrow_and_update()),
            else => std::future::pending().await,
        }
    }
}

/// Takes frames apart.
#[derive(Debug)]
pub struct Frames {
    input: mpsc::Sender<Vec<u8>>,
    signals: mpsc::Sender<u8>,
    sizes: Option<watch::Sender<TerminalSize>>,
}

/// What takes frames apart, with where their parts come out: input, and the rest. Sizes are for
/// what has a terminal.
pub fn frames(has_terminal: bool) -> (Frames, mpsc::Receiver<Vec<u8>>, Steering) {
    // One piece of input at a time, as each is asked for.
    let (give_input, input) = mpsc::channel(1);
    let (give_signal, signals) = mpsc::channel(8);
    // Of the sizes of a terminal only the last one counts.
    let (give_size, sizes) = watch::channel(TerminalSize::default());
    let sizes_of_terminal = has_terminal.then_some(give_size);
    let frames = Frames { input: give_input, signals: give_signal, sizes: sizes_of_terminal };
    (frames, input, Steering { signals, sizes })
}

impl Frames {
    /// Takes frames until the other side has gone, or sends what it may not.
    pub async fn take(self, from: &mut (impl AsyncRead + Unpin)) {
        loop {
            let taken = match Frame::read(from).await {
                Ok(Some(Frame::Input(bytes))) => self.input.try_send(bytes).is_ok(),
                // A guest that takes none of so many is not waited for.
                Ok(Some(Frame::Signal(signal))) => self.signals.try_send(signal).is_ok(),
                Ok(Some(Frame::Resize { rows, columns })) => {
                    let size = TerminalSize { rows, columns };
                    self.sizes.as_ref().is_none_or(|sizes| sizes.send(size).is_ok())
                }
                _ => false,
            };
            if !taken {
                return;
            }
        }
    }
}

/// How something ended, as the last frame tells it.
pub fn ended(status: ExitStatus, is_out_of_memory: bool) -> Ended {
    match status {
        ExitStatus::TimedOut => Ended::TimedOut,
        ExitStatus::Code(code) if is_out_of_memory => Ended::OutOfMemory(code),
        ExitStatus::Signal(signal) if is_out_of_memory => {
            Ended::OutOfMemory(128u8.saturating_add(signal))
        }
        ExitStatus::Code(code) => Ended::Exited(code),
        ExitStatus::Signal(signal) => Ended::Signal(signal),
    }
}
