//! The session with the program inside a machine.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fireclaw_protocol::frame;
use fireclaw_protocol::hello::{GuestHello, Identity, greet_guest, meet_guest, settle_guest};
use fireclaw_protocol::message::{ExecControl, ExecEvent, ExecRequest, Open};
use fireclaw_protocol::session::{Channel, Session};
use tokio::io::{ReadHalf, WriteHalf};
use tokio::task::JoinHandle;

use crate::{Error, Machine, Result};

/// How many lines of the console an error shows.
const CONSOLE_LINES: usize = 20;

/// How long a VMM may take to end after its guest's stream broke.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// A machine whose guest has taken on its identity and runs commands.
#[derive(Debug)]
pub struct Guest {
    machine: Machine,
    commands: Commands,
    driver: JoinHandle<fireclaw_protocol::Result<()>>,
    hello: Option<GuestHello>,
}

/// Starts commands in a guest; clones share the session.
#[derive(Debug, Clone)]
pub struct Commands {
    session: Session,
    last_id: Arc<AtomicU32>,
}

/// A command in the guest.
#[derive(Debug)]
pub struct Exec {
    /// Bytes for its standard input; shut it down for end of file.
    pub stdin: Channel,
    /// Bytes from its standard output.
    pub stdout: Channel,
    /// Bytes from its standard error.
    pub stderr: Channel,
    /// Signals to it.
    pub control: ExecSignals,
    /// What becomes of it.
    pub events: ExecEvents,
}

/// Sends signals to a command.
#[derive(Debug)]
pub struct ExecSignals(WriteHalf<Channel>);

/// Tells what becomes of a command.
#[derive(Debug)]
pub struct ExecEvents(ReadHalf<Channel>);

impl ExecSignals {
    /// Sends the signal with Linux's number to the command's process group.
    pub async fn signal(&mut self, signal: i32) -> fireclaw_protocol::Result<()> {
        frame::write(&mut self.0, &ExecControl::Signal(signal)).await
    }
}

impl ExecEvents {
    /// The next event; [`fireclaw_protocol::Error::Closed`] when the guest has
    /// no more to say. Not cancel-safe.
    pub async fn next(&mut self) -> fireclaw_protocol::Result<ExecEvent> {
        frame::read(&mut self.0, frame::MAX_FROM_GUEST)
            .await?
            .ok_or(fireclaw_protocol::Error::Closed)
    }
}

impl Commands {
    /// Starts a command; `request.id` is chosen here.
    ///
    /// Waits for as long as the guest does not read: callers set a limit.
    pub async fn exec(&self, mut request: ExecRequest) -> fireclaw_protocol::Result<Exec> {
        let exec = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        request.id = exec;
        let control = self.session.open(&Open::Exec(request)).await?;
        let stdin = self.session.open(&Open::Stdin { exec }).await?;
        let stdout = self.session.open(&Open::Stdout { exec }).await?;
        let stderr = self.session.open(&Open::Stderr { exec }).await?;
        let (events, control) = tokio::io::split(control);
        Ok(Exec {
            stdin,
            stdout,
            stderr,
            control: ExecSignals(control),
            events: ExecEvents(events),
        })
    }
}

impl Guest {
    /// Waits until the guest is up and has taken on a fresh identity under
    /// `hostname`.
    ///
    /// # Errors
    /// [`Error::GuestSilent`] after `patience`, [`Error::VmmDied`] if the VMM
    /// ends first, [`Error::Protocol`] for a guest that does not keep to the
    /// protocol. The machine is dropped, which kills it.
    pub async fn greet(mut machine: Machine, hostname: &str, patience: Duration) -> Result<Self> {
        let identity = fresh_identity(hostname)?;
        let fresh = || Identity { wall_clock_ns: wall_clock_ns(), ..identity };
        let has_said_hello = machine.has_said_hello;
        let stream = &mut machine.stream;
        let greeting = async {
            if has_said_hello {
                settle_guest(stream, fresh()).await.map(|()| None)
            } else {
                greet_guest(stream, fresh).await.map(Some)
            }
        };
        let outcome = tokio::select! {
            outcome = tokio::time::timeout(patience, greeting) => outcome,
            status = machine.process.wait() => {
                return Err(machine.process.died(status?, &machine.console).await);
            }
        };
        let hello = match outcome {
            Ok(Ok(hello)) => hello,
            Ok(Err(e)) => return Err(explain(&mut machine, e).await),
            Err(_) => return Err(silent(&machine, patience)),
        };
        let stream = std::mem::replace(&mut machine.stream, Box::new(tokio::io::empty()));
        let (session, driver) = Session::host(stream);
        let commands = Commands { session, last_id: Arc::default() };
        Ok(Self { machine, commands, driver: tokio::spawn(driver), hello })
    }

