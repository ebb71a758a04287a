//! A command before there is a session: only its end and the end of its output matter.

use fireclaw_protocol::hello::{MAX_PREPARED_OUTPUT, Prepared};
use fireclaw_protocol::message::{ExecEvent, ExecRequest, Open};
use fireclaw_protocol::session::{self, Channel, Session};
use fireclaw_protocol::{Result, frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Execs, MainProcess, Reaper};

/// Runs the command to its end, or to its time limit. Nothing that it started
/// runs on, because clones would share what it holds.
///
/// It is run as any other, over a session of its own within this program: what
/// later commands need is then in memory, and, under emulation, translated.
pub async fn prepare(request: ExecRequest, reaper: &Reaper) -> Prepared {
    const PIPE: usize = 64 * 1024;
    let (ours, theirs) = tokio::io::duplex(PIPE);
    let execs = Execs::new(reaper.clone(), MainProcess::new(reaper.clone()));
    let serving = tokio::task::spawn_local(async move {
        session::serve(theirs, |channel| execs.accept(channel)).await
    });
    let (session, driver) = Session::host(ours);
    let driver = tokio::task::spawn_local(driver);
    let prepared = run(&session, request).await;
    drop(session);
    let _ = driver.await;
    let _ = serving.await;
    prepared.unwrap_or_else(|e| failed(&e.to_string()))
}

async fn run(session: &Session, mut request: ExecRequest) -> Result<Prepared> {
    let exec = 1;
    request.id = exec;
    let mut control = session.open(&Open::Exec(request)).await?;
    session.open(&Open::Stdin { exec }).await?.shutdown().await?;
    let stdout = session.open(&Open::Stdout { exec }).await?;
    let stderr = session.open(&Open::Stderr { exec }).await?;
    let output = tokio::task::spawn_local(async move {
        let (mut stdout, stderr) = tokio::join!(tail(stdout), tail(stderr));
        stdout.extend(stderr);
        stdout.drain(..stdout.len().saturating_sub(MAX_PREPARED_OUTPUT));
        stdout
    });
    loop {
        match frame::read(&mut control, frame::MAX_FROM_GUEST).await? {
            Some(ExecEvent::Started) => {}
            Some(ExecEvent::Failed { message, .. }) => return Ok(failed(&message)),
            Some(ExecEvent::Exited(status, _)) => {
                let output = output.await.unwrap_or_default().into();
                return Ok(Prepared { status: Some(status), output });
            }
            None => return Ok(failed("the command was lost")),
        }
    }
}

fn failed(message: &str) -> Prepared {
    let mut output = message.as_bytes().to_vec();
    output.truncate(MAX_PREPARED_OUTPUT);
    Prepared { status: None, output: output.into() }
}

/// The end of what comes over a channel.
async fn tail(mut from: Channel) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut buffer = vec![0; MAX_PREPARED_OUTPUT];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        kept.extend(&buffer[..n]);
        kept.drain(..kept.len().saturating_sub(MAX_PREPARED_OUTPUT));
    }
    kept
}
