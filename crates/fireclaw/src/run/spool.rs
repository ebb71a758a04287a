//! One standard input for many clones: each reads all of it, also one that starts late.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use fireclaw_protocol::session::Channel;
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;

use super::relay::BUFFER;
use crate::stdin::Input;

/// How far it is read ahead of the clone that has read most, in bytes.
const AHEAD: u64 = 1024 * 1024;

/// How much of it there may be, in bytes: it takes room on our disk.
const MOST: u64 = 4 * 1024 * 1024 * 1024;

/// What was read so far, in a file without a name.
#[derive(Debug)]
pub struct Spool {
    file: Arc<File>,
    read: watch::Receiver<Read>,
    /// How much the clone that has taken most has.
    taken: watch::Sender<u64>,
}

/// How much is there.
#[derive(Debug, Clone, Default)]
struct Read {
    bytes: u64,
    is_all: bool,
    /// Why there is no more, if that is not its end.
    problem: Option<String>,
}

impl Spool {
    /// Begins to read standard input, into a file in this directory.
    ///
    /// # Errors
    /// Those of the system.
    pub fn start(directory: &Path) -> io::Result<Self> {
        let file = Arc::new(tempfile::tempfile_in(directory)?);
        let (tell, read) = watch::channel(Read::default());
        let (taken, is_taken) = watch::channel(0);
        tokio::spawn(fill(Arc::clone(&file), tell, is_taken));
        Ok(Self { file, read, taken })
    }

    /// Passes all of it to one clone, until either has no more.
    ///
    /// # Errors
    /// Why the rest of it cannot be had.
    pub async fn feed(&self, mut to: Channel) -> Result<(), String> {
        let mut read = self.read.clone();
        let mut buffer = vec![0; BUFFER];
        let mut at = 0;
        loop {
            let there = read.borrow_and_update().clone();
            while at < there.bytes {
                let n = self.file.read_at(&mut buffer, at).map_err(|e| e.to_string())?;
                if n == 0 {
                    return Err("its file is shorter than it was".to_owned());
                }
                if to.write_all(&buffer[..n]).await.is_err() || to.flush().await.is_err() {
                    return Ok(());
                }
                at += n as u64;
                self.taken.send_if_modified(|most| {
                    let is_more = *most < at;
                    *most = at.max(*most);
                    is_more
                });
            }
            if let Some(problem) = there.problem {
                return Err(problem);
            }
            if there.is_all || read.changed().await.is_err() {
                let _ = to.shutdown().await;
                return Ok(());
            }
        }
    }
}

/// Reads until there is no more, or nobody is left who wants it.
async fn fill(file: Arc<File>, tell: watch::Sender<Read>, mut taken: watch::Receiver<u64>) {
    let mut from = Input::open();
    let mut buffer = vec![0; BUFFER];
    let mut bytes = 0;
    loop {
        if taken.wait_for(|taken| bytes < taken.saturating_add(AHEAD)).await.is_err() {
            return;
        }
        let piece = async {
            let n = from.read(&mut buffer).await.map_err(|e| e.to_string())?;
            if bytes + n as u64 > MOST {
                let most = MOST / (1024 * 1024 * 1024);
                return Err(format!("it is longer than {most} GiB, which clones can share"));
            }
            file.write_all_at(&buffer[..n], bytes).map_err(|e| e.to_string())?;
            Ok(n)
        };
        let read = match piece.await {
            Ok(n) => {
                bytes += n as u64;
                Read { bytes, is_all: n == 0, problem: None }
            }
            Err(problem) => Read { bytes, is_all: true, problem: Some(problem) },
        };
        let is_all = read.is_all;
        if tell.send(read).is_err() || is_all {
            return;
        }
    }
}
