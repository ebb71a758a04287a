//! The session with the program inside a VM.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fireclaw_host::ProcessStamp;
use fireclaw_protocol::hello::{
    GuestHello, Identity, Interface, Prepared, meet_abandoned_guest, meet_guest, personalize_guest,
    prepare_guest,
};
use fireclaw_protocol::message::{
    Connected, ExecControl, ExecEvent, ExecRequest, Open, TerminalSize,
};
use fireclaw_protocol::session::{Channel, Session};
use fireclaw_protocol::{GENERATION, frame};
use tokio::io::{BufReader, ReadHalf, WriteHalf};
use tokio::task::JoinHandle;

use crate::backend::Control;
use crate::{Error, Machine, Result, RunDir, VmmProcess};

/// How long a VMM may take to end after its guest's stream broke.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Channels that a command takes: its events and its three streams.
const EXEC_CHANNELS: u32 = 4;

/// A VM whose guest is up and waits to be told who it is.
#[derive(Debug)]
pub struct Waiting {
    machine: Machine,
    hello: Option<GuestHello>,
    /// What the guest speaks.
    generation: u32,
    /// How long each further step may take.
    pub(crate) timeout: Duration,
}

/// A VM whose guest has taken on its identity and runs commands.
pub struct Guest {
    process: VmmProcess,
    commands: Commands,
    driver: JoinHandle<fireclaw_protocol::Result<()>>,
    /// Whether the driver's end was taken note of.
    driver_ended: bool,
    clock_within: Option<Duration>,
    _control: Box<dyn Control>,
    // Dropped last: the VMM is gone before its directory is.
    _run_dir: Option<RunDir>,
}

impl fmt::Debug for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guest").field("process", &self.process).finish_non_exhaustive()
    }
}

/// Starts commands in a guest; clones share the session.
#[derive(Debug, Clone)]
pub struct Commands {
    pub(crate) session: Session,
    pub(crate) generation: u32,
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
    /// Signals to it, and the size of its terminal.
    pub control: ExecControls,
    /// What becomes of it.
    pub events: ExecEvents,
}

/// Steers a command.
#[derive(Debug)]
pub struct ExecControls(WriteHalf<Channel>);

/// Tells what becomes of a command.
#[derive(Debug)]
pub struct ExecEvents(ReadHalf<Channel>);

impl ExecControls {
    /// Sends the signal with Linux's number to the command's process group.
    pub async fn signal(&mut self, signal: i32) -> fireclaw_protocol::Result<()> {
        frame::write(&mut self.0, &ExecControl::Signal(signal)).await
    }

