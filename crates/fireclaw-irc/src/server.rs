//! A private IRC server: ngircd on the loopback interface, as a child.
//!
//! Everybody on this host can connect to it unless it has a password. Who
//! connects is not looked up anywhere, and nobody is slowed down.

mod conf;
mod password;
mod process;

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::{Error, Result};
use fireclaw_host::Secret;
use process::Process;

pub use password::{FILE as PASSWORD_FILE, own as own_password};

/// The environment variable that can name ngircd.
pub const VARIABLE: &str = "FIRECLAW_NGIRCD";

/// How long ngircd has to accept connections. It takes a few milliseconds.
const START: Duration = Duration::from_secs(20);

/// How long a port may be taken by a server that is on its way out: ours ends when
/// its owner does, but not in the same moment.
const FREED: Duration = Duration::from_secs(2);

/// Between two looks whether it is free.
const LOOK: Duration = Duration::from_millis(10);

/// What a private server is to be like.
#[derive(Debug, Clone)]
pub struct Options {
    /// The TCP port on 127.0.0.1; a free one if `None`.
    pub port: Option<u16>,
    /// Whether another port will do if that one is taken.
    pub any_port: bool,
    /// The password that clients must send; none if `None`.
    pub password: Option<Secret>,
    /// Channels that are there from the start: whoever joins them first is not
    /// their operator, and nobody ever is.
    pub channels: Vec<String>,
    /// Where ngircd is looked for after the environment and before `PATH`.
    pub program: Option<PathBuf>,
    /// The server's name, with at least one dot.
    pub name: String,
    /// What it says to those who connect.
    pub motd: String,
    /// The longest nick in bytes; ngircd allows 31 at most.
    pub nick_len: u8,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            port: None,
            any_port: false,
            password: None,
            channels: Vec::new(),
            program: None,
            name: "irc.fireclaw.internal".to_owned(),
            motd: "A private server for people and agents of this host.".to_owned(),
            nick_len: 31,
        }
    }
}

/// A running ngircd, which ends with this value, and with this process.
///
/// The socket that it listens on is ours: while ngircd is started again, nobody
/// else can listen there, and whoever connects waits.
#[derive(Debug)]
pub struct PrivateServer {
    process: Process,
    listener: TcpListener,
    port: u16,
    program: PathBuf,
    options: Options,
    config: PathBuf,
}

impl PrivateServer {
    /// Writes `ngircd.conf` into `dir`, which must exist, starts ngircd with it,
    /// and waits until it accepts connections.
    ///
    /// Started by root, ngircd runs as the user `irc`, else `nobody`. Call it on
    /// a thread that lives as long as the server should, in a tokio runtime that
    /// does: the kernel kills ngircd when the *thread* that started it ends
    /// (`prctl(2)`, `PR_SET_PDEATHSIG`), and its log is read by a task.
    ///
    /// # Errors
    /// [`Error::ServerMissing`] if ngircd is not installed, [`Error::Config`] for
    /// options that cannot be written down, [`Error::ServerFailed`] if it does
    /// not come up, for example because the port is taken, and [`Error::File`].
    pub async fn start(dir: &Path, options: &Options) -> Result<Self> {
        let program = process::find(options.program.as_deref())?;
        let listener = match listen(options.port).await {
            Err(_) if options.any_port => listen(None).await?,
            done => done?,
        };
        let port = listener.local_addr().map_err(Error::system("cannot read a port"))?.port();
        let config = dir.join("ngircd.conf");
        let process = begin(&program, &config, options, &listener, port).await?;
        Ok(Self { process, listener, port, program, options: options.clone(), config })
    }

    /// Starts ngircd again where it listened, after it died.
    ///
    /// # Errors
    /// As [`PrivateServer::start`], but the port cannot be taken.
    pub async fn restart(&mut self) -> Result<()> {
        let Self { program, config, options, listener, port, .. } = self;
        self.process = begin(program, config, options, listener, *port).await?;
        Ok(())
    }

    /// Its TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its configuration file.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.pid()
    }

    /// The last lines of its log, escaped for a terminal.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Waits until ngircd ends by itself, which it should not, and says why.
    ///
    /// Dropping the future does no harm.
    pub async fn died(&mut self) -> Error {
        match self.process.wait().await {
            Ok(reason) => self.process.failed(reason).await,
            Err(error) => error,
        }
    }
}

/// Starts ngircd and waits until it says that it is ready. To connect would prove
/// nothing: the socket is ours and takes connections before ngircd is there.
async fn begin(
    program: &Path,
    config: &Path,
    options: &Options,
    listener: &TcpListener,
    port: u16,
) -> Result<Process> {
    let user = process::user();
    let file = conf::write(config, options, port, user)?;
    let mut process = Process::spawn(program, file, listener, user).await?;
    match tokio::time::timeout(START, process.ready()).await {
        Ok(true) => Ok(process),
        Ok(false) => {
            let reason = process.wait().await?;
            Err(process.failed(reason).await)
        }
        Err(_) => {
            let reason = format!("it was not ready within {START:?}");
            Err(process.failed(reason).await)
        }
    }
}

/// Listens on the port that is wanted, once nobody else does; or on any.
async fn listen(wanted: Option<u16>) -> Result<TcpListener> {
    let deadline = tokio::time::Instant::now() + FREED;
    loop {
        match TcpListener::bind((Ipv4Addr::LOCALHOST, wanted.unwrap_or(0))) {
            Ok(listener) => return Ok(listener),
            Err(_) if wanted.is_some() && tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(LOOK).await;
            }
            Err(error) => {
                let reason = match wanted {
                    Some(port) => format!("127.0.0.1:{port} cannot be listened on: {error}"),
                    None => format!("there is no port to listen on: {error}"),
                };
                return Err(Error::ServerFailed { reason, log: String::new() });
            }
        }
    }
}
