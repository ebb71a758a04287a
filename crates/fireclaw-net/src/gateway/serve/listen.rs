//! The socket on which a gateway is asked, and what it answers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fireclaw_host::SocketDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixListener;

use super::{Gateway, Lifetime};
use crate::control::{Ask, MAX_LINE, SOCKET};
use crate::{Error, Result};

/// The most who ask at a time.
const ASKING: usize = 16;

/// The socket that the gateway is asked on, whose file goes with it. Who was root may not
/// remove it any more: then it goes with its directory.
pub struct SocketFile {
    path: PathBuf,
    pub listener: std::os::unix::net::UnixListener,
}

impl SocketFile {
    pub fn bind(directory: &Path) -> Result<Self> {
        let doing = || format!("listening in {}", directory.display());
        let failed = || Error::system::<std::io::Error>(doing());
        let path = directory.join(SOCKET);
        let opened = SocketDir::open(directory).map_err(Error::system(doing()))?;
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(failed()(e)),
            _ => {}
        }
        // Only the owner may connect.
        let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
        let listener = std::os::unix::net::UnixListener::bind(opened.name(SOCKET));
        rustix::process::umask(before);
        let listener = listener.map_err(failed())?;
        listener.set_nonblocking(true).map_err(failed())?;
        Ok(Self { path, listener })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Gateway {
    /// Hears who asks.
    pub(super) async fn listen(self: Arc<Self>, listener: UnixListener) {
        let permits = Arc::new(tokio::sync::Semaphore::new(ASKING));
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
            let gateway = Arc::clone(&self);
            tokio::spawn(async move {
                let _ = gateway.hear(stream).await;
                drop(permit);
            });
        }
    }

    async fn hear(&self, mut stream: tokio::net::UnixStream) -> std::io::Result<()> {
        let (read, mut write) = stream.split();
        let mut read = BufReader::new(read);
        loop {
            let mut line = Vec::new();
            if (&mut read).take(MAX_LINE).read_until(b'\n', &mut line).await? == 0 {
                return Ok(());
            }
            let answer = match serde_json::from_slice(&line) {
                Ok(ask) => self.obey(ask).await,
                Err(e) => Err(Error::gateway(format!("does not understand: {e}"))),
            };
            let mut answer = serde_json::to_vec(&answer)?;
            answer.push(b'\n');
            write.write_all(&answer).await?;
        }
    }

    async fn obey(&self, ask: Ask) -> Result<serde_json::Value> {
        let done = |()| serde_json::Value::Null;
        match ask {
            Ask::Status => serde_json::to_value(self.status().await?)
                .map_err(Error::system("telling how it is")),
            Ask::Allow { target } => self.allow(&target).await.map(done),
            Ask::Policy { policy } => self.change(policy).await.map(done),
            Ask::BelongsTo { process } if process.lives() => {
                // What ends, ends all the same.
                self.end.send_if_modified(|end| {
                    let goes_on = *end != Lifetime::Now;
                    if goes_on {
                        *end = Lifetime::With(process);
                    }
                    goes_on
                });
                Ok(serde_json::Value::Null)
            }
            Ask::BelongsTo { .. } => Err(Error::gateway("is to belong to a process that is gone")),
        }
    }
}
