//! One command in many VMs at once.

use std::future::pending;
use std::io::ErrorKind;
use std::rc::Rc;
use std::sync::Arc;

use fireclaw_protocol::message::{EnvVar, ExecRequest, ExitStatus};
use fireclaw_protocol::session::Channel;
use fireclaw_say::say;
use fireclaw_vm::Exec;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Mutex, Semaphore};

use super::relay::{self, BUFFER, Broken, STDERR, STDOUT};
use super::spool::Spool;
use super::{Order, Outcome};
use crate::error::{CliError, Kind, RUN_FAILED, Result};
use crate::phases::Phases;
use crate::signals::Signals;

/// The variable that tells a command in which clone it runs, from 1 on.
const NUMBER: &str = "FIRECLAW_CLONE";

/// Our own outputs, a line at a time.
struct Outputs {
    stdout: Mutex<tokio::io::Stdout>,
    stderr: Mutex<tokio::io::Stderr>,
}

/// Runs the command in `clones` VMs and waits for all. The outcome is the
/// worst: the highest exit status. A signal to us ends all.
pub async fn run(
    order: &Order<'_>,
    clones: usize,
    request: &ExecRequest,
    input: Option<Spool>,
    mut signals: Signals,
    phases: &mut Phases,
) -> Result<Outcome> {
    let input = input.map(Rc::new);
    let limit = order.plan.limit();
    if clones > limit.sandboxes {
        say!(
            "fireclaw: {} at a time ({}); the others wait their turn",
            limit.sandboxes,
            limit.reason
        );
    }
    let turns = Arc::new(Semaphore::new(limit.sandboxes));
    let outputs = Outputs {
        stdout: Mutex::new(tokio::io::stdout()),
        stderr: Mutex::new(tokio::io::stderr()),
    };
    let width = clones.to_string().len();
    let mut running = FuturesUnordered::new();
    for number in 1..=clones {
        let (turns, outputs, input) = (Arc::clone(&turns), &outputs, input.clone());
        running.push(async move {
            let _turn = turns.acquire().await;
            let label = format!("[{number:>width$}] ");
            (label.clone(), one(order, number, label, request, input, outputs).await)
        });
    }
    let mut worst = 0;
    let all = async {
        while let Some((label, outcome)) = running.next().await {
            worst = worst.max(code(&label, outcome, order));
        }
    };
    tokio::select! {
        () = all => {}
        // Dropping them ends the VMs.
        signal = signals.next() => return Ok(Outcome::Interrupted(signal)),
    }
    phases.mark("all clones");
    Ok(Outcome::Exited(ExitStatus::Code(worst)))
}

/// The exit status of one clone; what it does not say is told.
fn code(label: &str, outcome: Result<Outcome>, order: &Order<'_>) -> u8 {
    match outcome {
        Ok(Outcome::Exited(ExitStatus::Code(code))) => code,
        Ok(outcome) => outcome.report(label, order.timeout),
        Err(e) => {
            for line in e.text().lines() {
                say!("{label}{line}");
            }
            RUN_FAILED
        }
    }
}

async fn one(
    order: &Order<'_>,
    number: usize,
    label: String,
    request: &ExecRequest,
    input: Option<Rc<Spool>>,
    outputs: &Outputs,
) -> Result<Outcome> {
    let mut request = request.clone();
    request.env.push(EnvVar {
        name: NUMBER.as_bytes().to_vec().into(),
        value: number.to_string().into_bytes().into(),
    });
    let mut running = order.start(&mut Phases::start(false)).await?;
    let commands = running.guest.commands();
    let relayed = async {
        let Exec { stdin, stdout, stderr, control: _control, events } =
            commands.exec(request).await.map_err(Broken::Guest)?;
        let output = async {
            tokio::try_join!(
                lines(stdout, &label, &outputs.stdout, STDOUT),
                lines(stderr, &label, &outputs.stderr, STDERR),
            )?;
            Ok(())
        };
        let feeding = async {
            let fed = match input {
                Some(input) => input.feed(stdin).await,
                None => {
                    drop(stdin);
                    Ok(())
                }
            };
            match fed {
                Ok(()) => pending().await,
                Err(problem) => {
                    let problem = format!("standard input was cut short: {problem}");
                    Err(Broken::Here(CliError::new(Kind::System, problem)))
                }
            }
        };
        tokio::select! {
            outcome = relay::finished(events, output) => outcome,
            cut_short = feeding => cut_short,
        }
    };
    let outcome = relay::attend(&mut running.guest, relayed, order.timeout).await;
    let ended = running.end().await;
    let outcome = outcome?;
    ended?;
    Ok(outcome)
}

/// Copies one of the command's outputs to ours, each line with its label. A
/// line longer than the buffer is cut into several.
async fn lines(
    mut from: Channel,
    label: &str,
    to: &Mutex<impl AsyncWrite + Unpin>,
    name: &str,
) -> std::result::Result<(), Broken> {
    let mut pending = Vec::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        let n = from.read(&mut buffer).await.map_err(|e| Broken::Guest(e.into()))?;
        pending.extend(&buffer[..n]);
        let whole = match pending.iter().rposition(|byte| *byte == b'\n') {
            Some(last) => last + 1,
            None if n == 0 || pending.len() >= BUFFER => pending.len(),
            None => 0,
        };
        let mut labelled = Vec::new();
        for line in pending[..whole].split_inclusive(|byte| *byte == b'\n') {
            labelled.extend(label.as_bytes());
            labelled.extend(line);
        }
        if whole > 0 && !labelled.ends_with(b"\n") {
            labelled.push(b'\n');
        }
        pending.drain(..whole);
        let mut to = to.lock().await;
        let written = async {
            to.write_all(&labelled).await?;
            to.flush().await
        };
        match written.await {
            Ok(()) if n == 0 && pending.is_empty() => return Ok(()),
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::BrokenPipe => return Ok(()),
            Err(e) => return Err(relay::cannot_write(name, &e)),
        }
    }
}
