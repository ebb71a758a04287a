//! What runs in a daemon's VM, with our own streams: they pass over a connection to the daemon.

use std::io::ErrorKind;
use std::time::Duration;

use fireclaw_daemon::api::{Ended, Frame, MOST, Streams};
use fireclaw_protocol::message::TerminalSize;
use fireclaw_say::say;
use rustix::process::Signal;
use tokio::io::{AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;

use crate::error::{CliError, Kind, Result};
use crate::run::relay::Reads;
use crate::signals::Signals;
use crate::stdin::Input;

/// How long a command may take to end after a signal before it is ended.
const GRACE: Duration = Duration::from_secs(5);

/// How it went.
#[derive(Debug)]
pub enum Attended {
    /// It ended.
    Ended(Ended),
    /// We left because of a signal, which stands for this exit status.
    Left(u8),
    /// It goes on without us: Ctrl-P and Ctrl-Q were typed.
    Detached,
}

/// Passes everything on until the command has ended, or our terminal is detached from it if
/// it may be.
pub async fn attend(
    streams: Streams,
    reads: &mut Reads,
    signals: &mut Signals,
    may_detach: bool,
) -> Result<Attended> {
    let (from, to) = tokio::io::split(streams);
    let (want, wanted) = mpsc::channel(1);
    let (tell, told) = mpsc::channel(8);
    let (detach, mut detached) = mpsc::channel(1);
    let keys = (may_detach && matches!(reads, Reads::Terminal(_))).then(|| Keys::new(detach));
    // Stays behind at the end: a read of standard input cannot be ended.
    // Who is attached and has nothing to say does not end what the command reads.
    if !(may_detach && matches!(reads, Reads::Nothing)) {
        tokio::spawn(feed(wanted, tell.clone(), !matches!(reads, Reads::Nothing), keys));
    }
    tokio::spawn(send(to, told));
    // What ran before does not know our terminal.
    if let Some(terminal) = reads.terminal().filter(|_| may_detach) {
        let TerminalSize { rows, columns } = terminal.size;
        let _ = tell.send(Frame::Resize { rows, columns }).await;
    }
    let ended = relay(from, want);
    tokio::pin!(ended);
    let signal = loop {
        tokio::select! {
            ended = &mut ended => return ended.map(Attended::Ended),
            signal = signals.next() => break signal,
            Some(()) = detached.recv() => return Ok(Attended::Detached),
            TerminalSize { rows, columns } = reads.resized() => {
                let _ = tell.send(Frame::Resize { rows, columns }).await;
            }
        }
    };
    // The command may end in its own way; a second signal, or none obeyed, ends it: the
    // daemon sees that we are gone.
    let _ = tell.send(Frame::Signal(u8::try_from(signal).unwrap_or_default())).await;
    tokio::select! {
        ended = &mut ended => ended.map(Attended::Ended),
        second = signals.next() => Ok(Attended::Left(interrupted(second))),
        () = tokio::time::sleep(GRACE) => Ok(Attended::Left(interrupted(signal))),
    }
}

fn failed(problem: impl std::fmt::Display) -> CliError {
    CliError::new(Kind::System, problem.to_string())
}

/// The exit status of a command that a signal to us ended.
pub fn interrupted(signal: i32) -> u8 {
    u8::try_from(128 + signal).unwrap_or(u8::MAX)
}

/// Sends frames as they come: what else sends them may be waiting for standard input.
async fn send(mut to: WriteHalf<Streams>, mut frames: mpsc::Receiver<Frame>) {
    while let Some(frame) = frames.recv().await {
        if frame.write(&mut to).await.is_err() {
            return;
        }
    }
}

/// Reads standard input, piece by piece, as it is wanted.
async fn feed(
    mut wanted: mpsc::Receiver<()>,
    tell: mpsc::Sender<Frame>,
    with_stdin: bool,
    mut keys: Option<Keys>,
) {
    let mut stdin = Input::open();
    let mut buffer = vec![0; MOST / 2];
    while wanted.recv().await.is_some() {
        let bytes = loop {
            let n = match with_stdin {
                true => stdin.read(&mut buffer).await.unwrap_or_default(),
                false => 0,
            };
            let typed = match &mut keys {
                Some(keys) => keys.typed(&buffer[..n]),
                None => Some(buffer[..n].to_vec()),
            };
            match typed {
                // It may be the first of the two keys.
                Some(typed) if typed.is_empty() && n > 0 => {}
                Some(typed) => break typed,
                None => return,
            }
        };
        let is_end = bytes.is_empty();
        if tell.send(Frame::Input(bytes)).await.is_err() || is_end {
            return;
        }
    }
}

/// Finds the two keys that detach a terminal, as in Docker: Ctrl-P and Ctrl-Q.
#[derive(Debug)]
struct Keys {
    detach: mpsc::Sender<()>,
    /// Whether Ctrl-P was typed, and nothing after it yet.
    has_first: bool,
}

impl Keys {
    const FIRST: u8 = 0x10;
    const SECOND: u8 = 0x11;

    fn new(detach: mpsc::Sender<()>) -> Self {
        Self { detach, has_first: false }
    }

    /// What goes on to the command of what was typed; nothing more once both keys were.
    fn typed(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut rest = Vec::with_capacity(bytes.len() + 1);
        for byte in bytes {
            if std::mem::take(&mut self.has_first) {
                if *byte == Self::SECOND {
                    let _ = self.detach.try_send(());
                    return None;
                }
                rest.push(Self::FIRST);
            }
            match *byte {
                Self::FIRST => self.has_first = true,
                byte => rest.push(byte),
            }
        }
        Some(rest)
    }
}

/// Writes what the command writes until it has ended.
async fn relay(mut from: ReadHalf<Streams>, want: mpsc::Sender<()>) -> Result<Ended> {
    let (mut stdout, mut stderr) = (tokio::io::stdout(), tokio::io::stderr());
    loop {
        let written = match Frame::read(&mut from).await {
            Ok(Some(Frame::Output(bytes))) => write(&mut stdout, &bytes).await,
            Ok(Some(Frame::Error(bytes))) => write(&mut stderr, &bytes).await,
            Ok(Some(Frame::Wanted)) => {
                let _ = want.try_send(());
                continue;
            }
            Ok(Some(Frame::Ended(ended))) => return Ok(ended),
            Ok(Some(Frame::Input(_) | Frame::Signal(_) | Frame::Resize { .. })) => continue,
            Ok(None) => return Err(failed("the daemon has gone")),
            Err(e) => return Err(failed(format!("the daemon: {e}"))),
        };
        match written {
            // A reader that has gone (`| head`) has enough, and the command need not go on.
            Err(e) if e.kind() == ErrorKind::BrokenPipe => {
                return Ok(Ended::Exited(interrupted(Signal::PIPE.as_raw())));
            }
            Err(e) => return Err(failed(format!("cannot write what the command writes: {e}"))),
            Ok(()) => {}
        }
    }
}

async fn write(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> std::io::Result<()> {
    to.write_all(bytes).await?;
    to.flush().await
}

/// The exit status, told where it alone does not say it.
pub fn status(ended: Ended) -> Result<u8> {
    match ended {
        Ended::Exited(code) => Ok(code),
        Ended::Signal(signal) => Ok(128u8.saturating_add(signal)),
        Ended::OutOfMemory(code) => {
            say!(
                "fireclaw: the guest ran out of memory, and its kernel killed a process; \
                 --memory, or `memory` in an agent's template, gives it more"
            );
            Ok(code)
        }
        Ended::TimedOut => {
            say!("fireclaw: the command timed out and was killed");
            Ok(124)
        }
        Ended::NotStarted { status, message } => {
            say!("fireclaw: {}", fireclaw_host::escape(&message));
            Ok(status)
        }
        Ended::Lost(problem) => {
            let lost = format!("the VM was lost: {}", fireclaw_host::escape(&problem));
            Err(CliError::new(Kind::Guest, lost))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_keys_detach_and_one_of_them_is_only_late() {
        let (detach, mut detached) = mpsc::channel(1);
        let mut keys = Keys::new(detach);
        assert_eq!(keys.typed(b"ls\x10"), Some(b"ls".to_vec()));
        assert_eq!(keys.typed(b"x\x11"), Some(b"\x10x\x11".to_vec()));
        assert_eq!(keys.typed(b"\x10\x10"), Some(b"\x10".to_vec()));
        assert!(detached.try_recv().is_err());
        assert_eq!(keys.typed(b"\x11rest"), None);
        assert!(detached.try_recv().is_ok());
    }
}
