//! Bytes and signals between this process and the command in the guest.

use std::future::pending;
use std::io::ErrorKind;
use std::time::Duration;

use fireclaw_protocol::message::{self, ExecEvent, ExecRequest, TerminalSize};
use fireclaw_protocol::session::Channel;
use fireclaw_vm::{Commands, Exec, ExecEvents, Guest};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::Outcome;
use crate::error::{CliError, Kind};
use crate::signals::Signals;
use crate::stdin::Input;
use crate::terminal::Terminal;

/// How long a command may take to end after a signal, or past its time limit,
/// before the VM is ended under it.
pub const GRACE: Duration = Duration::from_secs(5);

/// How much is read at once, in bytes.
pub const BUFFER: usize = 64 * 1024;

/// Our outputs, as errors call them.
pub const STDOUT: &str = "standard output";
/// See [`STDOUT`].
pub const STDERR: &str = "standard error";

/// Why relaying could not go on.
#[derive(Debug)]
pub enum Broken {
    /// The stream to the guest.
    Guest(fireclaw_protocol::Error),
    /// Our own standard output, error or terminal.
    Here(CliError),
}

/// Waits for what is relayed from a guest, and for what can end it early.
pub async fn attend(
    guest: &mut Guest,
    relayed: impl Future<Output = Result<Outcome, Broken>>,
    timeout: Option<Duration>,
) -> crate::error::Result<Outcome> {
    // The guest keeps the time itself; one that does not is ended here.
    let out_of_time = async {
        match timeout {
            Some(timeout) => tokio::time::sleep(timeout + GRACE).await,
            None => pending().await,
        }
    };
    tokio::select! {
        outcome = relayed => match outcome {
            Ok(outcome) => Ok(outcome),
            Err(Broken::Guest(e)) => Err(guest.explain(e).await.into()),
            Err(Broken::Here(e)) => Err(e),
        },
        death = guest.died() => Err(death.into()),
        () = out_of_time => Ok(Outcome::TimedOut),
    }
}

/// What a command reads.
#[derive(Debug)]
pub enum Reads {
    /// Nothing.
    Nothing,
    /// Our standard input.
    Stdin,
    /// What is typed on our terminal, on which it also writes.
    Terminal(Terminal),
}

impl Reads {
    /// What was asked for: our terminal, nothing, or else our standard input.
    pub fn of(tty: bool, no_stdin: bool) -> crate::error::Result<Self> {
        match (tty, no_stdin) {
            (true, _) => Terminal::open().map(Self::Terminal),
            (false, true) => Ok(Self::Nothing),
            (false, false) => Ok(Self::Stdin),
        }
    }

    /// The terminal, as the guest is told of it.
    pub fn terminal(&self) -> Option<message::Terminal> {
        match self {
            Self::Terminal(terminal) => Some(terminal.described()),
            Self::Nothing | Self::Stdin => None,
        }
    }

    /// Hands the terminal over, if there is one, once we are in the foreground. Cancel-safe.
    pub async fn hand_over(&mut self) -> crate::error::Result<()> {
        match self {
            Self::Terminal(terminal) => terminal.hand_over().await,
            Self::Nothing | Self::Stdin => Ok(()),
        }
    }

    /// Waits until the terminal has another size, if there is one. Cancel-safe.
    pub async fn resized(&mut self) -> TerminalSize {
        match self {
            Self::Terminal(terminal) => terminal.resized().await,
            Self::Nothing | Self::Stdin => pending().await,
        }
    }
}

