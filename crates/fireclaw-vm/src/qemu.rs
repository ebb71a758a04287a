//! QEMU's `microvm` machine: on KVM where it boots, else in software.

mod args;
mod control;
mod qmp;

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fireclaw_host::{PathError, ProcessStamp, SocketDir};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::Value;
use tokio::net::UnixStream;

use crate::backend::{Backend, Capabilities, Launch, Machine, Memory, VmmKind};
use crate::process::Console;
use crate::{AttachmentKind, Error, Result, RunDir, VmmProcess, attachment, process, tsc};

use control::QemuControl;
pub use qmp::Qmp;

/// The program's name on `PATH`.
pub const PROGRAM: &str = "qemu-system-x86_64";

/// The oldest QEMU that is known to work: Debian 12's.
const OLDEST: (u32, u32) = (7, 2);

/// How QEMU runs the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// The processor's own virtualization.
    Kvm,
    /// Software emulation; the value is the rate of the host's time-stamp
    /// counter in kHz, which the guest's clock needs (see [`crate::qemu`]'s
    /// `args`).
    Tcg {
        /// Ticks per millisecond.
        tsc_khz: u64,
    },
}

/// A QEMU installation, used with one accelerator.
#[derive(Debug, Clone)]
pub struct Qemu {
    program: PathBuf,
    version: String,
    accelerator: Accelerator,
}

impl Qemu {
    /// A QEMU whose version is known, see [`crate::probe`].
    ///
    /// # Errors
    /// [`Error::VmmTooOld`] below QEMU 7.2.
    pub fn new(program: PathBuf, version: String, accelerator: Accelerator) -> Result<Self> {
        let mut numbers = version.split('.').map_while(|n| n.parse::<u32>().ok());
        let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        if found < OLDEST {
            return Err(Error::VmmTooOld {
                program: PROGRAM.into(),
                found: version,
                needed: format!("{}.{}", OLDEST.0, OLDEST.1),
            });
        }
        Ok(Self { program, version, accelerator })
    }

    /// Asks `program` for its version.
    pub fn ask_version(program: &Path) -> Result<String> {
        let output = std::process::Command::new(program)
            .arg("--version")
            .stdin(std::process::Stdio::null())
            .env_clear()
            .output()
            .map_err(|cause| Error::Spawn { program: program.display().to_string(), cause })?;
        let text = String::from_utf8_lossy(&output.stdout);
        let version = text.split_whitespace().skip_while(|word| *word != "version").nth(1);
        version.map(str::to_owned).ok_or_else(|| Error::Refused {
            vmm: "QEMU",
            request: "--version".into(),
            message: fireclaw_host::escape(text.lines().next().unwrap_or_default()),
        })
    }

    /// The accelerator with the host's own rate for TCG.
    pub fn tcg() -> Accelerator {
        Accelerator::Tcg { tsc_khz: tsc::khz() }
    }

