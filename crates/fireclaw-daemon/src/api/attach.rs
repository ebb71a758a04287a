//! The program of a named sandbox, with its streams over one connection.

use fireclaw_protocol::message::{AttachFrom, ExitStatus, MainEvent, OutputStream};
use fireclaw_vm::{Attached, Commands, MainControls, MainEvents};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Mutex, mpsc};

use super::frame::{Ended, Frame};
use super::inputs::{self, Steer, Steering};
use crate::sandbox::Session;

/// Passes everything on until the program ends or whoever is attached has gone, which changes
/// nothing for the program.
pub async fn serve(session: Session, connection: impl AsyncRead + AsyncWrite) {
    let Session { commands, from_start, stays: _stays } = session;
    let (mut from, to) = tokio::io::split(connection);
    let to = Mutex::new(to);
    let (frames, input, steering) = inputs::frames(true);
    let place = if from_start { AttachFrom::Start } else { AttachFrom::Now };
    let attached = async {
        match commands.attach(place).await {
            Ok(Attached { control, mut events }) => tokio::select! {
                ended = show(&mut events, &to) => ended,
                never = feed(&commands, input, &to) => never,
                never = steer(control, steering) => never,
            },
            Err(e) => Ended::Lost(e.to_string()),
        }
    };
    let ended = tokio::select! {
        ended = attached => ended,
        () = frames.take(&mut from) => return,
    };
    let mut to = to.lock().await;
    let _ = Frame::Ended(ended).write(&mut *to).await;
    let _ = to.shutdown().await;
}

/// Shows what the program writes until it has ended.
async fn show(events: &mut MainEvents, to: &Mutex<impl AsyncWrite + Unpin>) -> Ended {
    loop {
        let frame = match events.next().await {
            Ok(MainEvent::Output { stream: OutputStream::Stdout, bytes }) => {
                Frame::Output(bytes.into())
            }
            Ok(MainEvent::Output { stream: OutputStream::Stderr, bytes }) => {
                Frame::Error(bytes.into())
            }
            Ok(MainEvent::Lost(_)) => continue,
            Ok(MainEvent::Exited(status, kills)) => {
                let ran_out = kills.is_some_and(|kills| kills > 0);
                return inputs::ended(status, ran_out && status != ExitStatus::Code(0));
            }
            Ok(MainEvent::None) => return Ended::Lost("its command is not there any more".into()),
            Err(e) => return Ended::Lost(e.to_string()),
        };
        // Who has gone is noticed elsewhere.
        let _ = frame.write(&mut *to.lock().await).await;
    }
}

/// Asks for input as the program takes it.
async fn feed(
    commands: &Commands,
    mut input: mpsc::Receiver<Vec<u8>>,
    to: &Mutex<impl AsyncWrite + Unpin>,
) -> Ended {
    if let Ok(mut stdin) = commands.main_input().await {
        while Frame::Wanted.write(&mut *to.lock().await).await.is_ok()
            && let Some(bytes) = input.recv().await
        {
            let is_end = bytes.is_empty();
            if stdin.write(bytes).await.is_err() || is_end {
                break;
            }
        }
    }
    std::future::pending().await
}

async fn steer(mut control: MainControls, mut steering: Steering) -> Ended {
    loop {
        let _ = match steering.next().await {
            Steer::Signal(signal) => control.signal(signal).await,
            Steer::Resize(size) => control.resize(size).await,
        };
    }
}