/// Starts a command and relays until it has ended and all its output is written.
pub async fn run(
    commands: &Commands,
    mut request: ExecRequest,
    mut reads: Reads,
    mut signals: Signals,
) -> Result<Outcome, Broken> {
    request.terminal = reads.terminal();
    let exec = tokio::select! {
        exec = commands.exec(request) => exec.map_err(Broken::Guest)?,
        signal = signals.next() => return Ok(Outcome::Interrupted(signal)),
    };
    let Exec { stdin, stdout, stderr, mut control, events } = exec;
    // Stays behind when the run ends: a read of standard input cannot be ended.
    tokio::spawn(feed(stdin, !matches!(reads, Reads::Nothing)));
    let output = async {
        tokio::try_join!(
            drain(stdout, tokio::io::stdout(), STDOUT),
            drain(stderr, tokio::io::stderr(), STDERR),
        )?;
        Ok(())
    };
    let finished = finished(events, output);
    tokio::pin!(finished);
    let signal = loop {
        tokio::select! {
            outcome = &mut finished => return outcome,
            signal = signals.next() => break signal,
            size = reads.resized() => {
                // A guest that does not listen must not keep us from our signals.
                let _ = tokio::time::timeout(GRACE, control.resize(size)).await;
            }
        }
    };
    // The command may end in its own way; a second signal, or none obeyed, ends it.
    let _ = tokio::time::timeout(GRACE, control.signal(signal)).await;
    tokio::select! {
        outcome = &mut finished => outcome,
        second = signals.next() => Ok(Outcome::Interrupted(second)),
        () = tokio::time::sleep(GRACE) => Ok(Outcome::Interrupted(signal)),
    }
}

/// Waits until a command has ended and `output` has taken all that it wrote.
pub async fn finished(
    mut events: ExecEvents,
    output: impl Future<Output = Result<(), Broken>>,
) -> Result<Outcome, Broken> {
    let ending = async {
        loop {
            let event = events.next().await.map_err(Broken::Guest)?;
            let out_of_memory = event.is_out_of_memory();
            match event {
                ExecEvent::Started => {}
                ExecEvent::Exited(status, _) if out_of_memory => {
                    return Ok(Outcome::OutOfMemory(status));
                }
                ExecEvent::Exited(status, _) => return Ok(Outcome::Exited(status)),
                ExecEvent::Failed { cause, message } => {
                    return Ok(Outcome::NotStarted(cause, message));
                }
            }
        }
    };
    tokio::pin!(output);
    tokio::pin!(ending);
    let ended = tokio::select! {
        outcome = &mut ending => outcome?,
        written = &mut output => {
            written?;
            return ending.await;
        }
    };
    // A command that never ran has no output to wait for.
    if !matches!(ended, Outcome::NotStarted(..)) {
        output.await?;
    }
    Ok(ended)
}

/// Copies our standard input to the command until either ends.
async fn feed(mut to: Channel, with_stdin: bool) {
    if with_stdin {
        let mut from = Input::open();
        let mut buffer = vec![0; BUFFER];
        while let Ok(n @ 1..) = from.read(&mut buffer).await {
            if to.write_all(&buffer[..n]).await.is_err() {
                return;
            }
            let _ = to.flush().await;
        }
    }
    let _ = to.shutdown().await;
}

/// Copies one of the command's outputs to ours.
///
/// A reader of ours that has gone (`| head`) closes the channel, and the
/// command learns it as any command does: by SIGPIPE.
async fn drain(
    mut from: Channel,
    mut to: impl AsyncWrite + Unpin,
    name: &str,
) -> Result<(), Broken> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let n = match from.read(&mut buffer).await {
            Ok(0) => return Ok(()),
            Ok(n) => n,
            Err(e) => return Err(Broken::Guest(e.into())),
        };
        let written = async {
            to.write_all(&buffer[..n]).await?;
            to.flush().await
        };
        match written.await {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::BrokenPipe => return Ok(()),
            Err(e) => return Err(cannot_write(name, &e)),
        }
    }
}

/// The error for an output of ours that does not take what is written.
pub fn cannot_write(name: &str, error: &std::io::Error) -> Broken {
    Broken::Here(CliError::new(Kind::System, format!("cannot write to {name}: {error}")))
}
