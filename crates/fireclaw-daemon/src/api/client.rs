//! The side of whoever asks.

use fireclaw_image::Home;
use fireclaw_vm::SocketDir;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::UnixStream;

use super::{MAX_BODY, SOCKET};

/// Asks the daemon of a home.
#[derive(Debug)]
pub struct Client {
    home: Home,
}

/// Why there is no answer: words for a person.
type Problem = String;

impl Client {
    /// A client that connects when it is asked.
    pub fn new(home: Home) -> Self {
        Self { home }
    }

    /// Sends a request; the answer's body.
    ///
    /// # Errors
    /// Words for a person: no daemon, or what the daemon said.
    pub async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &Value,
    ) -> Result<T, Problem> {
        let none = |_| {
            format!(
                "no overseer runs in {}; start one: fireclaw overseer",
                self.home.root().display()
            )
        };
        let dir = SocketDir::open(self.home.root()).map_err(|e| none(e.to_string()))?;
        let stream =
            UnixStream::connect(dir.name(SOCKET)).await.map_err(|e| none(e.to_string()))?;
        let talk = async {
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            let body = match body {
                Value::Null => String::new(),
                body => body.to_string(),
            };
            let request = Request::builder()
                .method(method)
                .uri(path)
                .header(hyper::header::HOST, "fireclaw")
                .body(Full::<Bytes>::from(body))?;
            let response = sender.send_request(request).await?;
            let failed = !response.status().is_success();
            let bytes = Limited::new(response.into_body(), MAX_BODY).collect().await?.to_bytes();
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>((failed, bytes))
        };
        let (failed, bytes) = talk.await.map_err(|e| format!("the overseer: {e}"))?;
        let answer: Value = serde_json::from_slice(&bytes).map_err(|e| e.to_string())?;
        if failed {
            return Err(answer["error"].as_str().unwrap_or("it refuses").to_owned());
        }
        serde_json::from_value(answer).map_err(|e| e.to_string())
    }
}