    /// Tells it the size of its terminal.
    ///
    /// Legal if it was started with one.
    pub async fn resize(&mut self, size: TerminalSize) -> fireclaw_protocol::Result<()> {
        frame::write(&mut self.0, &ExecControl::Resize(size)).await
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
    /// Waits while all channels are taken, and for as long as the guest does not
    /// read: callers set a limit.
    ///
    /// # Errors
    /// [`fireclaw_protocol::Error::Busy`] if too many wait already,
    /// [`fireclaw_protocol::Error::TooOld`] for a guest that has no terminals, if one is asked
    /// for.
    pub async fn exec(&self, mut request: ExecRequest) -> fireclaw_protocol::Result<Exec> {
        if request.terminal.is_some() {
            since(4, "a terminal", self.generation)?;
        }
        let exec = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        request.id = exec;
        // All or none: commands that each hold some would wait for each other.
        let mut permits = self.session.reserve(EXEC_CHANNELS).await?;
        let session = &self.session;
        let control = session.open_in(&mut permits, &Open::Exec(request)).await?;
        let stdin = session.open_in(&mut permits, &Open::Stdin { exec }).await?;
        let stdout = session.open_in(&mut permits, &Open::Stdout { exec }).await?;
        let stderr = session.open_in(&mut permits, &Open::Stderr { exec }).await?;
        let (events, control) = tokio::io::split(control);
        Ok(Exec {
            stdin,
            stdout,
            stderr,
            control: ExecControls(control),
            events: ExecEvents(events),
        })
    }

    /// Connects to a TCP port of the guest's 127.0.0.1: bytes pass both ways,
    /// and each direction ends by itself.
    ///
    /// It is one of [`fireclaw_protocol::session::MAX_CHANNELS`] channels, of
    /// which each command takes four: callers bound how many there are.
    ///
    /// # Errors
    /// [`fireclaw_protocol::Error::NotConnected`] if nobody listens there,
    /// [`fireclaw_protocol::Error::TooOld`] for a guest that cannot do it.
    pub async fn connect(&self, port: u16) -> fireclaw_protocol::Result<Channel> {
        since(2, "connections to its ports", self.generation)?;
        let mut channel = self.session.open(&Open::Connect { port }).await?;
        let answer: Option<Connected> = frame::read(&mut channel, frame::MAX_FROM_GUEST).await?;
        match answer.ok_or(fireclaw_protocol::Error::Closed)?.problem {
            None => Ok(channel),
            Some(problem) => {
                Err(fireclaw_protocol::Error::NotConnected(fireclaw_host::escape(&problem)))
            }
        }
    }
}

/// Refuses what a guest of an older generation does not know.
pub(crate) fn since(needed: u32, what: &'static str, theirs: u32) -> fireclaw_protocol::Result<()> {
    if theirs >= needed {
        return Ok(());
    }
    Err(fireclaw_protocol::Error::TooOld { what, needed, theirs })
}

impl Waiting {
    /// Waits until the guest is up: at most `timeout`, as for each step that
    /// follows.
    ///
    /// # Errors
    /// [`Error::GuestSilent`] after `timeout`, [`Error::VmmDied`] if the VMM
    /// ends first, [`Error::Protocol`] for a guest that does not keep to the
    /// protocol. The VM is dropped, which kills it.
    pub async fn meet(mut machine: Machine, timeout: Duration) -> Result<Self> {
        let mut hello = None;
        if !machine.has_said_hello {
            let had_a_host = machine.is_restored;
            let Machine { process, stream, .. } = &mut machine;
            let talk = async {
                if had_a_host {
                    meet_abandoned_guest(&mut BufReader::new(stream)).await
                } else {
                    meet_guest(stream).await
                }
            };
            hello = Some(attended(process, timeout, talk).await?);
        }
        // A guest that said hello before its snapshot was taken is of our own: a
        // snapshot depends on the generation.
        let generation = hello.as_ref().map_or(GENERATION, |hello| hello.generation);
        let hello = hello.filter(|_| !machine.is_restored);
        Ok(Self { machine, hello, generation, timeout })
    }

    /// What the guest said of itself when it booted; nothing after a restore.
    /// Untrusted.
    pub fn hello(&self) -> Option<&GuestHello> {
        self.hello.as_ref()
    }

    /// Has the guest run a command, after which it waits again. Nothing that
    /// the command started runs on. A network interface is down meanwhile.
    ///
    /// # Errors
    /// As [`Waiting::meet`]. How the command itself ended is in the answer.
    pub async fn prepare(&mut self, command: ExecRequest) -> Result<Prepared> {
        let limit = command.timeout_ms.map(Duration::from_millis).unwrap_or_default();
        let identity = fresh_identity("fireclaw", None)?;
        let Machine { process, stream, .. } = &mut self.machine;
        let talk = prepare_guest(stream, identity, command);
        attended(process, self.timeout + limit, talk).await
    }

    /// Writes the VM's snapshot and ends it.
    ///
    /// Legal if it was launched with [`crate::Memory::SavedTo`].
    pub async fn save(mut self) -> Result<()> {
        self.machine.control.save().await?;
        self.machine.process.kill().await
    }

    /// Gives the guest an identity of its own; commands may then start. An interface
    /// that is not told of stays down.
    ///
    /// # Errors
    /// As [`Waiting::meet`], also for an interface that the guest does not have.
    pub async fn personalize(
        mut self,
        hostname: &str,
        interface: Option<Interface>,
    ) -> Result<Guest> {
        if interface.is_some() {
            since(2, "a network interface", self.generation)
                .map_err(|cause| Error::Protocol { cause, console: String::new() })?;
        }
        let identity = fresh_identity(hostname, interface)?;
        let Machine { process, stream, .. } = &mut self.machine;
        let talk = personalize_guest(stream, identity, self.generation, wall_clock_ns);
        let clock_within = attended(process, self.timeout, talk).await?;
        let Machine { process, stream, control, run_dir, .. } = self.machine;
        let (session, driver) = Session::host(stream);
        let commands = Commands { session, generation: self.generation, last_id: Arc::default() };
        let driver = tokio::spawn(driver);
        Ok(Guest {
            process,
            commands,
            driver,
            driver_ended: false,
            clock_within,
            _control: control,
            _run_dir: run_dir,
        })
    }

