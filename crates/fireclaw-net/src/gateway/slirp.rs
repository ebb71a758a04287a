//! The way out of a namespace for policy `full`: slirp4netns, a user-mode network stack.

use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;

use crate::{Error, ProcessStamp, Result, nft};

/// Its own network: of the space for benchmarks (RFC 2544), so that no range can have it.
const NETWORK: &str = "198.18.0.0/24";

/// Its device in the namespace.
const DEVICE: &str = "uplink";

/// How long it may take to be ready, in seconds.
const READY: i64 = 10;

/// A running slirp4netns. It ends with this, or with this process.
#[derive(Debug)]
pub(super) struct Slirp {
    child: Child,
    /// It ends when this closes.
    _alive: OwnedFd,
}

/// Whether it is installed.
pub(super) fn available() -> Result<()> {
    program().map(drop)
}

fn program() -> Result<std::path::PathBuf> {
    nft::program("slirp4netns").ok_or_else(|| Error::Missing {
        program: "slirp4netns".into(),
        package: "slirp4netns".into(),
    })
}

impl Slirp {
    /// Connects the namespaces of a process with the host's network.
    pub fn start(of: ProcessStamp) -> Result<Self> {
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
            .stderr(Stdio::piped());
        // As user 0 it takes for granted that it may mount, which we gave up already.
        if !rustix::process::geteuid().is_root() {
            command.arg("--enable-sandbox");
        }
        // By number, not by path: by path its sandbox does not work without root.
        command.arg(of.pid.to_string()).arg(DEVICE);
        inherit(&mut command, vec![says_ready, exit]);
        let mut child = command.spawn().map_err(failed)?;
        drop(command);
        let limit = Timespec { tv_sec: READY, tv_nsec: 0 };
        let waited = poll(&mut [PollFd::new(&ready, PollFlags::IN)], Some(&limit));
        let mut word = [0];
        // It says one byte; nothing, if it ended.
        let said = match waited {
            Ok(1..) => rustix::io::read(&ready, &mut word).unwrap_or(0),
            _ => 0,
        };
        if said == 1 {
            return Ok(Self { child, _alive: alive });
        }
        let _ = child.kill();
        let mut words = String::new();
        if let Some(mut stderr) = child.stderr.take() {
            let _ = stderr.by_ref().take(4096).read_to_string(&mut words);
        }
        let _ = child.wait();
        let words: Vec<&str> = words.lines().filter(|line| !line.contains("WARNING")).collect();
        let reason = match &words[..] {
            [] => "it did not get ready".into(),
            words => words.join("; "),
        };
        Err(Error::System { action: "starting slirp4netns".into(), reason })
    }
}

impl Drop for Slirp {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
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
