//! Commands in a sandbox that the daemon itself runs.

use std::time::Duration;

use fireclaw_protocol::message::{ExecEvent, ExecRequest, ExitStatus};
use fireclaw_vm::Commands;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{Error, Result};

/// What stands at the end of a command's output if the guest ran out of memory.
const OUT_OF_MEMORY: &str = "\n[the guest ran out of memory, and its kernel killed a process]\n";

/// Runs a command in the guest; its exit status and the end of what it wrote.
pub async fn run(
    commands: &Commands,
    request: ExecRequest,
    limit: Duration,
) -> Result<(Option<u8>, String)> {
    run_with(commands, request, &[], limit).await
}

/// The same with something on its standard input.
pub(super) async fn run_with(
    commands: &Commands,
    mut request: ExecRequest,
    input: &[u8],
    limit: Duration,
) -> Result<(Option<u8>, String)> {
    const MOST: u64 = 64 * 1024;
    request.timeout_ms = u64::try_from(limit.as_millis()).ok();
    let talk = async {
        let mut exec = commands.exec(request).await?;
        let (mut out, mut err) = (String::new(), String::new());
        let feed = async {
            // A command need not read what it gets.
            let _ = exec.stdin.write_all(input).await;
            let _ = exec.stdin.shutdown().await;
        };
        let (a, b, ()) =
            tokio::join!(read(&mut exec.stdout, MOST), read(&mut exec.stderr, MOST), feed);
        out.push_str(&a);
        err.push_str(&b);
        loop {
            let event = exec.events.next().await?;
            if event.is_out_of_memory() {
                err.push_str(OUT_OF_MEMORY);
            }
            let code = match event {
                ExecEvent::Started => continue,
                ExecEvent::Exited(ExitStatus::Code(code), _) => Some(code),
                ExecEvent::Exited(..) => None,
                ExecEvent::Failed { cause, message } => {
                    err.push_str(&message);
                    Some(cause.status())
                }
            };
            return Ok::<_, fireclaw_protocol::Error>((code, out + &err));
        }
    };
    match tokio::time::timeout(limit + Duration::from_secs(10), talk).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(e)) => Err(Error::Workspace(e.to_string())),
        Err(_) => Err(Error::Workspace("the guest does not answer".into())),
    }
}

/// What comes over a channel, up to a bound; the rest is read and dropped.
async fn read(from: &mut (impl tokio::io::AsyncRead + Unpin), most: u64) -> String {
    let mut kept = Vec::new();
    let _ = from.take(most).read_to_end(&mut kept).await;
    let _ = tokio::io::copy(from, &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&kept).into_owned()
}