    pub(crate) fn into_machine(self) -> Machine {
        self.machine
    }
}

impl Guest {
    /// The process id of the VMM.
    pub fn vmm_pid(&self) -> Option<u32> {
        self.process.pid()
    }

    /// What tells a detached VM's VMM from any other process.
    pub fn stamp(&self) -> Option<ProcessStamp> {
        self.process.stamp()
    }

    /// How far the guest's wall clock was from the host's at most when it was set: half of
    /// the round trip that set it. Nothing for a guest of an older generation.
    pub fn clock_within(&self) -> Option<Duration> {
        self.clock_within
    }

    /// The handle to start commands with.
    pub fn commands(&self) -> Commands {
        self.commands.clone()
    }

    /// Resolves when the VMM ends by itself, or the session because its guest does not keep
    /// to the protocol; with the reason. Cancel-safe.
    pub async fn died(&mut self) -> Error {
        loop {
            let ended = tokio::select! {
                death = self.process.ended() => return death,
                ended = &mut self.driver, if !self.driver_ended => ended,
            };
            self.driver_ended = true;
            // A stream that broke is the VMM's end, of which more is known soon.
            if let Ok(Err(cause)) = ended
                && !is_broken(&cause)
            {
                return Error::Protocol { cause, console: self.process.console() };
            }
        }
    }

    /// Turns a broken stream into what broke it: most often the VMM's end.
    pub async fn explain(&mut self, error: fireclaw_protocol::Error) -> Error {
        if is_broken(&error)
            && let Ok(death) = tokio::time::timeout(LAST_WORDS, self.died()).await
        {
            return death;
        }
        Error::Protocol { cause: error, console: self.process.console() }
    }

    /// Stops a detached VM where it is, or lets it go on.
    pub fn pause(&self, paused: bool) -> Result<()> {
        self.process.pause(paused)
    }

    /// Ends the VM at once and waits until it is gone.
    pub async fn kill(mut self) -> Result<()> {
        let killed = self.process.kill().await;
        self.driver.abort();
        if !self.driver_ended {
            // Only then is its descriptor closed.
            let _ = self.driver.await;
        }
        killed
    }
}

/// Talks with a guest until the timeout, or its VMM ends.
async fn attended<T>(
    process: &mut VmmProcess,
    timeout: Duration,
    talk: impl Future<Output = fireclaw_protocol::Result<T>>,
) -> Result<T> {
    let outcome = tokio::select! {
        outcome = tokio::time::timeout(timeout, talk) => outcome,
        death = process.ended() => return Err(death),
    };
    match outcome {
        Ok(Ok(said)) => Ok(said),
        Ok(Err(e)) => Err(explain(process, e).await),
        Err(_) => Err(Error::GuestSilent { limit: timeout, console: process.console() }),
    }
}

/// Whether an error says nothing but that the stream is no more.
fn is_broken(error: &fireclaw_protocol::Error) -> bool {
    matches!(error, fireclaw_protocol::Error::Io(_) | fireclaw_protocol::Error::Closed)
}

async fn explain(process: &mut VmmProcess, error: fireclaw_protocol::Error) -> Error {
    // A stream in good order says nothing of the VMM.
    if is_broken(&error)
        && let Ok(death) = tokio::time::timeout(LAST_WORDS, process.ended()).await
    {
        return death;
    }
    Error::Protocol { cause: error, console: process.console() }
}

/// A host name for a VM that nobody names: `fireclaw-` and 8 hexadecimal
/// digits.
pub fn fresh_hostname() -> Result<String> {
    let mut random = [0; 4];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
        .map_err(|e| Error::system("getrandom")(e.into()))?;
    Ok(format!("fireclaw-{:08x}", u32::from_ne_bytes(random)))
}

fn fresh_identity(hostname: &str, interface: Option<Interface>) -> Result<Identity> {
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
        interface,
    })
}

fn wall_clock_ns() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_guest_is_not_asked_for_what_it_does_not_know() {
        since(2, "connections to its ports", 2).unwrap();
        let error = since(2, "connections to its ports", 1).unwrap_err().to_string();
        assert!(error.contains("generation 1") && error.contains("start it anew"), "{error}");
    }
}
