//! The client of Firecracker's API: HTTP over a Unix socket.
//!
//! The VMM is not trusted more than the guest that it runs: an answer has a
//! size and a time that it may take, and its words are escaped.

use std::error::Error as _;
use std::fmt::Display;
use std::io;

use fireclaw_host::{PathError, SocketDir, escape};
use http_body_util::{BodyExt, Full, Limited};
use hyper::Response;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::types::Request;
use crate::{Error, Result};

/// The name of the API's socket in the VMM's directory.
pub const SOCKET: &str = "api.sock";

/// The most bytes of an answer's head, and of its body, that are read.
const MAX_ANSWER: usize = 64 * 1024;

/// A connection to a VMM's API. After an error other than
/// [`Error::Refused`] it is of no more use.
#[derive(Debug)]
pub struct Api {
    sender: SendRequest<Full<Bytes>>,
    // Drives the connection; a set ends its tasks when dropped.
    _connection: JoinSet<()>,
}

/// What Firecracker answers when it refuses (`Error` in its description).
#[derive(Deserialize)]
struct Fault {
    fault_message: String,
}

impl Api {
    /// Connects to [`SOCKET`] in the VMM's directory.
    pub async fn connect(home: &SocketDir) -> Result<Self> {
        let stream = UnixStream::connect(home.name(SOCKET))
            .await
            .map_err(PathError::at("connect to", home.path().join(SOCKET)))?;
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(MAX_ANSWER)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|e| failed("connecting", reason(&e)))?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            // Whatever goes wrong is told to the request that it hits.
            let _ = connection.await;
        });
        Ok(Self { sender, _connection: driver })
    }

    /// Sends one request and waits for its answer.
    pub async fn send(&mut self, request: &Request) -> Result<()> {
        let label = format!("{} {}", request.method(), request.path());
        let limit = request.timeout();
        match timeout(limit, self.exchange(request, &label)).await {
            Ok(result) => result,
            Err(_) => Err(failed(&label, format!("no answer within {} s", limit.as_secs()))),
        }
    }

    async fn exchange(&mut self, request: &Request, label: &str) -> Result<()> {
        let body = serde_json::to_vec(request).map_err(|e| failed(label, e))?;
        let message = hyper::Request::builder()
            .method(request.method())
            .uri(request.path())
            .header("Host", "localhost")
            .header("Accept", "application/json")
            .header("Content-Type", "application/json")
            .body(Full::from(body))
            .map_err(|e| failed(label, e))?;
        self.sender.ready().await.map_err(|e| failed(label, reason(&e)))?;
        let answer =
            self.sender.send_request(message).await.map_err(|e| failed(label, reason(&e)))?;
        read_answer(answer, label).await
    }
}

async fn read_answer(answer: Response<Incoming>, label: &str) -> Result<()> {
    let status = answer.status();
    // Read even after success: the connection carries the next request.
    let body = Limited::new(answer.into_body(), MAX_ANSWER)
        .collect()
        .await
        .map_err(|e| failed(label, format!("the answer's body: {e}")))?
        .to_bytes();
    if status.is_success() {
        return Ok(());
    }
    let words = match serde_json::from_slice(&body) {
        Ok(Fault { fault_message }) => fault_message,
        Err(_) => format!("{status} {}", String::from_utf8_lossy(&body)),
    };
    Err(Error::Refused {
        vmm: "Firecracker",
        request: label.to_owned(),
        message: escape(words.trim()),
    })
}

fn failed(label: &str, reason: impl Display) -> Error {
    Error::System {
        what: "Firecracker's API",
        cause: io::Error::other(format!("{label}: {reason}")),
    }
}

/// hyper's own words leave out the cause.
fn reason(error: &hyper::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
