//! llama-server as a child process that never outlives its owner.

use std::collections::VecDeque;
use std::fmt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::error::escape;
use crate::http::Http;
use crate::{Error, Key, Result, ServerConfig, ServerKind};

/// How long a model may take to load.
const START: Duration = Duration::from_secs(180);

/// How often it is asked whether it has loaded.
const POLL: Duration = Duration::from_millis(50);

/// The lines of its log that are kept, and the bytes of each.
const LOG_LINES: usize = 20;
const LOG_LINE: u64 = 4096;

/// How long the log is read on after the end.
const LOG_REST: Duration = Duration::from_secs(1);

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
    child: Child,
    url: String,
    key: Key,
    log: Log,
    // Reads the log; a set ends its tasks when dropped.
    reader: JoinSet<()>,
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
        let mut child = spawn(options, &key)?;
        let log = Log::default();
        let (found, address) = watch::channel(None);
        let mut reader = JoinSet::new();
        if let Some(stderr) = child.stderr.take() {
            reader.spawn(follow(stderr, log.clone(), found));
        }
        let mut server = Self { child, url: String::new(), key: Key::new(key), log, reader };
        match timeout(START, server.ready(address)).await {
            Ok(Ok(())) => Ok(server),
            Ok(Err(error)) => Err(error),
            Err(_) => {
                let status = format!("it was not ready within {} s", START.as_secs());
                Err(Error::ServerDied { status, log: server.log.lines() })
            }
        }
    }

    /// Where it is and how to talk with it.
    pub fn config(&self) -> ServerConfig {
        let (url, key) = (self.url.clone(), Some(self.key.clone()));
        ServerConfig { kind: ServerKind::OpenAi, url, key }
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// The last lines of its log, escaped.
    pub fn log(&self) -> String {
        self.log.lines()
    }

    /// Waits for it to end by itself, and says how it did. It may be dropped and called
    /// again.
    pub async fn died(&mut self) -> Error {
        let status = match self.child.wait().await {
            Ok(status) => words(status),
            Err(error) => error.to_string(),
        };
        // The rest of its log is on its way, unless somebody else holds the other end.
        let _ = timeout(LOG_REST, async { while self.reader.join_next().await.is_some() {} }).await;
        Error::ServerDied { status, log: self.log.lines() }
    }

    async fn ready(&mut self, mut address: watch::Receiver<Option<String>>) -> Result<()> {
        let told = async { address.wait_for(Option::is_some).await.ok()?.clone() };
        let url = tokio::select! {
            Some(url) = told => url,
            died = self.died() => return Err(died),
        };
        let http = Http::new(&url, None)?;
        self.url = url;
        loop {
            let healthy = http.get::<serde_json::Value>("/health", &[]);
            tokio::select! {
                answer = healthy => match answer {
                    Ok(_) => return Ok(()),
                    Err(_) => sleep(POLL).await,
                },
                died = self.died() => return Err(died),
            }
        }
    }
}

impl fmt::Debug for LocalServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (pid, url) = (self.pid(), &self.url);
        f.debug_struct("LocalServer").field("pid", &pid).field("url", url).finish_non_exhaustive()
    }
}

impl Drop for LocalServer {
    /// Kills the server and waits for its end. A killed process ends within milliseconds;
    /// the wait is bounded for one that is stuck in the kernel.
    fn drop(&mut self) {
        if self.child.start_kill().is_err() {
            return;
        }
        if let Some(pid) = self.pid().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?))
            && let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty())
        {
            let limit = Timespec { tv_sec: 2, tv_nsec: 0 };
            let _ = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit));
        }
        let _ = self.child.try_wait();
    }
}

