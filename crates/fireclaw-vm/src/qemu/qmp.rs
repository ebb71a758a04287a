//! QEMU's control protocol (QMP, docs/interop/qmp-spec in QEMU's sources).

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;

use crate::backend::Control;
use crate::{Error, Result};

/// The longest line accepted from QEMU, in bytes.
const MAX_LINE: u64 = 256 * 1024;

/// How long QEMU may take for an answer. Its main loop can be busy with the
/// guest's first instructions on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);

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

    /// Runs one command and returns its `return` value.
    pub async fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let mut request = json!({ "execute": command });
        if !arguments.is_null() {
            request["arguments"] = arguments;
        }
        let mut bytes = request.to_string().into_bytes();
        bytes.push(b'\n');
        self.to.write_all(&bytes).await.map_err(Error::system("writing to QEMU"))?;
        let mut answer = self.answer(command).await?;
        match answer.get("error") {
            Some(error) => {
                Err(refused(command, error["desc"].as_str().unwrap_or("no reason given")))
            }
            None => Ok(answer["return"].take()),
        }
    }

    async fn answer(&mut self, doing: &str) -> Result<Value> {
        match tokio::time::timeout(PATIENCE, self.answers.recv()).await {
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

impl Control for Qmp {
    fn status(&mut self) -> BoxFuture<'_, Result<String>> {
        async {
            let status = self.execute("query-status", Value::Null).await?;
            Ok(crate::console::escape(status["status"].as_str().unwrap_or("unknown")))
        }
        .boxed()
    }
}

fn refused(request: &str, message: &str) -> Error {
    Error::Refused {
        vmm: "QEMU",
        request: request.to_owned(),
        message: crate::console::escape(message),
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
