//! Asks a gateway over its socket.

use std::path::PathBuf;
use std::time::Duration;

use fireclaw_host::{ProcessStamp, SocketDir};
use fireclaw_policy::Network;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use crate::control::{Ask, MAX_LINE, SOCKET, Status};
use crate::{Error, Result};

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(20);

/// Asks the gateway of one VM.
#[derive(Debug, Clone)]
pub struct Client {
    directory: PathBuf,
}

impl Client {
    /// For the gateway whose socket is in a directory.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// How it is: policy, addresses, what was refused.
    ///
    /// # Errors
    /// [`Error::Gateway`] if there is none.
    pub async fn status(&self) -> Result<Status> {
        self.ask(&Ask::Status).await
    }

    /// Allows one more target, as a policy has them: `host`, `host:port`, `*.domain`.
    ///
    /// # Errors
    /// [`Error::NotHere`] if it is none, or under policy `local`; [`Error::Gateway`].
    pub async fn allow(&self, target: &str) -> Result<()> {
        self.ask(&Ask::Allow { target: target.into() }).await
    }

    /// Replaces the policy. Open connections that it does not allow are cut.
    ///
    /// # Errors
    /// What can go wrong when a VM starts with it.
    pub async fn set_policy(&self, policy: &Network) -> Result<()> {
        self.ask(&Ask::Policy { policy: policy.clone() }).await
    }

    /// From now on the gateway lives exactly as long as this process, a VM's VMM.
    ///
    /// # Errors
    /// [`Error::Gateway`], also if the process has ended.
    pub async fn belongs_to(&self, process: ProcessStamp) -> Result<()> {
        self.ask(&Ask::BelongsTo { process }).await
    }

    async fn ask<T: DeserializeOwned>(&self, ask: &Ask) -> Result<T> {
        let failed = |e: std::io::Error| Error::gateway(format!("does not answer: {e}"));
        let asked = tokio::time::timeout(ANSWER, self.exchange(ask)).await;
        let line = asked.map_err(|e| failed(e.into()))?.map_err(failed)?;
        if line.is_empty() {
            return Err(Error::gateway("ended"));
        }
        serde_json::from_slice::<Result<T>>(&line).map_err(|e| failed(e.into()))?
    }

    async fn exchange(&self, ask: &Ask) -> std::io::Result<Vec<u8>> {
        let directory = SocketDir::open(&self.directory).map_err(std::io::Error::other)?;
        let mut stream = UnixStream::connect(directory.name(SOCKET)).await?;
        let mut line = serde_json::to_vec(ask)?;
        line.push(b'\n');
        stream.write_all(&line).await?;
        let mut answer = Vec::new();
        BufReader::new(stream).take(MAX_LINE).read_until(b'\n', &mut answer).await?;
        Ok(answer)
    }
}
