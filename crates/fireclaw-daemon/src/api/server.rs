//! The daemon's side.

use std::convert::Infallible;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use fireclaw_protocol::message::ExecRequest;
use fireclaw_vm::SocketDir;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tracing::debug;

use super::{Exec, Executed, MAX_BODY, NewAgent, SOCKET, frame, streams};
use crate::{Actor, Daemon, Error, Result};

/// The type of all bodies.
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The socket, on which programs can wait from now on.
///
/// # Errors
/// [`Error::File`] if it cannot be made.
pub fn listen(daemon: &Daemon) -> Result<Door> {
    let root = daemon.config().home.root().to_owned();
    let path = root.join(SOCKET);
    // The daemon's lock is held: whoever listened there has gone.
    let _ = fs::remove_file(&path);
    let dir = SocketDir::open(&root)?;
    let listener = UnixListener::bind(dir.name(SOCKET)).map_err(Error::file("listen on", &path))?;
    let private = fs::Permissions::from_mode(0o600);
    fs::set_permissions(&path, private).map_err(Error::file("protect", &path))?;
    Ok(Door { listener, _socket: Socket(path) })
}

/// The daemon's socket; gone when dropped.
#[derive(Debug)]
pub struct Door {
    listener: UnixListener,
    _socket: Socket,
}

impl Door {
    /// Serves it until dropped. Must run in a [`tokio::task::LocalSet`].
    pub async fn serve(&self, daemon: &Daemon) -> Infallible {
        loop {
            let Ok((stream, _)) = self.listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            // Who cannot be told is nobody who may connect: the socket is its owner's.
            let Ok(peer) = stream.peer_cred() else { continue };
            let (daemon, who) = (daemon.clone(), Actor::Local { uid: peer.uid() });
            tokio::task::spawn_local(async move {
                let service =
                    service_fn(move |request| answer(daemon.clone(), who.clone(), request));
                let served = hyper::server::conn::http1::Builder::new();
                let serving = served.serve_connection(TokioIo::new(stream), service);
                let _ = serving.with_upgrades().await;
            });
        }
    }
}

/// The socket goes with the daemon.
#[derive(Debug)]
struct Socket(std::path::PathBuf);

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

type Answer = std::result::Result<Response<Full<Bytes>>, Infallible>;

async fn answer(daemon: Daemon, who: Actor, mut request: Request<Incoming>) -> Answer {
    debug!(by = %who, method = %request.method(), path = request.uri().path(), "a request");
    let upgrade = asks_for_streams(&request).then(|| hyper::upgrade::on(&mut request));
    let answered = match upgrade {
        Some(upgrade) => streams(&daemon, &who, request, upgrade).await,
        None => route(&daemon, &who, request).await.map(|value| {
            let mut response = Response::new(Full::from(value.to_string()));
            response.headers_mut().insert(header::CONTENT_TYPE, JSON);
            response
        }),
    };
    Ok(answered.unwrap_or_else(|Refusal(status, message)| {
        let mut response = Response::new(Full::from(json!({ "error": message }).to_string()));
        *response.status_mut() = status;
        response.headers_mut().insert(header::CONTENT_TYPE, JSON);
        response
    }))
}

/// Whether the connection is to carry a command's streams.
fn asks_for_streams(request: &Request<Incoming>) -> bool {
    request.method() == Method::POST
        && request.uri().path().ends_with("/exec")
        && request.headers().get(header::UPGRADE).is_some_and(|to| to == frame::UPGRADE)
}

/// Starts a command whose streams the connection carries from then on.
async fn streams(
    daemon: &Daemon,
    who: &Actor,
    request: Request<Incoming>,
    upgrade: OnUpgrade,
) -> std::result::Result<Response<Full<Bytes>>, Refusal> {
    let path = request.uri().path().to_owned();
    let ["v1", "agents", name, "exec"] = path.trim_matches('/').split('/').collect::<Vec<_>>()[..]
    else {
        return Err(Refusal(StatusCode::NOT_FOUND, format!("there is no {path}")));
    };
    let exec = exec_request(body(request).await?)?;
    let commands = daemon.commands(who, name, &exec).await?;
    tokio::task::spawn_local(async move {
        if let Ok(connection) = upgrade.await {
            streams::serve(&commands, exec, TokioIo::new(connection)).await;
        }
    });
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static(frame::UPGRADE));
    Ok(response)
}

