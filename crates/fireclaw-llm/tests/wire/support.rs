//! An HTTP server in the test that says what it is told to.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What was asked of the server.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Method and path, such as `GET /v1/models`.
    pub what: String,
    /// The `authorization` header.
    pub key: Option<String>,
    /// The body, or null.
    pub body: Value,
}

/// What the server answers.
pub struct Answer {
    status: u16,
    body: String,
    header: &'static str,
    end: End,
}

/// What follows the body.
pub enum End {
    /// A proper end.
    Proper,
    /// The connection is cut.
    Cut,
    /// Nothing, for ever.
    Silence,
    /// This again and again, for ever.
    Flood(&'static str),
}

impl Answer {
    pub fn ok(body: impl Into<String>) -> Self {
        Self::status(200, body)
    }

    pub fn status(status: u16, body: impl Into<String>) -> Self {
        Self { status, body: body.into(), header: "x-nothing: 1", end: End::Proper }
    }

    /// With this line in the head.
    pub fn header(self, header: &'static str) -> Self {
        Self { header, ..self }
    }

    pub fn then(self, end: End) -> Self {
        Self { end, ..self }
    }
}

/// The server. It ends when dropped.
pub struct Serve {
    pub url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    open: watch::Receiver<usize>,
    _tasks: JoinSet<()>,
}

impl Serve {
    pub async fn new(answer: impl Fn(&str, &Value) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let (count, open) = watch::channel(0);
        let mut tasks = JoinSet::new();
        let (keep, answer) = (asked.clone(), Arc::new(answer));
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                count.send_modify(|open| *open += 1);
                let (keep, answer, count) = (keep.clone(), answer.clone(), count.clone());
                connections.spawn(async move {
                    let _ = serve(stream, &keep, answer.as_ref()).await;
                    count.send_modify(|open| *open -= 1);
                });
            }
        });
        Self { url, asked, open, _tasks: tasks }
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// Waits until nobody is connected.
    pub async fn is_idle(&mut self) {
        let idle = self.open.wait_for(|open| *open == 0);
        tokio::time::timeout(Duration::from_secs(60), idle).await.unwrap().unwrap();
    }
}

async fn serve(
    stream: TcpStream,
    keep: &Mutex<Vec<Asked>>,
    answer: &(impl Fn(&str, &Value) -> Answer + ?Sized),
) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let what = line.split(" HTTP").next().unwrap().to_owned();
    let (mut length, mut key) = (0, None);
    loop {
        line.clear();
        stream.read_line(&mut line).await?;
        let Some((name, value)) = line.trim().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().unwrap(),
            "authorization" => key = Some(value.to_owned()),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    let body = serde_json::from_slice(&body).unwrap_or_default();
    let Answer { status, body: said, header, end } = answer(&what, &body);
    keep.lock().unwrap().push(Asked { what, key, body });
    let stream = stream.get_mut();
    let head = format!("HTTP/1.1 {status} Whatever\r\n{header}\r\nconnection: close\r\n");
    match end {
        End::Proper => {
            let length = said.len();
            let all = format!("{head}content-length: {length}\r\n\r\n{said}");
            stream.write_all(all.as_bytes()).await?;
        }
        End::Cut => {
            let length = said.len() + 1;
            let all = format!("{head}content-length: {length}\r\n\r\n{said}");
            stream.write_all(all.as_bytes()).await?;
        }
        End::Silence => {
            stream.write_all(format!("{head}\r\n{said}").as_bytes()).await?;
            // Until the other side is gone.
            stream.read_u8().await?;
        }
        End::Flood(more) => {
            stream.write_all(format!("{head}\r\n{said}").as_bytes()).await?;
            let more = more.repeat(64 * 1024 / more.len().max(1));
            loop {
                stream.write_all(more.as_bytes()).await?;
            }
        }
    }
    Ok(())
}

/// The URL of a port where nothing listens.
pub async fn nowhere() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}
