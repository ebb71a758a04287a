//! Commands under limits: of time, of output, and of what they leave behind.

mod output;
mod table;
mod tree;

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::process::{ChildStdin, Command};

use output::Output;
use tree::Tree;
pub use tree::adopt_orphans;

/// How long the output's end may take when all of the command is dead: a program with
/// other rights, which cannot be killed, may hold it open.
const TIMEOUT: Duration = Duration::from_secs(1);

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    /// Its status; nothing if the time was up.
    pub status: Option<ExitStatus>,
    /// Standard output and standard error as they came, bounded.
    pub output: String,
}

/// Runs a command with `input` as its standard input, or none, and ends all it started
/// when it ends or when the time is up. Dropping the future does so, too.
///
/// # Errors
/// When it cannot be started.
pub async fn run(
    mut command: Command,
    input: Option<Vec<u8>>,
    limit: Duration,
) -> io::Result<Ended> {
    let (reader, writer) = io::pipe()?;
    command
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .kill_on_drop(true);
    let (mut tree, mut child) = Tree::spawn(&mut command)?;
    // It holds the pipe's other end.
    drop(command);
    let stdin = child.stdin.take();
    let mut output = Output::default();
    let status = {
        let transfer = transfer(reader, &mut output, input.unwrap_or_default(), stdin);
        tokio::pin!(transfer);
        let mut transferred = false;
        let status = {
            let waiting = tokio::time::timeout(limit, child.wait());
            tokio::pin!(waiting);
            loop {
                tokio::select! {
                    status = &mut waiting => break status,
                    _ = &mut transfer, if !transferred => transferred = true,
                }
            }
        };
        tree.kill().await;
        if !transferred {
            let _ = tokio::time::timeout(TIMEOUT, transfer).await;
        }
        status
    };
    let status = match status {
        Ok(status) => Some(status?),
        Err(_) => {
            let _ = tokio::time::timeout(TIMEOUT, child.wait()).await;
            None
        }
    };
    Ok(Ended { status, output: output.into_text() })
}

/// Feeds the command and listens to it, until its output ends.
async fn transfer(
    reader: io::PipeReader,
    output: &mut Output,
    input: Vec<u8>,
    stdin: Option<ChildStdin>,
) -> io::Result<()> {
    let mut reader = pipe::Receiver::from_owned_fd(reader.into())?;
    let feed = async {
        if let Some(mut stdin) = stdin {
            // A command need not read what it gets.
            let _ = stdin.write_all(&input).await;
        }
    };
    let listen = async {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            match reader.read(&mut buffer).await? {
                0 => return io::Result::Ok(()),
                n => output.push(&buffer[..n]),
            }
        }
    };
    tokio::join!(feed, listen).1
}
