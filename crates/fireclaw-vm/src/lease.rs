//! The hold on a VM of another process, a pool: see [`crate::pool`].

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::{Error, Result};

/// What the pool says when the VM ends before its lease: the fields of
/// [`crate::Error::VmmDied`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Death {
    pub status: String,
    pub stderr: String,
    pub console: String,
}

/// The longest message on a lease, in bytes.
const MAX_MESSAGE: usize = 256 * 1024;

/// A VM of a pool, for as long as this lives.
#[derive(Debug)]
pub struct Lease {
    pid: u32,
    connection: UnixStream,
    said: Vec<u8>,
}

impl Lease {
    /// What a pool gave out over this connection.
    pub fn new(pid: u32, connection: UnixStream) -> Self {
        Self { pid, connection, said: Vec::new() }
    }

    /// The VMM's process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Resolves when the pool says that the VM ended, or ends itself.
    pub async fn ended(&mut self) -> Error {
        let mut buffer = [0; 4096];
        while self.said.len() < MAX_MESSAGE
            && let Ok(n @ 1..) = self.connection.read(&mut buffer).await
        {
            self.said.extend(&buffer[..n]);
        }
        match serde_json::from_slice(&self.said) {
            Ok(Death { status, stderr, console }) => Error::VmmDied { status, stderr, console },
            Err(_) => Error::VmmDied {
                status: "its pool ended".into(),
                stderr: String::new(),
                console: String::new(),
            },
        }
    }

    /// Gives the VM back, which ends it.
    pub async fn end(&mut self) -> Result<()> {
        self.connection.shutdown().await.map_err(Error::system("giving a VM back"))
    }
}