    async fn start(&self, launch: Launch<'_>) -> Result<Machine> {
        attachment::check(launch.spec.interface, launch.attachment)?;
        let (console, console_vmm) = pair()?;
        let detached = launch.run_dir.is_detached();
        let stream = (!detached).then(pair).transpose()?;
        let (qmp, qmp_vmm) = pair()?;
        // A copy: the tap is the caller's.
        let interface = launch
            .attachment
            .map(|attachment| attachment.tap()?.try_clone_to_owned().map_err(copying))
            .transpose()?;
        let fds = args::Fds {
            console: console_vmm.as_raw_fd(),
            stream: stream.as_ref().map(|(_, vmm)| vmm.as_raw_fd()),
            qmp: qmp_vmm.as_raw_fd(),
            interface: interface.as_ref().map(AsRawFd::as_raw_fd),
        };
        let id = launch.run_dir.id();
        let mut command = std::process::Command::new(&self.program);
        command
            .args(args::arguments(launch.spec, id, self.accelerator, launch.memory, fds))
            .current_dir(launch.run_dir.path())
            .env_clear();
        let is_restored = matches!(launch.memory, Memory::RestoredFrom(_));
        if is_restored {
            process::small_pages(&mut command);
        }
        let mut inherit = vec![console_vmm, qmp_vmm];
        inherit.extend(interface);
        let stream = stream.map(|(ours, vmm)| {
            inherit.push(vmm);
            ours
        });
        let mut process =
            VmmProcess::start(command, inherit, Console::Socket(console), detached).await?;
        let connected = async {
            let mut qmp = Qmp::connect(qmp).await?;
            let stream = match stream {
                Some(stream) => stream,
                None => {
                    // It is there: QEMU makes it before it greets.
                    let stream = connect(launch.run_dir).await?;
                    // A restored guest that ran without a host, be it for a moment,
                    // would take us for another one than it was saved with.
                    accepted(&mut qmp).await?;
                    stream
                }
            };
            // A fresh guest boots meanwhile; a restored one goes on from here.
            let control = QemuControl::new(qmp, launch.memory, launch.spec.interface).await?;
            Ok((control, stream))
        };
        match connected.await {
            Ok((control, stream)) => Ok(Machine {
                process,
                stream: Box::new(stream),
                control: Box::new(control),
                // A serial port does not notice that its host is another.
                has_said_hello: is_restored,
                is_restored,
                run_dir: None,
            }),
            // A VMM that refuses its arguments closes its end and is gone soon.
            Err(e) => {
                let e = tokio::time::timeout(GRACE, process.ended()).await.unwrap_or(e);
                let _ = process.kill().await;
                Err(e)
            }
        }
    }
}

fn copying(error: std::io::Error) -> Error {
    Error::system("copying a tap's descriptor")(error)
}

/// How long a VMM that closed its control socket may take to end.
const GRACE: Duration = Duration::from_secs(2);

impl Backend for Qemu {
    fn kind(&self) -> VmmKind {
        match self.accelerator {
            Accelerator::Kvm => VmmKind::QemuKvm,
            Accelerator::Tcg { .. } => VmmKind::QemuTcg,
        }
    }

    fn version(&self) -> &str {
        &self.version
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { snapshot: true, jailer: false, attachment: AttachmentKind::Tap }
    }

    fn launch<'a>(&'a self, launch: Launch<'a>) -> BoxFuture<'a, Result<Machine>> {
        self.start(launch).boxed()
    }

    fn adopt<'a>(
        &'a self,
        run_dir: &'a RunDir,
        stamp: ProcessStamp,
    ) -> BoxFuture<'a, Result<Machine>> {
        async move {
            let process = VmmProcess::adopt(stamp)?;
            let stream = connect(run_dir).await?;
            Ok(Machine::adopted(process, Box::new(stream)))
        }
        .boxed()
    }
}

/// Connects to the stream of a detached VM.
async fn connect(run_dir: &RunDir) -> Result<UnixStream> {
    let dir = SocketDir::open(run_dir.path())?;
    Ok(UnixStream::connect(dir.name(args::STREAM_SOCKET))
        .await
        .map_err(PathError::at("connect to", run_dir.path().join(args::STREAM_SOCKET)))?)
}

/// Waits until QEMU has taken our connection to the stream: connect(2) does not.
async fn accepted(qmp: &mut Qmp) -> Result<()> {
    const POLL: Duration = Duration::from_millis(1);
    loop {
        let devices = qmp.execute("query-chardev", Value::Null).await?;
        let mut devices = devices.as_array().into_iter().flatten();
        let stream = devices.find(|device| device["label"] == args::STREAM);
        match stream.and_then(|stream| stream["filename"].as_str()) {
            // How a socket that waits for somebody is called (chardev/char-socket.c).
            Some(name) if name.starts_with("disconnected:") => tokio::time::sleep(POLL).await,
            _ => return Ok(()),
        }
    }
}

/// A socket pair: our end, and the end that the VMM inherits.
///
/// No name in any file system, so nothing to connect to for others and nothing
/// to leave behind.
fn pair() -> Result<(UnixStream, OwnedFd)> {
    let system = Error::system;
    let (ours, theirs) = StdUnixStream::pair().map_err(system("making a socket pair"))?;
    ours.set_nonblocking(true).map_err(system("making a socket pair"))?;
    let ours = UnixStream::from_std(ours).map_err(system("making a socket pair"))?;
    Ok((ours, theirs.into()))
}
