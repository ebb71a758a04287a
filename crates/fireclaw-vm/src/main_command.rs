//! The main command of a guest: it goes on when its host has gone, and is followed by the next.

use fireclaw_protocol::frame;
use fireclaw_protocol::message::{
    AttachFrom, ExecEvent, ExecFailure, MainControl, MainEvent, MainInput, MainRequest, Open,
    TerminalSize,
};
use fireclaw_protocol::session::Channel;
use fireclaw_protocol::{Error, Result};
use tokio::io::{ReadHalf, WriteHalf};

use crate::Commands;
use crate::guest::since;

/// The generation that has one.
const NEEDED: u32 = 5;
const WHAT: &str = "a main command";

/// Follows the main command.
#[derive(Debug)]
pub struct Attached {
    /// What it is told.
    pub control: MainControls,
    /// What becomes of it.
    pub events: MainEvents,
}

/// Steers the main command.
#[derive(Debug)]
pub struct MainControls(WriteHalf<Channel>);

/// Tells what becomes of the main command.
#[derive(Debug)]
pub struct MainEvents(ReadHalf<Channel>);

impl MainControls {
    /// Sends the signal with Linux's number to its process group.
    pub async fn signal(&mut self, signal: i32) -> Result<()> {
        frame::write(&mut self.0, &MainControl::Signal(signal)).await
    }

    /// Tells it the size of its terminal, if it has one.
    pub async fn resize(&mut self, size: TerminalSize) -> Result<()> {
        frame::write(&mut self.0, &MainControl::Resize(size)).await
    }

    /// Tells the guest how much of its output, in all that came here, is written down.
    pub async fn taken(&mut self, bytes: u64) -> Result<()> {
        frame::write(&mut self.0, &MainControl::Taken(bytes)).await
    }
}

/// Writes what the main command reads.
#[derive(Debug)]
pub struct MainWriter(Channel);

impl MainWriter {
    /// Has it read these bytes; none is the end of its input. Waits while it takes no more.
    pub async fn write(&mut self, bytes: Vec<u8>) -> Result<()> {
        frame::write(&mut self.0, &MainInput { bytes: bytes.into() }).await
    }
}

impl MainEvents {
    /// The next event; [`Error::Closed`] when the guest has no more to say. Not cancel-safe.
    pub async fn next(&mut self) -> Result<MainEvent> {
        frame::read(&mut self.0, frame::MAX_FROM_GUEST).await?.ok_or(Error::Closed)
    }
}

impl Commands {
    /// Starts the main command; why not, with words for a person, if it could not be started.
    ///
    /// # Errors
    /// [`Error::TooOld`] for a guest that has none.
    pub async fn start_main(
        &self,
        request: MainRequest,
    ) -> Result<std::result::Result<(), (ExecFailure, String)>> {
        let mut channel = self.open(&Open::Main(request)).await?;
        let event: Option<ExecEvent> = frame::read(&mut channel, frame::MAX_FROM_GUEST).await?;
        match event.ok_or(Error::Closed)? {
            ExecEvent::Started => Ok(Ok(())),
            ExecEvent::Failed { cause, message } => {
                Ok(Err((cause, fireclaw_host::escape(&message))))
            }
            ExecEvent::Exited(..) => Err(Error::Violation("it ended before it began".into())),
        }
    }

    /// Follows the main command.
    ///
    /// # Errors
    /// [`Error::TooOld`] for a guest that has none.
    pub async fn attach(&self, from: AttachFrom) -> Result<Attached> {
        let channel = self.open(&Open::Attach { from }).await?;
        let (events, control) = tokio::io::split(channel);
        Ok(Attached { control: MainControls(control), events: MainEvents(events) })
    }

    /// What the main command reads.
    ///
    /// # Errors
    /// [`Error::TooOld`] for a guest that has none.
    pub async fn main_input(&self) -> Result<MainWriter> {
        Ok(MainWriter(self.open(&Open::Input).await?))
    }

    async fn open(&self, purpose: &Open) -> Result<Channel> {
        since(NEEDED, WHAT, self.generation)?;
        self.session.open(purpose).await
    }
}
