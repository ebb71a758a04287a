//! The program of a named sandbox, with its streams over one connection.

use fireclaw_protocol::message::{AttachFrom, ExitStatus, MainEvent, OutputStream, TerminalSize};
use fireclaw_vm::{Attached, Commands, MainControls, MainEvents};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Mutex, mpsc, watch};

use super::frame::{Ended, Frame};
use crate::sandbox::Session;

/// Passes everything on until the program ends or whoever is attached has gone, which changes
/// nothing for the program.
pub async fn serve(session: Session, connection: impl AsyncRead + AsyncWrite) {
    let Session { commands, from_start, stays: _stays } = session;
    let (mut from, to) = tokio::io::split(connection);
    let to = Mutex::new(to);
    // One piece of input at a time, as each is asked for.
    let (give_input, input) = mpsc::channel(1);
    let (give_signal, signals) = mpsc::channel(8);
    // Of the sizes of a terminal only the last one counts.
    let (give_size, sizes) = watch::channel(TerminalSize::default());
    let gone = async {
        loop {
            let taken = match Frame::read(&mut from).await {
                Ok(Some(Frame::Input(bytes))) => give_input.try_send(bytes).is_ok(),
                // A guest that takes none of so many is not waited for.
                Ok(Some(Frame::Signal(signal))) => give_signal.try_send(signal).is_ok(),
                Ok(Some(Frame::Resize { rows, columns })) => {
                    give_size.send(TerminalSize { rows, columns }).is_ok()
                }
                _ => false,
            };
            if !taken {
                return;
            }
        }
    };
    let place = if from_start { AttachFrom::Start } else { AttachFrom::Now };
    let attached = async {
        match commands.attach(place).await {
            Ok(Attached { control, mut events }) => tokio::select! {
                ended = show(&mut events, &to) => ended,
                never = feed(&commands, input, &to) => never,
                never = steer(control, signals, sizes) => never,
            },
            Err(e) => Ended::Lost(e.to_string()),
        }
    };
    let ended = tokio::select! {
        ended = attached => ended,
        () = gone => return,
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
                return match status {
                    ExitStatus::Code(code) if ran_out && code != 0 => Ended::OutOfMemory(code),
                    ExitStatus::Signal(signal) if ran_out => {
                        Ended::OutOfMemory(128u8.saturating_add(signal))
                    }
                    ExitStatus::Code(code) => Ended::Exited(code),
                    ExitStatus::Signal(signal) => Ended::Signal(signal),
                    ExitStatus::TimedOut => Ended::TimedOut,
                };
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

async fn steer(
    mut control: MainControls,
    mut signals: mpsc::Receiver<u8>,
    mut sizes: watch::Receiver<TerminalSize>,
) -> Ended {
    loop {
        let _ = tokio::select! {
            Some(signal) = signals.recv() => control.signal(signal.into()).await,
            Ok(()) = sizes.changed() => {
                let size = *sizes.borrow_and_update();
                control.resize(size).await
            }
            else => std::future::pending().await,
        };
    }
}
