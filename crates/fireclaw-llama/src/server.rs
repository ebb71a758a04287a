//! llama-server as a child process that never outlives its owner.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use fireclaw_host::{Child, PathError, Secret, Tail};
use fireclaw_llm::{
    ChatModel, ChatRequest, Error as ModelError, Message, OpenAi, ServerConfig, ServerKind,
    http_client, http_reason,
};
use tokio::time::{sleep, timeout};

use crate::processor::Processor;
use crate::{Error, Result};

/// How long a model may take to load and to answer its first question.
const START: Duration = Duration::from_secs(180);

/// How long one whose connection broke may take to be seen dead.
const DYING: Duration = Duration::from_secs(5);

/// How long it may take to say whether it has loaded.
const ANSWER: Duration = Duration::from_secs(10);

/// How often it is asked whether it has loaded.
const POLL: Duration = Duration::from_millis(50);

/// How many lines of its log are shown.
const LOG_LINES: usize = 20;

/// The MiB of earlier conversations that the server keeps, so that agents who take turns
/// are not read from the start each time. Its own default is 8 GiB.
const PROMPT_CACHE_MIB: u32 = 256;

/// What a line of the log has before the server's address.
const LISTENING: &str = "listening on ";

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// llama-server.
    pub program: PathBuf,
    /// The model's file.
    pub model: PathBuf,
    /// The names that requests may use for the model.
    pub names: Vec<String>,
    /// The length of the context in tokens.
    pub context_tokens: u32,
    /// Threads that compute; all processors but one if absent.
    pub threads: Option<usize>,
}

/// A running llama-server on a port of the loopback, which asks for a key that only we
/// know. Dropping it kills it.
pub struct LocalServer {
    options: Options,
    child: Child,
    url: String,
    key: Secret,
    log: Tail,
}

impl LocalServer {
    /// Starts it and waits until it has loaded its model.
    ///
    /// Call it on a thread that lives as long as the server should: the kernel kills it
    /// when the *thread* that forked ends (`prctl(2)`, `PR_SET_PDEATHSIG`).
    ///
    /// # Errors
    /// [`Error::ServerDied`] with the end of its log; [`Error::File`] if it cannot be run.
    pub async fn start(options: &Options) -> Result<Self> {
        let key: String = std::iter::repeat_with(fastrand::alphanumeric).take(32).collect();
        // Port 0: the system chooses a free one, and the log tells which.
        Self::launch(options.clone(), Secret::new(key), 0).await
    }

    /// Starts it again, with the same address and key, after it has died.
    ///
    /// # Errors
    /// Those of [`LocalServer::start`].
    pub async fn restart(&mut self) -> Result<()> {
        let port = self.url.rsplit(':').next().and_then(|port| port.parse().ok());
        let port = port.unwrap_or_default();
        *self = Self::launch(self.options.clone(), self.key.clone(), port).await?;
        Ok(())
    }

    async fn launch(options: Options, key: Secret, port: u16) -> Result<Self> {
        let mut child = spawn(&options, &key, port).await?;
        let log = child.stderr().map(Tail::follow).unwrap_or_default();
        let mut server = Self { options, child, url: String::new(), key, log };
        match timeout(START, server.ready()).await {
            Ok(Ok(())) => Ok(server),
            Ok(Err(error)) => Err(error),
            Err(_) => {
                let status = format!("it was not ready within {} s", START.as_secs());
                Err(Error::ServerDied { status, log: server.log() })
            }
        }
    }

    /// Where it is and how to talk with it.
    pub fn config(&self) -> ServerConfig {
        let (url, key) = (self.url.clone(), Some(self.key.clone()));
        ServerConfig { kind: ServerKind::OpenAi, url, key, ca_file: None }
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.pid()
    }

    /// The last lines of its log, escaped.
    pub fn log(&self) -> String {
        self.log.last_lines(LOG_LINES)
    }

    /// Waits for it to end by itself, and says how it did. It may be dropped and called
    /// again.
    pub async fn died(&mut self) -> Error {
        let status = self.child.ended().await.unwrap_or_else(|error| error.to_string());
        self.log.drain().await;
        let status = if status.ends_with("signal 4") {
            format!("{status}: {}", Processor::of_this_machine().illegal_instruction())
        } else {
            status
        };
        Error::ServerDied { status, log: self.log() }
    }

    async fn ready(&mut self) -> Result<()> {
        let log = self.log.clone();
        let told = log.find(|line| Some(line.split_once(LISTENING)?.1.trim().to_owned()));
        let url = tokio::select! {
            Some(url) = told => url,
            died = self.died() => return Err(died),
        };
        let failed = |e: reqwest::Error| ModelError::Client { reason: http_reason(&e) };
        let http = http_client().timeout(ANSWER).build().map_err(failed)?;
        let health = format!("{url}/health");
        self.url = url;
        loop {
            let healthy = async { http.get(&health).send().await?.error_for_status() };
            tokio::select! {
                answer = healthy => match answer {
                    Ok(_) => break,
                    Err(_) => sleep(POLL).await,
                },
                died = self.died() => return Err(died),
            }
        }
        self.answers().await
    }

