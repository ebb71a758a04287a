//! The daemon's side.

use std::convert::Infallible;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use fireclaw_host::{PathError, SocketDir};
use fireclaw_image::Home;
use fireclaw_protocol::message::ExecRequest;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::service::service_fn;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tracing::debug;

use super::request::{body, bounded, does_not_take, exec_request, no_such, value};
use super::{About, Executed, Kind, NewAgent, Refused, SOCKET, attach, frame, sandboxes, streams};
use crate::{Actor, Event, Handle, Result};

/// The type of all bodies.
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The socket, on which programs can wait from now on.
///
/// # Errors
/// [`Error::File`] if it cannot be made.
pub fn listen(home: &Home) -> Result<Door> {
    let root = home.root().to_owned();
    let path = root.join(SOCKET);
    // The daemon's lock is held: whoever listened there has gone.
    let _ = fs::remove_file(&path);
    let dir = SocketDir::open(&root)?;
    let listener =
        UnixListener::bind(dir.name(SOCKET)).map_err(PathError::at("listen on", &path))?;
    let private = fs::Permissions::from_mode(0o600);
    fs::set_permissions(&path, private).map_err(PathError::at("protect", &path))?;
    Ok(Door { listener, _socket: Socket(path) })
}

/// The daemon's socket; gone when dropped.
#[derive(Debug)]
pub struct Door {
    listener: UnixListener,
    _socket: Socket,
}

