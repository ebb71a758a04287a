//! The way out of a namespace for policy `full`: slirp4netns, a user-mode network stack.

use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
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
        let (mut ready, says_ready) = pipe().map_err(|e| failed(e.into()))?;
        let (exit, alive) = pipe().map_err(|e| failed(e.into()))?;
        let mut command = Command::new(program()?);
        command
            .args(["--configure", "--mtu=1500", "--disable-host-loopback", "--disable-dns"])
            .args(["--enable-sandbox", "--enable-seccomp"])
            .arg(format!("--cidr={NETWORK}"))
            .arg(format!("--ready-fd={}", says_ready.as_raw_fd()))
            .arg(format!("--exit-fd={}", exit.as_raw_fd()))
            .arg(format!("--userns-path=/proc/{}/ns/user", of.pid))
            .args(["--netns-type=path", &format!("/proc/{}/ns/net", of.pid), DEVICE])
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        inherit(&mut command, vec![says_ready, exit]);
        let mut child = command.spawn().map_err(failed)?;
        drop(command);
        let limit = Timespec { tv_sec: READY, tv_nsec: 0 };
        let _ = poll(&mut [PollFd::new(&ready, PollFlags::IN)], Some(&limit));
        let mut word = [0];
        let said = match rustix::event::poll(
            &mut [PollFd::new(&ready, PollFlags::IN)],
            Some(&Timespec { tv_sec: 0, tv_nsec: 0 }),
        ) {
            Ok(1..) => rustix::io::read(ready.as_fd(), &mut word).unwrap_or(0),
            _ => 0,
        };
        let _ = &mut ready;
        if said == 1 {
            return Ok(Self { child, _alive: alive });
        }
        let _ = child.kill();
        let mut words = String::new();
        if let Some(mut stderr) = child.stderr.take() {
            let _ = stderr.by_ref().take(4096).read_to_string(&mut words);
        }
        let _ = child.wait();
        let last = words.lines().last().unwrap_or("it did not get ready").to_owned();
        Err(Error::System { action: "starting slirp4netns".into(), reason: last })
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
