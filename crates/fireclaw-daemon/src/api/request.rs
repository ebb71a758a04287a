//! What requests have in common.

use std::time::Duration;

use fireclaw_protocol::message::{self, EnvVar, ExecRequest, TerminalSize};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request};
use serde::Serialize;
use serde_json::Value;

use super::{Exec, Kind, MAX_BODY, Refused};

/// What the guest is asked.
pub fn exec_request(exec: Exec) -> std::result::Result<ExecRequest, Refused> {
    let bad = |problem: &str| Refused::new(Kind::BadRequest, problem);
    if exec.argv.is_empty() {
        return Err(bad("argv is empty"));
    }
    let limit = exec.seconds.map(Duration::try_from_secs_f64).transpose();
    let limit = limit.map_err(|_| bad("seconds is no time"))?;
    if limit.is_some_and(|limit| limit.as_millis() == 0) {
        return Err(bad("seconds is too short"));
    }
    if let Some(user) = &exec.user {
        fireclaw_protocol::id::check_user(user).map_err(|e| bad(&format!("user {user}: {e}")))?;
    }
    Ok(ExecRequest {
        argv: exec.argv.into_iter().map(|word| word.into_bytes().into()).collect(),
        user: exec.user,
        env: exec.env.into_iter().map(variable).collect(),
        workdir: exec.workdir.map(|path| path.into_bytes().into()),
        timeout_ms: limit.map(|limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)),
        terminal: exec.terminal.map(|terminal| message::Terminal {
            kind: terminal.kind.into_bytes().into(),
            size: TerminalSize { rows: terminal.rows, columns: terminal.columns },
        }),
        ..ExecRequest::default()
    })
}

fn variable((name, value): (String, String)) -> EnvVar {
    EnvVar { name: name.into_bytes().into(), value: value.into_bytes().into() }
}

pub fn value(of: &impl Serialize) -> std::result::Result<Value, Refused> {
    serde_json::to_value(of).map_err(|e| Refused::new(Kind::Internal, e))
}

/// What the guest is asked whose answer comes in one piece, and how long it may take.
pub fn bounded(exec: Exec) -> std::result::Result<(ExecRequest, Duration), Refused> {
    let mut request = exec_request(exec)?;
    if request.terminal.is_some() {
        let problem = "a terminal needs a connection that is upgraded";
        return Err(Refused::new(Kind::BadRequest, problem));
    }
    let limit = Duration::from_millis(*request.timeout_ms.get_or_insert(60_000));
    Ok((request, limit))
}

pub fn does_not_take(method: &Method, path: &str) -> Refused {
    Refused::new(Kind::MethodNotAllowed, format!("{path} does not take {method}"))
}

pub fn no_such(path: &str) -> Refused {
    Refused::new(Kind::NotFound, format!("there is no {path}"))
}

pub async fn body<T: serde::de::DeserializeOwned>(
    request: Request<Incoming>,
) -> std::result::Result<T, Refused> {
    let body = Limited::new(request.into_body(), MAX_BODY).collect().await;
    let bytes = body.map_err(|e| {
        let kind = if e.is::<LengthLimitError>() { Kind::TooLarge } else { Kind::BadRequest };
        Refused::new(kind, e)
    })?;
    serde_json::from_slice(&bytes.to_bytes()).map_err(|e| Refused::new(Kind::BadRequest, e))
}
