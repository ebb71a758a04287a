//! Starts the gateway of a VM.

use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use fireclaw_host::ProcessStamp;
use fireclaw_say::say;
use fireclaw_vm::{AttachmentKind, Namespace, TapAttachment};
use tokio::sync::oneshot;

use crate::gateway::{self, Ready, Role};
use crate::state::Machine;
use crate::{Client, Error, Interface, Request, Result, tap, wire};

/// The hidden command that leads `fireclaw` to [`gateway_main`].
const COMMAND: &str = "gateway";

/// How long a gateway may take to get ready.
const READY: Duration = Duration::from_secs(30);
/// How long it and its helper may take to remove everything.
const END: Duration = Duration::from_secs(40);

/// What a gateway and its helper say of what goes wrong, in its directory.
const LOG: &str = "net.log";

/// A VM's gateway, started by this process.
///
/// It ends when this is dropped or this process ends, unless it was told to whom it
/// belongs; then it ends with that process.
#[derive(Debug)]
pub struct Gateway {
    client: Client,
    interface: Interface,
    machine: Machine,
    attachment: TapAttachment,
    process: ProcessStamp,
    /// Closed, it tells that the starter has gone.
    stream: UnixStream,
    log: PathBuf,
    ended: oneshot::Receiver<Ended>,
}

/// How a helper and its gateway ended.
type Ended = [std::io::Result<ExitStatus>; 2];

/// Starts a gateway and waits until it is ready: `program` leads, with its arguments, to
/// [`gateway_main`].
///
/// # Errors
/// Whatever the gateway could not do; nothing of it is left then.
pub async fn open(program: &Path, arguments: &[&str], request: Request) -> Result<Gateway> {
    gateway::possible(&request)?;
    let failed = |e: std::io::Error| Error::system("starting the gateway")(e);
    let log = request.directory.join(LOG);
    let words = File::create(&log).map_err(failed)?;
    let mut command = Command::new(program);
    // Not our output: it may outlive this process, and would keep a pipe open. Ctrl-C at a
    // terminal is not for it.
    command.args(arguments).stdout(Stdio::null()).stderr(Stdio::from(words)).process_group(0);
    let roles = request.clone();
    let starting = tokio::task::spawn_blocking(move || start(command, roles));
    let started = starting.await.map_err(|e| failed(e.into()))?;
    let Started { process, children, stream, said } = started.map_err(failed)?;
    let ended = reap(children).map_err(failed)?;
    let (machine, descriptors) = match made(said) {
        Ok(made) => made,
        Err(error) => {
            drop(stream);
            // What was made is removed.
            let _ = tokio::time::timeout(END, ended).await;
            return Err(error.unwrap_or_else(|| {
                Error::gateway(format!("ended while it started{}", last_words(&log)))
            }));
        }
    };
    let process = process.ok_or_else(|| Error::gateway("ended at once"))?;
    let mut descriptors = descriptors.into_iter();
    let attachment = match (request.attachment, descriptors.next(), descriptors.next()) {
        (AttachmentKind::Tap, Some(tap), None) => TapAttachment::Tap(tap),
        (AttachmentKind::Named, None, None) => {
            TapAttachment::Named { name: machine.tap(), namespace: None }
        }
        (AttachmentKind::Named, Some(user), Some(net)) => {
            let namespace = Some(Namespace { user: Some(user), net });
            TapAttachment::Named { name: machine.tap(), namespace }
        }
        _ => return Err(Error::gateway("did not pass the tap on")),
    };
    Ok(Gateway {
        client: Client::new(request.directory),
        interface: Interface::of(&machine, &request.config),
        machine,
        attachment,
        process,
        stream,
        log,
        ended,
    })
}

/// What a gateway says of what was made, or why it was not; nothing if it said nothing.
fn made(said: Said) -> std::result::Result<(Machine, Vec<OwnedFd>), Option<Error>> {
    match said {
        Ok(Some((Ok(ready), descriptors))) => Ok((ready.machine, descriptors)),
        Ok(Some((Err(error), _))) => Err(Some(error)),
        Ok(None) => Err(None),
        Err(e) if matches!(e.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
            Err(None)
        }
        Err(e) => Err(Some(Error::gateway(format!("did not get ready: {e}")))),
    }
}

/// Waits for their end in a thread of its own, so that no dead process stays: a runtime would
/// wait for it when it ends, and a VM outlives who started it.
fn reap(children: [Child; 2]) -> std::io::Result<oneshot::Receiver<Ended>> {
    let (tell, ended) = oneshot::channel();
    let wait = move || {
        let _ = tell.send(children.map(|mut child| child.wait()));
    };
    std::thread::Builder::new().name("gateway".into()).spawn(wait)?;
    Ok(ended)
}

