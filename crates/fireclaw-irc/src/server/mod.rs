//! A private IRC server: ngircd on the loopback interface, as a child.
//!
//! Everybody on this machine can connect to it unless it has a password. Who
//! connects is not looked up anywhere, and nobody is slowed down.

mod conf;
mod process;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::TcpStream;

use crate::{Error, Result, Secret};
use process::Process;

/// The environment variable that can name ngircd.
pub const VARIABLE: &str = "FIRECLAW_NGIRCD";

/// How long ngircd has to accept connections. It takes a few milliseconds.
const START: Duration = Duration::from_secs(20);

/// How long a port may be taken by a server that is on its way out: ours ends when
/// its owner does, but not in the same moment.
const FREED: Duration = Duration::from_secs(2);

/// Between two looks whether it does.
const LOOK: Duration = Duration::from_millis(10);

/// How often a free port is looked for, should others be faster.
const ATTEMPTS: usize = 3;

/// What a private server is to be like.
#[derive(Debug, Clone)]
pub struct Options {
    /// The TCP port on 127.0.0.1; a free one if `None`.
    pub port: Option<u16>,
    /// The password that clients must send; none if `None`.
    pub password: Option<Secret>,
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
            password: None,
            name: "irc.fireclaw.internal".to_owned(),
            motd: "A private server for people and agents of this machine.".to_owned(),
            nick_len: 31,
        }
    }
}

/// A running ngircd, which ends with this value, and with this process.
#[derive(Debug)]
pub struct PrivateServer {
    process: Process,
    port: u16,
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
        let program = process::find()?;
        let mut attempt = 1;
        loop {
            match Self::attempt(&program, dir, options).await {
                Err(Error::ServerFailed { .. }) if options.port.is_none() && attempt < ATTEMPTS => {
                    attempt += 1;
                }
                done => return done,
            }
        }
    }

    async fn attempt(program: &Path, dir: &Path, options: &Options) -> Result<Self> {
        let port = free_port(options.port).await?;
        let config = dir.join("ngircd.conf");
        let user = process::user();
        let file = conf::write(&config, options, port, user)?;
        let mut process = Process::spawn(program, file, user)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let deadline = tokio::time::Instant::now() + START;
        loop {
            let accepts = TcpStream::connect(address).await.is_ok();
            if let Some(reason) = process.ended()? {
                return Err(process.failed(reason).await);
            }
            if accepts {
                return Ok(Self { process, port, config });
            }
            if tokio::time::Instant::now() > deadline {
                let reason = format!("it did not accept connections within {START:?}");
                return Err(process.failed(reason).await);
            }
            tokio::time::sleep(LOOK).await;
        }
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

/// The port that is wanted, once nobody listens on it any more; or any free one.
async fn free_port(wanted: Option<u16>) -> Result<u16> {
    let deadline = tokio::time::Instant::now() + FREED;
    loop {
        match try_port(wanted) {
            Err(_) if wanted.is_some() && tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(LOOK).await;
            }
            done => return done,
        }
    }
}

/// A port that nobody listens on right now.
fn try_port(wanted: Option<u16>) -> Result<u16> {
    let taken = |error: std::io::Error| Error::ServerFailed {
        reason: match wanted {
            Some(port) => format!("127.0.0.1:{port} cannot be listened on: {error}"),
            None => format!("there is no port to listen on: {error}"),
        },
        log: String::new(),
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, wanted.unwrap_or(0))).map_err(taken)?;
    Ok(listener.local_addr().map_err(taken)?.port())
}
