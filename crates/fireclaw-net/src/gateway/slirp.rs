//! The way out of a namespace for policy `full`: slirp4netns, a user-mode network stack.

use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use fireclaw_host::{ProcessStamp, find_program};
use rustix::process::Signal;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::{Error, Result};

/// Its own network: of the space for benchmarks (RFC 2544), so that no range can have it.
const NETWORK: &str = "198.18.0.0/24";

/// Its device in the namespace.
const DEVICE: &str = "uplink";

/// How long it may take to be ready.
const READY: Duration = Duration::from_secs(10);
/// How long after its end it is started again: a guest may have ended it.
const PAUSE: Duration = Duration::from_secs(1);

/// A way out: a slirp4netns that is started again if it ends.
#[derive(Debug)]
pub(super) struct Uplink {
    task: JoinHandle<()>,
    end: Arc<Notify>,
}

impl Uplink {
    /// Connects the namespaces of a process with the host's network.
    pub async fn start(of: ProcessStamp) -> Result<Self> {
        let slirp = Slirp::start(of).await?;
        let end = Arc::new(Notify::new());
        let task = tokio::spawn(keep(slirp, of, Arc::clone(&end)));
        Ok(Self { task, end })
    }

    /// Takes it away, device and all.
    pub async fn end(self) {
        self.end.notify_one();
        let _ = self.task.await;
    }
}

async fn keep(mut slirp: Slirp, of: ProcessStamp, end: Arc<Notify>) {
    loop {
        tokio::select! {
            () = end.notified() => return slirp.kill().await,
            () = slirp.ended() => {}
        }
        slirp = loop {
            tokio::select! {
                () = end.notified() => return,
                () = sleep(PAUSE) => {}
            }
            if let Ok(next) = Slirp::start(of).await {
                break next;
            }
        };
    }
}

/// A running slirp4netns. It ends with this, or with this process.
#[derive(Debug)]
struct Slirp {
    child: Child,
    /// It ends when this closes.
    _alive: OwnedFd,
}

/// Whether it is installed.
pub(super) fn available() -> Result<()> {
    program().map(drop)
}

fn program() -> Result<std::path::PathBuf> {
    find_program("", "slirp4netns").map_err(Error::missing("slirp4netns"))
}

impl Slirp {
    async fn start(of: ProcessStamp) -> Result<Self> {
        let failed = |e: std::io::Error| Error::system("starting slirp4netns")(e);
        let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
        let (ready, says_ready) = pipe().map_err(|e| failed(e.into()))?;
        let (exit, alive) = pipe().map_err(|e| failed(e.into()))?;
        let mut command = Command::new(program()?);
        command
            .args(["--configure", "--mtu=1500", "--disable-host-loopback", "--disable-dns"])
            .arg("--enable-seccomp")
            .arg(format!("--cidr={NETWORK}"))
            .arg(format!("--ready-fd={}", says_ready.as_raw_fd()))
            .arg(format!("--exit-fd={}", exit.as_raw_fd()))
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        // As user 0 it takes for granted that it may mount, which we gave up already.
        if !rustix::process::geteuid().is_root() {
            command.arg("--enable-sandbox");
        }
        // By number, not by path: by path its sandbox does not work without root.
        command.arg(of.pid.to_string()).arg(DEVICE);
        inherit(&mut command, vec![says_ready, exit]);
        let mut child = command.spawn().map_err(failed)?;
        drop(command);
        let mut ready = pipe::Receiver::from_owned_fd(ready).map_err(failed)?;
        let mut stderr = child.stderr.take();
        // It says one byte; nothing, if it ended.
        if let Ok(Ok(1)) = timeout(READY, ready.read(&mut [0])).await {
            if let Some(mut stderr) = stderr {
                // A guest can have it say much, and a pipe that nobody reads would stop it.
                tokio::spawn(
                    async move { tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await },
                );
            }
            return Ok(Self { child, _alive: alive });
        }
        let _ = child.start_kill();
        let mut words = String::new();
        if let Some(stderr) = &mut stderr {
            let _ = timeout(READY, stderr.take(4096).read_to_string(&mut words)).await;
        }
        let words: Vec<&str> = words.lines().filter(|line| !line.contains("WARNING")).collect();
        let reason = match &words[..] {
            [] => "it did not get ready".into(),
            words => words.join("; "),
        };
        Err(Error::System { action: "starting slirp4netns".into(), reason })
    }

    /// Resolves when it has ended.
    async fn ended(&mut self) {
        let _ = self.child.wait().await;
    }

    async fn kill(mut self) {
        let _ = self.child.kill().await;
    }
}

/// Has a program keep descriptors, and end with this thread, which is the only one that
/// starts programs.
#[allow(unsafe_code)]
fn inherit(command: &mut Command, descriptors: Vec<OwnedFd>) {
    // SAFETY: the hook runs between fork and exec and only makes system calls.
    unsafe {
        command.pre_exec(move || {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            for descriptor in &descriptors {
                rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::empty())?;
            }
            Ok(())
        });
    }
}