/// What was written last to a log, as the end of a sentence; nothing if there is nothing.
fn last_words(log: &Path) -> String {
    const MOST: usize = 400;
    let text = std::fs::read(log).unwrap_or_default();
    let end = text.get(text.len().saturating_sub(MOST)..).unwrap_or_default();
    let end = String::from_utf8_lossy(end);
    match end.lines().rfind(|line| !line.trim().is_empty()) {
        Some(line) => format!(": {}", fireclaw_host::escape(line)),
        None => String::new(),
    }
}

/// A gateway and its helper.
struct Started {
    process: Option<ProcessStamp>,
    children: [Child; 2],
    stream: UnixStream,
    said: Said,
}

/// What came from a gateway once it was started.
type Said = std::io::Result<Option<(Result<Ready>, Vec<OwnedFd>)>>;

/// Starts both, and waits until they are ready.
fn start(mut command: Command, request: Request) -> std::io::Result<Started> {
    let mut part = || {
        let (stream, theirs) = UnixStream::pair()?;
        let child = command.stdin(Stdio::from(OwnedFd::from(theirs))).spawn();
        // It would hold the other end too, and hide that they have ended.
        command.stdin(Stdio::null());
        std::io::Result::Ok((stream, child?))
    };
    let (to_helper, mut helper) = part()?;
    // It begins while the gateway starts.
    let told = wire::send(&to_helper, &Role::Helper(request.clone()), &[]);
    let (stream, gateway) = match part() {
        Ok(started) => started,
        Err(e) => {
            drop(to_helper);
            let _ = helper.wait();
            return Err(e);
        }
    };
    let told =
        told.and_then(|()| wire::send(&stream, &Role::Gateway(request), &[to_helper.as_fd()]));
    // The helper lives for as long as the gateway has this.
    drop(to_helper);
    // It is a child that nobody has waited for: its number is its own.
    let process = i32::try_from(gateway.id()).ok().and_then(ProcessStamp::of);
    let said = told
        .and_then(|()| stream.set_read_timeout(Some(READY)))
        .and_then(|()| wire::receive(&stream));
    Ok(Started { process, children: [helper, gateway], stream, said })
}

impl Gateway {
    /// Starts a gateway with this very program, which has a hidden command for it.
    ///
    /// # Errors
    /// As [`open`].
    pub async fn open(request: Request) -> Result<Self> {
        // Also after the program's file was replaced (proc(5)).
        open(Path::new("/proc/self/exe"), &[COMMAND], request).await
    }

    /// What the guest has to know.
    pub fn interface(&self) -> Interface {
        self.interface
    }

    /// The row that was written for it.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Where the VMM attaches the interface. A VM of which a snapshot is made may be on
    /// it too, before the one that stays: its interface is down.
    pub fn attachment(&self) -> &TapAttachment {
        &self.attachment
    }

    /// What asks this gateway.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The gateway's process.
    pub fn process(&self) -> ProcessStamp {
        self.process
    }

    /// From now on the gateway lives as long as the VMM, and no longer ends with this.
    ///
    /// # Errors
    /// [`Error::Gateway`], also if the VMM has ended.
    pub async fn belongs_to(self, vmm: ProcessStamp) -> Result<()> {
        self.client.belongs_to(vmm).await
    }

    /// Ends the gateway and waits until everything of its VM is gone.
    ///
    /// # Errors
    /// [`Error::Left`] if not all is.
    pub async fn close(self) -> Result<()> {
        let Self { attachment, stream, log, ended, .. } = self;
        drop((attachment, stream));
        let left = |reason: String| Err(Error::Left { reason });
        match tokio::time::timeout(END, ended).await {
            Ok(Ok([Ok(helper), _])) if helper.success() => Ok(()),
            Ok(Ok([Ok(helper), _])) => {
                left(format!("its helper ended{} ({helper})", last_words(&log)))
            }
            Ok(_) => left("its helper was not seen to end".into()),
            Err(_) => left("its gateway does not end".into()),
        }
    }
}

/// What a gateway's process does: the hidden sub-command. It must be called while the
/// process has one thread.
pub fn gateway_main() -> ExitCode {
    let main = || {
        let stdin = rustix::io::dup(std::io::stdin()).map_err(Error::system("starting"))?;
        crate::gateway::main(&UnixStream::from(stdin))
    };
    match main() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say!("fireclaw: the network of a VM: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A tap with `IFF_VNET_HDR` in the network namespace of this thread.
///
/// # Errors
/// [`Error::System`] without the right to make one.
pub fn bare_tap(name: &str) -> Result<OwnedFd> {
    tap::open(name)
}
