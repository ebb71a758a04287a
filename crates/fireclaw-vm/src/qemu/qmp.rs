//! QEMU's control protocol (QMP, docs/interop/qmp-spec in QEMU's sources).

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;

use crate::{Error, Result};

/// The longest line accepted from QEMU, in bytes.
const MAX_LINE: u64 = 256 * 1024;

/// How long QEMU may take for an answer. Its main loop can be busy with the
/// guest's first instructions on a loaded VM.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A connection in command mode.
///
/// A task reads all that QEMU says, so that events, some of which a guest can
/// cause, never pile up in QEMU; only answers are kept, one at a time.
#[derive(Debug)]
pub struct Qmp {
    answers: mpsc::Receiver<Result<Value>>,
    to: OwnedWriteHalf,
}

impl Qmp {
    /// Takes the greeting and negotiates capabilities.
    pub async fn connect(socket: UnixStream) -> Result<Self> {
        let (from, to) = socket.into_split();
        let (give, answers) = mpsc::channel(1);
        tokio::spawn(listen(BufReader::new(from), give));
        let mut qmp = Self { answers, to };
        if qmp.answer("greeting").await?.get("QMP").is_none() {
            return Err(refused("greeting", "not a QMP server"));
        }
        qmp.execute("qmp_capabilities", Value::Null).await?;
        Ok(qmp)
    }

    /// Hands QEMU a descriptor under `name` (QMP `getfd`, with SCM_RIGHTS).
    pub async fn pass_fd(&mut self, name: &str, fd: OwnedFd) -> Result<()> {
        let request = json!({ "execute": "getfd", "arguments": { "fdname": name } });
        let line = format!("{request}\n");
        let socket = self.to.as_ref();
        let send = || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut rights = SendAncillaryBuffer::new(&mut space);
            let fds = [fd.as_fd()];
            rights.push(SendAncillaryMessage::ScmRights(&fds));
            let bytes = [IoSlice::new(line.as_bytes())];
            Ok(sendmsg(socket, &bytes, &mut rights, SendFlags::NOSIGNAL)?)
        };
        let failed = Error::system("passing a file to QEMU");
        // Nothing else is under way, so the short line goes out in one piece.
        match socket.async_io(Interest::WRITABLE, send).await {
            Ok(sent) if sent == line.len() => self.taken("getfd").await.map(drop),
            Ok(_) => Err(refused("getfd", "the socket is full")),
            Err(e) => Err(failed(e)),
        }
    }

    /// Runs one command and returns its `return` value.
    pub async fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let mut request = json!({ "execute": command });
        if !arguments.is_null() {
            request["arguments"] = arguments;
        }
        let mut bytes = request.to_string().into_bytes();
        bytes.push(b'\n');
        self.to.write_all(&bytes).await.map_err(Error::system("writing to QEMU"))?;
        self.taken(command).await
    }

    async fn taken(&mut self, command: &str) -> Result<Value> {
        let mut answer = self.answer(command).await?;
        match answer.get("error") {
            Some(error) => {
                Err(refused(command, error["desc"].as_str().unwrap_or("no reason given")))
            }
            None => Ok(answer["return"].take()),
        }
    }

    async fn answer(&mut self, doing: &str) -> Result<Value> {
        match tokio::time::timeout(TIMEOUT, self.answers.recv()).await {
            Err(_) => Err(refused(doing, "no answer in time")),
            Ok(None) => Err(refused(doing, "the connection was closed")),
            Ok(Some(answer)) => answer,
        }
    }
}

/// Reads lines until the connection closes and passes answers on.
async fn listen(mut from: BufReader<OwnedReadHalf>, give: mpsc::Sender<Result<Value>>) {
    loop {
        let mut line = Vec::new();
        let answer = match (&mut from).take(MAX_LINE).read_until(b'\n', &mut line).await {
            Ok(0) => return,
            Ok(_) => serde_json::from_slice::<Value>(&line)
                .map_err(|e| refused("a message", &e.to_string())),
            Err(e) => Err(Error::system("reading from QEMU")(e)),
        };
        let failed = answer.is_err();
        let is_event = answer.as_ref().is_ok_and(|message| message.get("event").is_some());
        if !is_event && give.send(answer).await.is_err() || failed {
            return;
        }
    }
}

fn refused(request: &str, message: &str) -> Error {
    Error::Refused {
        vmm: "QEMU",
        request: request.to_owned(),
        message: fireclaw_host::escape(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A QEMU that says what it is told to: for faults only.
    async fn against(script: &'static [&'static str]) -> Result<Value> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        tokio::spawn(async move {
            for line in script {
                if theirs.write_all(line.as_bytes()).await.is_err() {
                    return;
                }
            }
            // Reads until we hang up, so that no write of ours fails.
            let _ = tokio::io::copy(&mut theirs, &mut tokio::io::sink()).await;
        });
        let mut qmp = Qmp::connect(ours).await?;
        qmp.execute("query-status", Value::Null).await
    }

    const HELLO: &str = "{\"QMP\":{}}\n{\"return\":{}}\n";

    #[tokio::test]
    async fn events_between_answers_are_skipped() {
        let got =
            against(&[HELLO, "{\"event\":\"RESUME\"}\n{\"return\":{\"status\":\"running\"}}\n"]);
        assert_eq!(got.await.unwrap()["status"], "running");
    }

    #[tokio::test]
    async fn a_refusal_carries_its_reason() {
        let got =
            against(&[HELLO, "{\"error\":{\"class\":\"x\",\"desc\":\"no \\u001b[2J\"}}\n"]).await;
        let text = got.unwrap_err().to_string();
        assert!(text.contains("no ") && !text.contains('\x1b'), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn silence_and_noise_end_in_errors() {
        assert!(against(&[]).await.is_err());
        assert!(against(&["SSH-2.0\n"]).await.is_err());
        assert!(against(&[HELLO, "{"]).await.is_err());
    }
}
