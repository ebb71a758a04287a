//! A command in the VM of an agent or a sandbox, with its streams over one connection.

use std::time::Duration;

use fireclaw_protocol::message::{ExecEvent, ExecRequest};
use fireclaw_protocol::session::Channel;
use fireclaw_vm::{Commands, Exec, ExecEvents};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Mutex, mpsc};

use super::frame::{Ended, Frame, MOST};
use super::inputs::{self, Steer, Steering};

/// How much longer than its time a command may take until the host no longer believes
/// that the guest ends it.
const GRACE: Duration = Duration::from_secs(10);

/// The exit status of a command that we did not even ask for.
const REFUSED: u8 = 125;

/// Runs a command until it ends or whoever asked has gone, which ends it too.
pub async fn serve(
    commands: &Commands,
    request: ExecRequest,
    connection: impl AsyncRead + AsyncWrite,
) {
    let (mut from, to) = tokio::io::split(connection);
    let to = Mutex::new(to);
    let (frames, input, steering) = inputs::frames(request.terminal.is_some());
    let limit = request.timeout_ms.map(Duration::from_millis);
    let late = async {
        match limit {
            Some(limit) => tokio::time::sleep(limit.saturating_add(GRACE)).await,
            None => std::future::pending().await,
        }
    };
    let ended = tokio::select! {
        ended = run(commands, request, &to, input, steering) => ended,
        () = late => Ended::TimedOut,
        () = frames.take(&mut from) => return,
    };
    let mut to = to.lock().await;
    let _ = Frame::Ended(ended).write(&mut *to).await;
    let _ = to.shutdown().await;
}

async fn run(
    commands: &Commands,
    request: ExecRequest,
    to: &Mutex<impl AsyncWrite + Unpin>,
    input: mpsc::Receiver<Vec<u8>>,
    mut steering: Steering,
) -> Ended {
    let exec = commands.exec(request).await;
    let Exec { stdin, stdout, stderr, mut control, mut events } = match exec {
        Ok(exec) => exec,
        Err(e @ fireclaw_protocol::Error::Busy) => {
            return Ended::NotStarted { status: REFUSED, message: e.to_string() };
        }
        Err(e) => return Ended::Lost(e.to_string()),
    };
    let feeding = async {
        feed(stdin, input, to).await;
        std::future::pending().await
    };
    let steered = async {
        loop {
            let _ = match steering.next().await {
                Steer::Signal(signal) => control.signal(signal).await,
                Steer::Resize(size) => control.resize(size).await,
            };
        }
    };
    let output = async {
        tokio::join!(copy(stdout, Frame::Output, to), copy(stderr, Frame::Error, to));
    };
    let ending = async {
        tokio::pin!(output);
        let mut drained = false;
        let how = tokio::select! {
            how = end(&mut events) => how,
            () = &mut output => { drained = true; end(&mut events).await }
        };
        // A command that never ran has no output to wait for.
        if !drained && !matches!(how, Ended::NotStarted { .. } | Ended::Lost(_)) {
            output.await;
        }
        how
    };
    tokio::select! {
        how = ending => how,
        never = feeding => never,
        never = steered => never,
    }
}

/// How the command ends.
async fn end(events: &mut ExecEvents) -> Ended {
    loop {
        let event = events.next().await;
        let out_of_memory = event.as_ref().is_ok_and(ExecEvent::is_out_of_memory);
        return match event {
            Ok(ExecEvent::Started) => continue,
            Ok(ExecEvent::Exited(status, _)) => inputs::ended(status, out_of_memory),
            Ok(ExecEvent::Failed { cause, message }) => Ended::NotStarted {
                status: cause.status(),
                message: fireclaw_host::escape(&message),
            },
            Err(e) => Ended::Lost(e.to_string()),
        };
    }
}

/// Asks for input as the command takes it, until either has no more.
async fn feed(
    mut stdin: Channel,
    mut input: mpsc::Receiver<Vec<u8>>,
    to: &Mutex<impl AsyncWrite + Unpin>,
) {
    loop {
        if Frame::Wanted.write(&mut *to.lock().await).await.is_err() {
            return;
        }
        match input.recv().await {
            Some(bytes) if !bytes.is_empty() => {
                if stdin.write_all(&bytes).await.is_err() || stdin.flush().await.is_err() {
                    return;
                }
            }
            _ => break,
        }
    }
    let _ = stdin.shutdown().await;
}

/// Passes one of the command's outputs on. A reader that waits has the command wait.
async fn copy(mut from: Channel, frame: fn(Vec<u8>) -> Frame, to: &Mutex<impl AsyncWrite + Unpin>) {
    let mut buffer = vec![0; MOST];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        if frame(buffer[..n].to_vec()).write(&mut *to.lock().await).await.is_err() {
            return;
        }
    }
}