    /// What the guest said of itself when it booted; nothing after a restore.
    /// Untrusted.
    pub fn hello(&self) -> Option<&GuestHello> {
        self.hello.as_ref()
    }

    /// The process id of the VMM.
    pub fn vmm_pid(&self) -> Option<u32> {
        self.machine.process.pid()
    }

    /// Boots a machine up to the point where its guest waits for the host, and
    /// writes its snapshot. The machine is gone afterwards.
    ///
    /// The machine must have been launched with [`crate::Memory::SavedTo`].
    pub async fn save(mut machine: Machine, patience: Duration) -> Result<()> {
        let met = tokio::select! {
            met = tokio::time::timeout(patience, meet_guest(&mut machine.stream)) => met,
            status = machine.process.wait() => {
                return Err(machine.process.died(status?, &machine.console).await);
            }
        };
        match met {
            Ok(Ok(_)) => {}
            Ok(Err(e)) => return Err(explain(&mut machine, e).await),
            Err(_) => return Err(silent(&machine, patience)),
        }
        machine.control.save().await?;
        machine.process.kill().await
    }

    /// The handle to start commands with.
    pub fn commands(&self) -> Commands {
        self.commands.clone()
    }

    /// Resolves when the VMM ends by itself, with the reason. Cancel-safe.
    pub async fn died(&mut self) -> Error {
        match self.machine.process.wait().await {
            Ok(status) => self.machine.process.died(status, &self.machine.console).await,
            Err(e) => e,
        }
    }

    /// Turns a broken stream into what broke it: most often the VMM's end.
    pub async fn explain(&mut self, error: fireclaw_protocol::Error) -> Error {
        explain(&mut self.machine, error).await
    }

    /// Ends the machine at once and waits until it is gone.
    pub async fn kill(mut self) -> Result<()> {
        let killed = self.machine.process.kill().await;
        self.driver.abort();
        killed
    }
}

fn silent(machine: &Machine, patience: Duration) -> Error {
    Error::GuestSilent {
        seconds: patience.as_secs(),
        console: machine.console.last_lines(CONSOLE_LINES),
    }
}

async fn explain(machine: &mut Machine, error: fireclaw_protocol::Error) -> Error {
    // A stream in good order says nothing of the VMM.
    if matches!(error, fireclaw_protocol::Error::Io(_) | fireclaw_protocol::Error::Closed)
        && let Ok(Ok(status)) = tokio::time::timeout(LAST_WORDS, machine.process.wait()).await
    {
        return machine.process.died(status, &machine.console).await;
    }
    Error::Protocol { source: error, console: machine.console.last_lines(CONSOLE_LINES) }
}

fn fresh_identity(hostname: &str) -> Result<Identity> {
    let mut random = [0; 64 + 16];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
        .map_err(|e| Error::system("getrandom")(e.into()))?;
    let (entropy, machine_id) = random.split_at(64);
    let mut id = [0; 16];
    id.copy_from_slice(machine_id);
    Ok(Identity {
        wall_clock_ns: wall_clock_ns(),
        entropy: entropy.to_vec().into(),
        hostname: hostname.to_owned(),
        machine_id: id.into(),
    })
}

fn wall_clock_ns() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}