impl Door {
    /// Serves it until dropped.
    pub async fn serve(&self, daemon: &Handle) -> Infallible {
        loop {
            let Ok((stream, _)) = self.listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            // Who cannot be told is nobody who may connect: the socket is its owner's.
            let Ok(peer) = stream.peer_cred() else { continue };
            let (daemon, who) = (daemon.clone(), Actor::Local { uid: peer.uid() });
            tokio::spawn(async move {
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

async fn answer(daemon: Handle, who: Actor, mut request: Request<Incoming>) -> Answer {
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
    Ok(answered.unwrap_or_else(|refused| {
        let body = serde_json::to_vec(&refused).unwrap_or_default();
        let mut response = Response::new(Full::from(body));
        *response.status_mut() = status(refused.kind);
        response.headers_mut().insert(header::CONTENT_TYPE, JSON);
        response
    }))
}

/// Whether the connection is to carry a command's streams.
fn asks_for_streams(request: &Request<Incoming>) -> bool {
    request.method() == Method::POST
        && ["/exec", "/attach"].iter().any(|end| request.uri().path().ends_with(end))
        && request.headers().get(header::UPGRADE).is_some_and(|to| to == frame::UPGRADE)
}

/// Starts a command whose streams the connection carries from then on.
async fn streams(
    daemon: &Handle,
    who: &Actor,
    request: Request<Incoming>,
    upgrade: OnUpgrade,
) -> std::result::Result<Response<Full<Bytes>>, Refused> {
    let path = request.uri().path().to_owned();
    if path.starts_with("/v1/sandboxes/") {
        daemon.sandboxes_known().await?;
    }
    match path.trim_matches('/').split('/').collect::<Vec<_>>()[..] {
        ["v1", "agents", name, "exec"] => {
            let exec = of_agent(exec_request(body(request).await?)?);
            let commands = daemon.commands(who, name, &exec).await?;
            carry(upgrade, async move |connection| {
                streams::serve(&commands, exec, connection).await;
            });
        }
        ["v1", "sandboxes", name, "exec"] => {
            let exec = exec_request(body(request).await?)?;
            let (commands, exec) = daemon.sandbox_commands(who, name, exec).await?;
            carry(upgrade, async move |connection| {
                streams::serve(&commands, exec, connection).await;
            });
        }
        ["v1", "sandboxes", name, "attach"] => {
            let start = request.uri().query() == Some("start=true");
            let session = daemon.attach_sandbox(who, name, start).await?;
            carry(upgrade, async move |connection| attach::serve(session, connection).await);
        }
        _ => return Err(no_such(&path)),
    }
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static(frame::UPGRADE));
    Ok(response)
}

/// Carries streams over a connection once it is upgraded.
fn carry<W: Future<Output = ()> + Send + 'static>(
    upgrade: OnUpgrade,
    work: impl FnOnce(TokioIo<Upgraded>) -> W + Send + 'static,
) {
    tokio::spawn(async move {
        if let Ok(connection) = upgrade.await {
            work(TokioIo::new(connection)).await;
        }
    });
}

/// A command in the VM of an agent, which is the agent's unless it says more.
fn of_agent(mut request: ExecRequest) -> ExecRequest {
    request.user.get_or_insert_with(|| "agent".into());
    request
}

/// The status of an answer (RFC 9110, 15).
fn status(kind: Kind) -> StatusCode {
    match kind {
        Kind::BadRequest | Kind::Template => StatusCode::BAD_REQUEST,
        Kind::NotFound | Kind::UnknownAgent | Kind::UnknownSandbox | Kind::UnknownImage => {
            StatusCode::NOT_FOUND
        }
        Kind::Command => StatusCode::UNPROCESSABLE_ENTITY,
        Kind::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        Kind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Kind::NameTaken | Kind::NotNow | Kind::Running | Kind::Conflict => StatusCode::CONFLICT,
        Kind::ModelServer => StatusCode::BAD_GATEWAY,
        Kind::Ending => StatusCode::SERVICE_UNAVAILABLE,
        Kind::Internal | Kind::Other => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

async fn route(
    daemon: &Handle,
    who: &Actor,
    request: Request<Incoming>,
) -> std::result::Result<Value, Refused> {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let parts: Vec<&str> = uri.path().trim_matches('/').split('/').collect();
    match (&method, &parts[..]) {
        (&Method::GET, ["v1", "agents"]) => value(&daemon.list().await?),
        (&Method::POST, ["v1", "agents"]) => {
            let new: NewAgent = body(request).await?;
            let (name, model) = (new.name.as_deref(), new.model.as_deref());
            let name = daemon.invoke(who, &new.template, name, model).await?;
            daemon.tell(Event::Started { agent: name.clone(), by: who.clone() });
            Ok(json!({ "name": name }))
        }
        (&Method::DELETE, ["v1", "agents", name]) => {
            daemon.destroy(who, name, "stopped from the command line").await?;
            daemon.tell(Event::Stopped { agent: (*name).to_owned(), by: who.clone() });
            Ok(Value::Null)
        }
        (&Method::DELETE, ["v1", "agents", name, "workspace"]) => {
            daemon.remove(who, name).await?;
            Ok(Value::Null)
        }
        (&Method::GET, ["v1", "agents", name, "logs"]) => {
            let query = uri.query().unwrap_or_default();
            let lines = query.strip_prefix("lines=").and_then(|n| n.parse().ok()).unwrap_or(100);
            value(&daemon.logs(name, lines).await?)
        }
        (&Method::POST, ["v1", "agents", name, what @ ("pause" | "resume")]) => {
            daemon.pause(who, name, *what == "pause").await?;
            Ok(Value::Null)
        }
        (&Method::POST, ["v1", "agents", name, "exec"]) => {
            let (request, limit) = bounded(body(request).await?)?;
            let request = of_agent(request);
            let (status, output) = daemon.exec(who, name, request, limit).await?;
            value(&Executed { status, output })
        }
        (_, ["v1", "sandboxes", rest @ ..]) => sandboxes::route(daemon, who, rest, request).await,
        (&Method::GET, ["v1", "daemon"]) => value(&About {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").into(),
            overseer: daemon.has_chat().await?,
        }),
        (&Method::GET, ["v1", "audit"]) => value(&daemon.audited(1000).await?),
        (&Method::GET, ["v1", "models"]) => value(&daemon.models().await?),
        (_, ["v1", "agents" | "audit" | "daemon" | "models"] | ["v1", "agents", _])
        | (_, ["v1", "agents", _, "workspace" | "logs" | "exec" | "pause" | "resume"]) => {
            Err(does_not_take(&method, uri.path()))
        }
        _ => Err(no_such(uri.path())),
    }
}
