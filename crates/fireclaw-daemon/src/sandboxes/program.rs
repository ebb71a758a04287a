//! The program of an agent in its sandbox: JSON lines in, JSON lines out.

use fireclaw_protocol::agent::{Action, Event, MAX_LINE};
use fireclaw_protocol::message::{ExecEvent, ExecRequest, ExitStatus};
use fireclaw_protocol::session::Channel;
use fireclaw_vm::{Commands, Exec, ExecControls, ExecEvents};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::JoinSet;

use super::GUEST;
use crate::{Error, Result};

/// The built-in agent, as it is found in every sandbox.
const BUILT_IN: [&str; 2] = [GUEST, "agent"];

/// How many events may wait for the program to read them: more than its messages, and
/// what comes of them, can be.
const UNREAD: usize = 256;

/// What comes from the program.
#[derive(Debug)]
pub enum Said {
    /// It wants something.
    Action(Action),
    /// It wrote something that is no action.
    Nonsense(String),
    /// It wrote this to its log.
    Log(String),
    /// It ended.
    Ended(String),
}

/// A running agent program. Dropping it closes its channels, which ends it.
#[derive(Debug)]
pub struct Program {
    told: mpsc::Sender<Vec<u8>>,
    said: mpsc::Receiver<Said>,
    _running: Option<(ExecControls, JoinSet<()>)>,
}

impl Program {
    /// Starts the built-in program, or a template's own.
    pub async fn start(commands: &Commands, command: &[String]) -> Result<Self> {
        let words: Vec<&str> = match command {
            [] => BUILT_IN.to_vec(),
            own => own.iter().map(String::as_str).collect(),
        };
        let request = ExecRequest {
            argv: words.iter().map(|word| word.as_bytes().to_vec().into()).collect(),
            user: Some("agent".into()),
            workdir: Some(fireclaw_protocol::agent::WORKSPACE.as_bytes().to_vec().into()),
            ..ExecRequest::default()
        };
        let started = commands.exec(request).await;
        let Exec { stdin, stdout, stderr, control, events } =
            started.map_err(|e| Error::Program(format!("cannot be started: {e}")))?;
        // Bounded: a program that writes faster than it is heard is slowed down.
        let (tell, said) = mpsc::channel(16);
        // Nobody waits for a program that does not read: least of all who ends it.
        let (told, unread) = mpsc::channel(UNREAD);
        let mut streams = JoinSet::new();
        streams.spawn(write(stdin, unread));
        streams.spawn(actions(BufReader::new(stdout), tell.clone()));
        streams.spawn(log(BufReader::new(stderr), tell.clone()));
        streams.spawn(ended(events, tell));
        Ok(Self { told, said, _running: Some((control, streams)) })
    }

    /// One that a test plays.
    #[cfg(test)]
    pub fn played(told: mpsc::Sender<Vec<u8>>, said: mpsc::Receiver<Said>) -> Self {
        Self { told, said, _running: None }
    }

    /// Tells it something, which it reads when it does. That it has gone is told by
    /// [`Program::next`].
    ///
    /// # Errors
    /// [`Error::Program`] if it has not read what it was told before.
    pub fn tell(&self, event: &Event) -> Result<()> {
        let mut line = serde_json::to_vec(event).unwrap_or_default();
        line.push(b'\n');
        match self.told.try_send(line) {
            Err(TrySendError::Full(_)) => Err(Error::Program("does not read".into())),
            Ok(()) | Err(TrySendError::Closed(_)) => Ok(()),
        }
    }

    /// What it says next. Cancel-safe.
    pub async fn next(&mut self) -> Said {
        self.said.recv().await.unwrap_or_else(|| Said::Ended("it is gone".into()))
    }
}

async fn write(mut stdin: Channel, mut lines: mpsc::Receiver<Vec<u8>>) {
    while let Some(line) = lines.recv().await {
        if stdin.write_all(&line).await.is_err() || stdin.flush().await.is_err() {
            return;
        }
    }
}

async fn actions(mut from: impl AsyncBufRead + Unpin, tell: mpsc::Sender<Said>) {
    while let Some(line) = line(&mut from, MAX_LINE).await {
        let said = match serde_json::from_slice(&line) {
            Ok(action) => Said::Action(action),
            Err(e) => {
                let start = String::from_utf8_lossy(&line[..line.len().min(200)]).into_owned();
                Said::Nonsense(format!("{e}: {}", fireclaw_host::escape(&start)))
            }
        };
        if tell.send(said).await.is_err() {
            return;
        }
    }
}

async fn log(mut from: impl AsyncBufRead + Unpin, tell: mpsc::Sender<Said>) {
    while let Some(line) = line(&mut from, 4096).await {
        let text = fireclaw_host::escape(&String::from_utf8_lossy(&line));
        if tell.send(Said::Log(text)).await.is_err() {
            return;
        }
    }
}

async fn ended(mut events: ExecEvents, tell: mpsc::Sender<Said>) {
    let how = loop {
        let event = events.next().await;
        let why = match event.as_ref().is_ok_and(ExecEvent::is_out_of_memory) {
            true => "; the guest ran out of memory",
            false => "",
        };
        break match event {
            Ok(ExecEvent::Started) => continue,
            Ok(ExecEvent::Exited(ExitStatus::Code(code), _)) => {
                format!("ended with status {code}{why}")
            }
            Ok(ExecEvent::Exited(ExitStatus::Signal(n), _)) => {
                format!("was ended by signal {n}{why}")
            }
            Ok(ExecEvent::Exited(ExitStatus::TimedOut, _)) => "took too long".to_owned(),
            Ok(ExecEvent::Failed { message, .. }) => {
                format!("cannot be started: {}", fireclaw_host::escape(&message))
            }
            Err(e) => format!("was lost: {e}"),
        };
    };
    let _ = tell.send(Said::Ended(how)).await;
}

/// A line without its end; one longer than `most` bytes is cut there and its
/// rest skipped.
async fn line(from: &mut (impl AsyncBufRead + Unpin), most: usize) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    let limit = most as u64 + 1;
    let read = (&mut *from).take(limit).read_until(b'\n', &mut line).await.ok()?;
    if read == 0 {
        return None;
    }
    if line.last() == Some(&b'\n') {
        line.pop();
        return Some(line);
    }
    line.truncate(most);
    // The rest, piece by piece.
    let mut rest = Vec::new();
    while (&mut *from).take(limit).read_until(b'\n', &mut rest).await.ok()? > 0 {
        if rest.last() == Some(&b'\n') {
            break;
        }
        rest.clear();
    }
    Some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_bounded() {
        let long = "x".repeat(1000);
        let text = format!("short\n{long}\nlast");
        let mut from = BufReader::with_capacity(16, text.as_bytes());
        assert_eq!(line(&mut from, 10).await.unwrap(), b"short");
        assert_eq!(line(&mut from, 10).await.unwrap(), b"xxxxxxxxxx");
        assert_eq!(line(&mut from, 10).await.unwrap(), b"last");
        assert_eq!(line(&mut from, 10).await, None);
    }

    #[tokio::test]
    async fn what_is_no_action_is_shown_harmlessly() {
        let (tell, mut said) = mpsc::channel(4);
        actions(&b"{\"action\":\"done\",\"message\":3}\n\x1b[2J\n"[..], tell).await;
        assert!(matches!(said.recv().await, Some(Said::Action(Action::Done { message: 3 }))));
        let Some(Said::Nonsense(text)) = said.recv().await else { panic!() };
        assert!(!text.contains('\x1b'), "{text}");
    }
}
