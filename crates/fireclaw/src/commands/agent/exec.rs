//! `fireclaw agent exec`: a command in the VM of an agent, with our own streams.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::time::Duration;

use fireclaw_daemon::api::{self, Client, Ended, Exec, Frame, MOST, Streams};
use fireclaw_protocol::message::{self, EnvVar, TerminalSize};
use fireclaw_say::say;
use rustix::process::Signal;
use tokio::io::{AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;

use crate::error::{CliError, Kind, Result};
use crate::run::relay::Reads;
use crate::signals::Signals;
use crate::stdin::Input;
use crate::values;

/// How long a command may take to end after a signal before it is ended.
const GRACE: Duration = Duration::from_secs(5);

/// Run a command in an agent's VM
///
/// Standard input, output and error are streamed. Signals are forwarded; a second one kills the
/// command. Exit status: the command's own, 128+n if signal n killed it, 124 on timeout, 127 if
/// the command was not found, 126 if it cannot be executed, 125 if Fireclaw failed.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fireclaw agent exec bob -- ls -la /workspace
  fireclaw agent exec -it bob bash
  tar c src | fireclaw agent exec bob -- tar x -C /workspace
  fireclaw agent exec bob --user root -n -t 60 -- apt-get update")]
pub struct Args {
    /// The agent
    name: String,

    /// User in the VM
    #[arg(short, long, default_value = "agent")]
    user: String,

    /// Kill the command after this many seconds
    #[arg(short, long, value_name = "SECONDS", value_parser = values::timeout, allow_negative_numbers = true)]
    timeout: Option<Duration>,

    /// Set an environment variable; NAME alone passes the host's value
    #[arg(short, long = "env", value_name = "NAME[=VALUE]", value_parser = values::variable())]
    envs: Vec<EnvVar>,

    /// Working directory in the VM [default: the user's home]
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,

    /// Give the command a terminal: yours. -it is the same
    #[arg(long, conflicts_with = "no_stdin")]
    tty: bool,

    /// Forward standard input, which is the default
    #[arg(short, long, conflicts_with = "no_stdin")]
    interactive: bool,

    /// Do not forward standard input
    #[arg(short = 'n', long)]
    no_stdin: bool,

    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// Runs the command; the exit status.
pub async fn execute(client: &Client, args: Args) -> Result<u8> {
    let mut signals = Signals::listen()?;
    let argv: Option<Vec<String>> =
        args.command.into_iter().map(|word| word.into_string().ok()).collect();
    let argv = argv.ok_or_else(|| CliError::usage("the command is not UTF-8"))?;
    values::guest_user(&args.user)?;
    let seconds = args.timeout.map(|limit| limit.as_secs_f64());
    let mut reads = Reads::of(args.tty, args.no_stdin)?;
    // Before the command's time begins.
    tokio::select! {
        handed = reads.hand_over() => handed?,
        signal = signals.next() => return Ok(interrupted(signal)),
    }
    let exec = Exec {
        argv,
        user: Some(args.user),
        seconds,
        env: args.envs.into_iter().map(variable).collect::<Result<_>>()?,
        workdir: args.workdir,
        terminal: reads.terminal().map(described),
    };
    let started = client.exec(super::segment(&args.name)?, &exec);
    let streams = tokio::select! {
        streams = started => streams.map_err(|problem| super::refused(&problem))?,
        signal = signals.next() => return Ok(interrupted(signal)),
    };
    let ended = attend(streams, &mut reads, &mut signals).await;
    // The terminal is ours again before anything is said.
    drop(reads);
    status(ended?)
}

/// Passes everything on until the command has ended.
async fn attend(streams: Streams, reads: &mut Reads, signals: &mut Signals) -> Result<Ended> {
    let (from, to) = tokio::io::split(streams);
    let (want, wanted) = mpsc::channel(1);
    let (tell, told) = mpsc::channel(8);
    // Stays behind at the end: a read of standard input cannot be ended.
    tokio::spawn(feed(wanted, tell.clone(), !matches!(reads, Reads::Nothing)));
    tokio::spawn(send(to, told));
    let ended = relay(from, want);
    tokio::pin!(ended);
    let signal = loop {
        tokio::select! {
            ended = &mut ended => return ended,
            signal = signals.next() => break signal,
            TerminalSize { rows, columns } = reads.resized() => {
                let _ = tell.send(Frame::Resize { rows, columns }).await;
            }
        }
    };
    // The command may end in its own way; a second signal, or none obeyed, ends it: the
    // overseer sees that we are gone.
    let _ = tell.send(Frame::Signal(u8::try_from(signal).unwrap_or_default())).await;
    tokio::select! {
        ended = &mut ended => ended,
        second = signals.next() => Ok(Ended::Exited(interrupted(second))),
        () = tokio::time::sleep(GRACE) => Ok(Ended::Exited(interrupted(signal))),
    }
}

fn described(terminal: message::Terminal) -> api::Terminal {
    let message::Terminal { kind, size } = terminal;
    let kind = String::from_utf8_lossy(&kind).into_owned();
    api::Terminal { kind, rows: size.rows, columns: size.columns }
}

fn variable(variable: EnvVar) -> Result<(String, String)> {
    let EnvVar { name, value } = variable;
    match (String::from_utf8(name.into()), String::from_utf8(value.into())) {
        (Ok(name), Ok(value)) => Ok((name, value)),
        _ => Err(CliError::usage("a variable is not UTF-8")),
    }
}

fn failed(problem: impl std::fmt::Display) -> CliError {
    CliError::new(Kind::System, problem.to_string())
}

fn interrupted(signal: i32) -> u8 {
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
async fn feed(mut wanted: mpsc::Receiver<()>, tell: mpsc::Sender<Frame>, with_stdin: bool) {
    let mut stdin = Input::open();
    let mut buffer = vec![0; MOST];
    while wanted.recv().await.is_some() {
        let n = match with_stdin {
            true => stdin.read(&mut buffer).await.unwrap_or_default(),
            false => 0,
        };
        if tell.send(Frame::Input(buffer[..n].to_vec())).await.is_err() || n == 0 {
            return;
        }
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
            Ok(None) => return Err(failed("the overseer has gone, and the command with it")),
            Err(e) => return Err(failed(format!("the overseer: {e}"))),
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

fn status(ended: Ended) -> Result<u8> {
    match ended {
        Ended::Exited(code) => Ok(code),
        Ended::Signal(signal) => Ok(128u8.saturating_add(signal)),
        Ended::OutOfMemory(code) => {
            say!(
                "fireclaw: the guest ran out of memory, and its kernel killed a process; \
                 `memory` in the agent's template gives it more"
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
