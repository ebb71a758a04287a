//! The side of whoever asks.

use std::path::PathBuf;

use fireclaw_host::SocketDir;
use fireclaw_image::Home;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::http::request::Builder;
use hyper::upgrade::Upgraded;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::UnixStream;

use super::frame::UPGRADE;
use super::{MAX_BODY, Refused, SOCKET};

/// Asks the daemon of a home.
#[derive(Debug)]
pub struct Client {
    home: Home,
}

/// A connection that carries [`Frame`](super::Frame)s.
pub type Streams = TokioIo<Upgraded>;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// Nobody listens.
    #[error("no overseer is running in {}", home.display())]
    NoOverseer {
        /// The data directory.
        home: PathBuf,
    },
    /// The overseer refuses.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The conversation broke.
    #[error("the overseer: {0}")]
    Broken(String),
}

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
        let request = Request::builder().method(method).uri(path);
        let answer = read(self.send(request, body).await?).await?;
        serde_json::from_value(answer).map_err(broken)
    }

    /// Asks for streams: those of a command in the VM of an agent or a sandbox, which dropping
    /// them ends, or those of a sandbox's program, which goes on without.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub async fn streams(&self, path: &str, body: &Value) -> Result<Streams, Problem> {
        let request = Request::post(path)
            .header(header::CONNECTION, "upgrade")
            .header(header::UPGRADE, UPGRADE);
        let response = self.send(request, body).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            read(response).await?;
            return Err(broken("it does not speak of streams; is it older?"));
        }
        hyper::upgrade::on(response).await.map(TokioIo::new).map_err(broken)
    }

    async fn send(&self, request: Builder, body: &Value) -> Result<Response<Incoming>, Problem> {
        let none = || Problem::NoOverseer { home: self.home.root().to_owned() };
        let dir = SocketDir::open(self.home.root()).map_err(|_| none())?;
        let stream = UnixStream::connect(dir.name(SOCKET)).await.map_err(|_| none())?;
        let body = match body {
            Value::Null => String::new(),
            body => body.to_string(),
        };
        let request = request
            .header(header::HOST, "fireclaw")
            .body(Full::<Bytes>::from(body))
            .map_err(broken)?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        tokio::spawn(connection.with_upgrades());
        sender.send_request(request).await.map_err(broken)
    }
}

fn broken(error: impl std::fmt::Display) -> Problem {
    Problem::Broken(error.to_string())
}

/// The body of an answer; an error if it is one.
async fn read(response: Response<Incoming>) -> Result<Value, Problem> {
    let failed = !response.status().is_success();
    let body = Limited::new(response.into_body(), MAX_BODY).collect().await.map_err(broken)?;
    let body = body.to_bytes();
    match failed {
        true => Err(serde_json::from_slice::<Refused>(&body).map_err(broken)?.into()),
        false => serde_json::from_slice(&body).map_err(broken),
    }
}