/// What the guest is asked.
fn exec_request(exec: Exec) -> std::result::Result<ExecRequest, Refusal> {
    let bad = |problem: &str| Refusal(StatusCode::BAD_REQUEST, problem.to_owned());
    if exec.argv.is_empty() {
        return Err(bad("argv is empty"));
    }
    let limit = exec.seconds.map(Duration::try_from_secs_f64).transpose();
    let limit = limit.map_err(|_| bad("seconds is no time"))?;
    if limit.is_some_and(|limit| limit.as_millis() == 0) {
        return Err(bad("seconds is too short"));
    }
    let user = exec.user.unwrap_or_else(|| "agent".into());
    fireclaw_protocol::id::check_user(&user).map_err(|e| bad(&format!("user {user}: {e}")))?;
    Ok(ExecRequest {
        argv: exec.argv.into_iter().map(|word| word.into_bytes().into()).collect(),
        user: Some(user),
        timeout_ms: limit.map(|limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)),
        ..ExecRequest::default()
    })
}

/// Why a request is not served.
struct Refusal(StatusCode, String);

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let status = match &error {
            Error::UnknownAgent { .. } | Error::NoQuestion(_) => StatusCode::NOT_FOUND,
            Error::NameTaken { .. } | Error::NotNow { .. } | Error::Unconfirmed { .. } => {
                StatusCode::CONFLICT
            }
            Error::BadName { .. } | Error::Template(_) => StatusCode::BAD_REQUEST,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, error.to_string())
    }
}

fn value(of: &impl Serialize) -> std::result::Result<Value, Refusal> {
    serde_json::to_value(of).map_err(|e| Refusal(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))
}

async fn route(
    daemon: &Daemon,
    who: &Actor,
    request: Request<Incoming>,
) -> std::result::Result<Value, Refusal> {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let parts: Vec<&str> = uri.path().trim_matches('/').split('/').collect();
    match (&method, &parts[..]) {
        (&Method::GET, ["v1", "agents"]) => value(&daemon.list()?),
        (&Method::POST, ["v1", "agents"]) => {
            let new: NewAgent = body(request).await?;
            let (name, model) = (new.name.as_deref(), new.model.as_deref());
            let name = daemon.invoke(who, &new.template, name, model).await?;
            daemon.announce(format!("{name} was started from the command line"));
            Ok(json!({ "name": name }))
        }
        (&Method::DELETE, ["v1", "agents", name]) => {
            daemon.destroy(who, name, "stopped from the command line").await?;
            daemon.announce(format!("{name} was stopped from the command line"));
            Ok(Value::Null)
        }
        (&Method::GET, ["v1", "agents", name, "logs"]) => {
            let query = uri.query().unwrap_or_default();
            let lines = query.strip_prefix("lines=").and_then(|n| n.parse().ok()).unwrap_or(100);
            value(&daemon.logs(name, lines).await?)
        }
        (&Method::POST, ["v1", "agents", name, "exec"]) => {
            let mut request = exec_request(body(request).await?)?;
            let limit = request.timeout_ms.get_or_insert(60_000);
            let limit = Duration::from_millis(*limit);
            let (status, output) = daemon.exec(who, name, request, limit).await?;
            value(&Executed { status, output })
        }
        (&Method::GET, ["v1", "audit"]) => value(&daemon.audited(1000)?),
        (&Method::GET, ["v1", "models"]) => value(&daemon.models().await?),
        _ => Err(Refusal(StatusCode::NOT_FOUND, format!("there is no {method} {}", uri.path()))),
    }
}

async fn body<T: serde::de::DeserializeOwned>(
    request: Request<Incoming>,
) -> std::result::Result<T, Refusal> {
    let bad = |e: String| Refusal(StatusCode::BAD_REQUEST, e);
    let body = Limited::new(request.into_body(), MAX_BODY).collect().await;
    let bytes = body.map_err(|e| bad(e.to_string()))?.to_bytes();
    serde_json::from_slice(&bytes).map_err(|e| bad(e.to_string()))
}
