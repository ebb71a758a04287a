//! Bytes and signals between this process and the command in the guest.

use std::io::ErrorKind;
use std::time::Duration;

use fireclaw_protocol::message::{ExecEvent, ExecRequest};
use fireclaw_protocol::session::Channel;
use fireclaw_vm::{Commands, Exec};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::Outcome;
use super::signals::Signals;
use crate::error::{CliError, Kind};

/// How long a command may take to end after a signal, or past its time limit,
/// before the machine is ended under it.
pub const GRACE: Duration = Duration::from_secs(5);

const BUFFER: usize = 64 * 1024;

/// Why relaying could not go on.
#[derive(Debug)]
pub enum Broken {
    /// The stream to the guest.
    Guest(fireclaw_protocol::Error),
    /// Our own standard output or error.
    Output(CliError),
}

/// Starts a command and relays until it has ended and all its output is written.
pub async fn run(
    commands: &Commands,
    request: ExecRequest,
    with_stdin: bool,
    mut signals: Signals,
) -> Result<Outcome, Broken> {
    let exec = tokio::select! {
        exec = commands.exec(request) => exec.map_err(Broken::Guest)?,
        signal = signals.next() => return Ok(Outcome::Interrupted(signal)),
    };
    relay(exec, with_stdin, signals).await
}

async fn relay(exec: Exec, with_stdin: bool, mut signals: Signals) -> Result<Outcome, Broken> {
    let Exec { stdin, stdout, stderr, mut control, mut events } = exec;
    // Stays behind when the run ends: a read of standard input cannot be ended.
    tokio::spawn(feed(stdin, with_stdin));
    let output = async {
        tokio::try_join!(
            drain(stdout, tokio::io::stdout(), "standard output"),
            drain(stderr, tokio::io::stderr(), "standard error"),
        )
    };
    let ending = async {
        loop {
            match events.next().await.map_err(Broken::Guest)? {
                ExecEvent::Started => {}
                ExecEvent::Exited(status) => return Ok(Outcome::Exited(status)),
                ExecEvent::Failed { cause, message } => {
                    return Ok(Outcome::NotStarted(cause, message));
                }
            }
        }
    };
    tokio::pin!(output);
    let finished = async {
        tokio::pin!(ending);
        let ended = tokio::select! {
            outcome = &mut ending => outcome?,
            written = &mut output => {
                written?;
                return ending.await;
            }
        };
        // A command that never ran has no output to wait for.
        if matches!(ended, Outcome::Exited(_)) {
            output.await?;
        }
        Ok(ended)
    };
    tokio::pin!(finished);
    let signal = tokio::select! {
        outcome = &mut finished => return outcome,
        signal = signals.next() => signal,
    };
    // The command may end in its own way; a second signal, or none obeyed, ends it.
    let _ = control.signal(signal).await;
    tokio::select! {
        outcome = &mut finished => outcome,
        second = signals.next() => Ok(Outcome::Interrupted(second)),
        () = tokio::time::sleep(GRACE) => Ok(Outcome::Interrupted(signal)),
    }
}

/// Copies our standard input to the command until either ends.
async fn feed(mut to: Channel, with_stdin: bool) {
    if with_stdin {
        let mut from = tokio::io::stdin();
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
            Err(e) => {
                let message = format!("cannot write to {name}: {e}");
                return Err(Broken::Output(CliError::new(Kind::System, message)));
            }
        }
    }
}