fn spawn(options: &Options, key: &str) -> Result<Child> {
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = options.threads.unwrap_or(all.saturating_sub(1)).max(1);
    let mut command = std::process::Command::new(&options.program);
    command
        .arg("--model")
        .arg(&options.model)
        .args(["--alias", &options.names.join(",")])
        // Port 0: the system chooses a free one, and the log tells which.
        .args(["--host", "127.0.0.1", "--port", "0"])
        .args(["--threads", &threads.to_string()])
        .args(["--parallel", "1"])
        .args(["--ctx-size", &options.context_tokens.to_string()])
        .args(["--cache-ram", &PROMPT_CACHE_MIB.to_string()])
        .args(["--jinja", "--offline", "--no-webui"])
        // Ours may hold keys, and a model needs none. Its own is not on the command line,
        // which everybody on the machine can read.
        .env_clear()
        .env("LLAMA_API_KEY", key)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    die_with_parent(&mut command);
    let mut command = Command::from(command);
    command.kill_on_drop(true).spawn().map_err(Error::file("run", &options.program))
}

#[allow(unsafe_code)]
fn die_with_parent(command: &mut std::process::Command) {
    let parent = i32::try_from(std::process::id()).ok();
    // SAFETY: the hook runs between fork and exec, where only async-signal-safe calls are
    // allowed: ours are bare system calls without allocation or locks.
    unsafe {
        command.pre_exec(move || {
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
            // The parent may have died before the line above took effect.
            if rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get()) != parent {
                return Err(rustix::io::Errno::SRCH.into());
            }
            // A group of its own: Ctrl-C at the terminal is for its owner, who then ends it.
            rustix::process::setpgid(None, None)?;
            Ok(())
        });
    }
}

/// The last lines of a log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<VecDeque<String>>>);

impl Log {
    fn add(&self, line: &str) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == LOG_LINES {
            lines.pop_front();
        }
        lines.push_back(escape(line));
    }

    fn lines(&self) -> String {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }
}

async fn follow(stderr: ChildStderr, log: Log, found: watch::Sender<Option<String>>) {
    let mut stderr = BufReader::new(stderr);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut stderr).take(LOG_LINE).read_until(b'\n', &mut line).await {
            Ok(n) if n > 0 => {}
            _ => return,
        }
        let text = String::from_utf8_lossy(&line);
        if let Some((_, address)) = text.split_once(LISTENING) {
            found.send_replace(Some(address.trim().to_owned()));
        }
        log.add(&text);
    }
}

fn words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tokio::io::AsyncWriteExt;
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
        assert_eq!((status.as_str(), log.as_str()), ("status 3", "no such model"));
    }

    #[tokio::test]
    async fn one_that_is_missing_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let options =
            Options { program: "/nowhere/llama-server".into(), ..script(directory.path(), "") };
        let error = LocalServer::start(&options).await.unwrap_err();
        assert!(error.to_string().contains("/nowhere/llama-server"), "{error}");
    }

    /// Runs a stand-in that is healthy, in a thread of its own, and gives its process id
    /// after `then` had it and the thread ended.
    fn after(then: impl FnOnce(LocalServer) + Send + 'static) -> u32 {
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let directory = tempfile::tempdir().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let address = listener.local_addr().unwrap();
                tokio::spawn(async move {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    let mut request = [0; 1024];
                    let _ = stream.read(&mut request).await.unwrap();
                    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
                    stream.write_all(answer.as_bytes()).await.unwrap();
                });
                let body = format!("echo 'I listening on http://{address}' >&2; exec sleep 1000");
                let server = LocalServer::start(&script(directory.path(), &body)).await.unwrap();
                assert_eq!(server.config().url, format!("http://{address}"));
                let pid = server.pid().unwrap();
                then(server);
                pid
            })
        });
        thread.join().unwrap()
    }

    #[test]
    fn dropped_it_is_gone() {
        let pid = after(drop);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn it_dies_with_its_owner() {
        let pid = after(std::mem::forget);
        let stat = format!("/proc/{pid}/stat");
        // Killed, but nobody is left who would reap it.
        let begun = std::time::Instant::now();
        while std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
            assert!(begun.elapsed() < Duration::from_secs(60), "it lives on");
            std::thread::yield_now();
        }
    }
}