    /// Asks one question: a program for another processor loads, and dies computing.
    async fn answers(&mut self) -> Result<()> {
        let model = OpenAi::new(&self.url, Some(self.key.clone()))?;
        let request = ChatRequest {
            model: self.options.names.first().cloned().unwrap_or_default(),
            messages: vec![Message::user("Say yes.")],
            max_tokens: Some(2),
            temperature: Some(0.0),
            ..ChatRequest::default()
        };
        let mut unheard = |_: &str| {};
        match model.chat(&request, &mut unheard).await {
            Ok(reply) if reply.content.is_empty() => {
                let problem = "it said nothing to its first question".into();
                Err(ModelError::Senseless { problem }.into())
            }
            Ok(_) => Ok(()),
            // What broke off because it died says more as a death.
            Err(error) => match timeout(DYING, self.died()).await {
                Ok(died) => Err(died),
                Err(_) => Err(error.into()),
            },
        }
    }
}

impl fmt::Debug for LocalServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (pid, url) = (self.pid(), &self.url);
        f.debug_struct("LocalServer").field("pid", &pid).field("url", url).finish_non_exhaustive()
    }
}

async fn spawn(options: &Options, key: &Secret, port: u16) -> Result<Child> {
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = options.threads.unwrap_or(all.saturating_sub(1)).max(1);
    let mut command = command(&options.program);
    command
        .arg("--model")
        .arg(&options.model)
        .args(["--alias", &options.names.join(",")])
        .args(["--host", "127.0.0.1", "--port", &port.to_string()])
        .args(["--threads", &threads.to_string()])
        .args(["--parallel", "1"])
        .args(["--ctx-size", &options.context_tokens.to_string()])
        .args(["--cache-ram", &PROMPT_CACHE_MIB.to_string()])
        .args(["--jinja", "--offline", "--no-webui"])
        // Ours may hold keys, and a model needs none. Its own is not on the command line,
        // which everybody on the host can read.
        .env_clear()
        .envs(["PATH", "HOME"].iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
        .env("LLAMA_API_KEY", key.reveal())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    Ok(Child::start(command).await.map_err(PathError::at("run", &options.program))?)
}

/// The fetched server is a module of Python, which sees nothing of the user's own (`-I`).
fn command(program: &Path) -> Command {
    if program.extension().is_some_and(|extension| extension == "py") {
        let mut command = Command::new("python3");
        command.arg("-I").arg(program);
        command
    } else {
        Command::new(program)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn script(directory: &Path, body: &str) -> Options {
        let program = directory.join("server");
        // Written by another process: a file that a concurrent fork of this one holds open
        // for writing cannot be run.
        let write = "printf '#!/bin/sh\\n%s\\n' \"$1\" > \"$2\"; chmod +x \"$2\"";
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", write, "sh", body]).arg(&program);
        assert!(shell.status().unwrap().success());
        Options {
            program,
            model: "model".into(),
            names: vec!["m".into()],
            context_tokens: 512,
            threads: None,
        }
    }

    #[tokio::test]
    async fn one_that_ends_at_once_tells_why() {
        let directory = tempfile::tempdir().unwrap();
        let options = script(directory.path(), "echo 'no such model' >&2; exit 3");
        let error = LocalServer::start(&options).await.unwrap_err();
        let Error::ServerDied { status, log } = error else { panic!("{error}") };
        assert_eq!(
            (status.as_str(), log.as_str()),
            ("server exited with status 3", "no such model")
        );
    }

    const YES: &str = r#"{"choices":[{"message":{"content":"yes"},"finish_reason":"stop"}]}"#;

    #[tokio::test]
    async fn one_for_another_processor_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let options = script(directory.path(), "kill -ILL $$");
        let error = LocalServer::start(&options).await.unwrap_err();
        let processor = Processor::of_this_machine().name;
        let said = error.to_string();
        assert!(said.contains("signal 4") && said.contains(&processor), "{said}");
    }

    #[tokio::test]
    async fn one_that_dies_of_its_first_question_is_not_relied_on() {
        let directory = tempfile::tempdir().unwrap();
        let body = r#"exec python3 -I -c "
import http.server, os, sys
class H(http.server.BaseHTTPRequestHandler):
    def log_message(self, *words): pass
    def do_GET(self):
        self.send_response(200); self.end_headers()
        self.wfile.write(b'{}')
    def do_POST(self): os.abort()
server = http.server.HTTPServer(('127.0.0.1', 0), H)
print(f'listening on http://127.0.0.1:{server.server_port}', file=sys.stderr, flush=True)
server.serve_forever()""#;
        let error = LocalServer::start(&script(directory.path(), body)).await.unwrap_err();
        let Error::ServerDied { status, .. } = &error else { panic!("{error}") };
        assert!(status.contains("signal 6"), "{status}");
    }

    #[tokio::test]
    async fn one_that_is_missing_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let options =
            Options { program: "/nowhere/llama-server".into(), ..script(directory.path(), "") };
        let error = LocalServer::start(&options).await.unwrap_err();
        assert!(error.to_string().contains("/nowhere/llama-server"), "{error}");
    }

    #[tokio::test]
    async fn one_that_is_healthy_is_found_and_gone_when_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 4096];
                let n = stream.read(&mut request).await.unwrap();
                let body = if request[..n].starts_with(b"POST") { YES } else { "{}" };
                let length = body.len();
                let head =
                    format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}");
                stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).await.unwrap();
            }
        });
        let body = format!("echo 'I listening on http://{address}' >&2; exec sleep 1000");
        let server = LocalServer::start(&script(directory.path(), &body)).await.unwrap();
        assert_eq!(server.config().url, format!("http://{address}"));
        let process = format!("/proc/{}", server.pid().unwrap());
        assert!(Path::new(&process).exists());
        drop(server);
        assert!(!Path::new(&process).exists());
    }
}
