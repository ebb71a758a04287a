//! Firecracker, the VMM for hosts with KVM.
//!
//! Each VM is one Firecracker process, configured over its API socket
//! before the guest boots. The process runs in the VM's run directory and
//! is told only relative socket names, so that none of them outgrows the 108
//! bytes of a socket address (`unix(7)`).
//!
//! A guest can make Firecracker write in two places: the serial console and
//! the log. Both are pipes of which only the end is kept in memory, so a guest
//! cannot fill the host's disk; in a jail the log is a named pipe. Metrics, which Firecracker would append to a
//! file every minute (its `docs/metrics.md`), are not asked for.

pub mod api;
mod build;
mod config;
mod jail;
mod stream;
pub mod types;
mod version;

use std::path::{Path, PathBuf};
use std::time::Duration;

use fireclaw_host::{PathError, ProcessStamp, SocketDir};
use fireclaw_protocol::boot::VSOCK_PORT;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::{sleep, timeout};

use crate::attachment;
use crate::process::{self, Console};
use crate::{
    AttachmentKind, Backend, Capabilities, Control, Error, Launch, Machine, Memory, Result, RunDir,
    TapAttachment, VmmKind, VmmProcess,
};
use api::{Api, SOCKET};
pub use config::{GUEST_CID, VSOCK, boot_requests, restore_requests, save_requests};
pub use jail::Jail;
use jail::Log;
pub use stream::GuestStream;
use types::Request;

/// The program's name on `PATH`.
pub const PROGRAM: &str = "firecracker";

/// How long Firecracker may take from its start until its API answers.
const START: Duration = Duration::from_secs(5);

/// How long a VMM that hung up is given to end, so that its status is known.
const END: Duration = Duration::from_millis(500);

/// An installed Firecracker.
#[derive(Debug, Clone)]
pub struct Firecracker {
    program: PathBuf,
    version: String,
    jail: Option<Jail>,
}

impl Firecracker {
    /// A Firecracker whose version is known, see [`crate::probe`].
    ///
    /// # Errors
    /// [`Error::VmmTooOld`] below Firecracker 1.16.1.
    pub fn new(program: PathBuf, version: String) -> Result<Self> {
        version::check(&version)?;
        Ok(Self { program, version, jail: None })
    }

    /// Asks `program` for its version.
    pub fn ask_version(program: &Path) -> Result<String> {
        version::ask(program)
    }

    /// Whether it is a build for glibc, which has no system-call policy at all.
    pub fn lacks_seccomp(&self) -> bool {
        std::fs::read(&self.program).is_ok_and(|file| build::is_dynamic(&file))
    }

    /// Confines every VMM with Firecracker's jailer, which only root can do.
    pub fn jailed(mut self, jail: Jail) -> Result<Self> {
        jail.check()?;
        self.jail = Some(jail);
        Ok(self)
    }

    /// The program's path.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Where the running VMM of `run_dir` keeps its sockets and finds its files.
    pub fn home(&self, run_dir: &RunDir) -> PathBuf {
        match &self.jail {
            Some(_) => jail::root(&self.program, run_dir),
            None => run_dir.path().to_owned(),
        }
    }

    async fn start(&self, launch: Launch<'_>) -> Result<Machine> {
        let Launch { spec, run_dir, memory, attachment } = launch;
        attachment::check(spec.interface, attachment)?;
        let (tap, namespace) = attachment.map(TapAttachment::named).transpose()?.unzip();
        let namespace = namespace.flatten();
        if self.jail.is_some() && namespace.is_some_and(|namespace| namespace.user.is_some()) {
            return Err(Error::TapAttachment("the jailer cannot work in another user namespace"));
        }
        if self.jail.is_some() && !matches!(memory, Memory::Fresh) {
            return Err(Error::Refused {
                vmm: "Firecracker",
                request: "a snapshot".into(),
                message: "not together with the jailer, whose files lie elsewhere".into(),
            });
        }
        let (mut command, spec, log) = match &self.jail {
            Some(jail) => (
                jail.command(&self.program, run_dir),
                jail.provision(&self.program, spec, run_dir)?,
                Path::new(jail::LOG),
            ),
            None => {
                let mut command = std::process::Command::new(&self.program);
                command.arg("--id").arg(run_dir.id());
                // Standard error, by a name that Firecracker can open.
                let mut spec = config::absolute(spec)?;
                config::own_disks(&mut spec, run_dir.path())?;
                (command, spec, Path::new("/proc/self/fd/2"))
            }
        };
        // The environment may hold keys, and the VMM needs none of it.
        command.args(["--api-sock", SOCKET]).current_dir(run_dir.path()).env_clear();
        let requests = match memory {
            Memory::RestoredFrom(directory) => restore_requests(directory, log, tap),
            Memory::Fresh => boot_requests(&spec, log, tap, false),
            Memory::SavedTo(_) => boot_requests(&spec, log, tap, true),
        };

        if matches!(memory, Memory::RestoredFrom(_)) {
            process::small_pages(&mut command);
        }
        if let Some(namespace) = namespace {
            process::join(&mut command, namespace)?;
        }

        if run_dir.is_detached() {
            clear_names(run_dir.path())?;
        }
        // The guest connects as soon as it has booted: listen before it starts.
        let home = SocketDir::open(self.home(run_dir))?;
        let stream = GuestStream::listen(&home, &format!("{VSOCK}_{VSOCK_PORT}"))?;
        let mut pipe = None;
        if let Some(jail) = &self.jail {
            jail.give(&home.path().join(format!("{VSOCK}_{VSOCK_PORT}")))?;
            pipe = Some(jail.log(home.path())?);
        }

        let mut process =
            VmmProcess::start(command, Vec::new(), Console::Stdout, run_dir.is_detached()).await?;
        let held = pipe.map(|Log { reader, held }| {
            process.logs_to(reader);
            held
        });
        let booted = boot(&home, &mut process, &requests).await;
        drop(held);
        match booted {
            Ok(api) => {
                let directory = match memory {
                    Memory::SavedTo(directory) => Some(directory.to_owned()),
                    Memory::Fresh | Memory::RestoredFrom(_) => None,
                };
                let control = Box::new(FirecrackerControl { api, directory });
                Ok(Machine {
                    process,
                    stream: Box::new(stream),
                    control,
                    // A restored guest finds its connection reset, makes
                    // another and says hello again.
                    has_said_hello: false,
                    is_restored: matches!(memory, Memory::RestoredFrom(_)),
                    run_dir: None,
                })
            }
            Err(error) => {
                let error = explain(error, &mut process).await;
                // Reaped here, not by the runtime some time later.
                let _ = process.kill().await;
                Err(error)
            }
        }
    }
}

/// Removes the sockets of one that was in a detached directory before: they cannot be made where
/// they are.
fn clear_names(directory: &Path) -> Result<()> {
    let stream = format!("{VSOCK}_{VSOCK_PORT}");
    for name in [SOCKET, VSOCK, &stream] {
        let path = directory.join(name);
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(PathError::at("remove", path)(e).into());
            }
            _ => {}
        }
    }
    Ok(())
}

impl Backend for Firecracker {
    fn kind(&self) -> VmmKind {
        VmmKind::Firecracker
    }

    fn version(&self) -> &str {
        &self.version
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { snapshot: true, jailer: true, attachment: AttachmentKind::Named }
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
            let mut process = VmmProcess::adopt(stamp)?;
            let home = SocketDir::open(self.home(run_dir))?;
            if self.jail.is_some() {
                process.logs_to(Jail::follow_log(home.path())?);
            }
            let name = format!("{VSOCK}_{VSOCK_PORT}");
            // Whoever listened there has gone; the guest tries until somebody does.
            let _ = std::fs::remove_file(home.path().join(&name));
            Ok(Machine::adopted(process, Box::new(GuestStream::listen(&home, &name)?)))
        }
        .boxed()
    }
}

/// Sends everything up to the guest's first instruction.
async fn boot(home: &SocketDir, process: &mut VmmProcess, requests: &[Request]) -> Result<Api> {
    let mut api = first_contact(home, process).await?;
    for request in requests {
        api.send(request).await?;
    }
    Ok(api)
}

/// A running Firecracker, and where its snapshot goes.
#[derive(Debug)]
struct FirecrackerControl {
    api: Api,
    directory: Option<PathBuf>,
}

impl Control for FirecrackerControl {
    fn save(&mut self) -> BoxFuture<'_, Result<()>> {
        async {
            let Some(directory) = self.directory.take() else {
                return Err(Error::Refused {
                    vmm: "Firecracker",
                    request: "a snapshot".into(),
                    message: "the VM was not launched to be saved".into(),
                });
            };
            for request in save_requests(&directory) {
                self.api.send(&request).await?;
            }
            Ok(())
        }
        .boxed()
    }
}

/// Connects to the API of a VMM that has just been started.
async fn first_contact(home: &SocketDir, process: &mut VmmProcess) -> Result<Api> {
    let connect = async {
        loop {
            match Api::connect(home).await {
                Ok(api) => break api,
                // The socket is not there yet, or not listened on yet.
                Err(_) => sleep(Duration::from_millis(1)).await,
            }
        }
    };
    tokio::select! {
        connected = timeout(START, connect) => connected.map_err(|_| Error::System {
            what: "waiting for Firecracker's API socket",
            cause: std::io::Error::other(format!("not there after {} s", START.as_secs())),
        }),
        death = process.ended() => Err(death),
    }
}

/// Prefers "the VMM died, and this is what it said" to "the connection broke".
async fn explain(error: Error, process: &mut VmmProcess) -> Error {
    if matches!(error, Error::Refused { .. } | Error::VmmDied { .. }) {
        return error;
    }
    timeout(END, process.ended()).await.unwrap_or(error)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{UnixListener, UnixStream};

    use super::*;
    use crate::MachineSpec;

    /// Answers every request with "done", and tells what the first one said.
    async fn answer(mut peer: UnixStream) -> String {
        let mut first = String::new();
        let mut buffer = vec![0; 4096];
        while let Ok(read @ 1..) = peer.read(&mut buffer).await {
            if first.is_empty() {
                first = String::from_utf8_lossy(&buffer[..read]).into_owned();
            }
            if peer.write_all(b"HTTP/1.1 204 \r\n\r\n").await.is_err() {
                break;
            }
        }
        first
    }

    /// A jailer whose program opens its log and, once it is told to, logs more than any pipe
    /// holds.
    const JAILER: &str = r#"#!/bin/sh
exec 3> "$ROOT/log"
touch "$ROOT/open"
while [ ! -e "$ROOT/go" ]; do sleep 0.01; done
head -c 1048576 /dev/zero | tr '\0' x >&3
echo "
what is wrong" >&3
exit 7
"#;

    #[tokio::test]
    async fn what_a_jailed_vmm_logs_is_read_and_its_last_words_told() {
        let dir = tempfile::tempdir().unwrap();
        let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
        let run_dir = RunDir::create(&dir.path().join("run")).unwrap();
        let root = jail::root(Path::new(PROGRAM), &run_dir);
        let program = dir.path().join("jailer");
        std::fs::write(&program, JAILER.replace("$ROOT", root.to_str().unwrap())).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
        let jail = Jail { program, uid: user.as_raw(), gid: group.as_raw() };
        let jailed =
            Firecracker { program: PROGRAM.into(), version: "1.17.0".into(), jail: Some(jail) };
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let spec = MachineSpec {
            kernel: file.clone(),
            initramfs: file,
            cpus: 1,
            memory_mib: 128,
            disks: Vec::new(),
            interface: false,
            kernel_args: Vec::new(),
        };
        let api = async {
            // In place of the jailed program, which opens its log when it is asked to.
            while !root.join("open").exists() {
                sleep(Duration::from_millis(1)).await;
            }
            let listener = UnixListener::bind(root.join(SOCKET)).unwrap();
            answer(listener.accept().await.unwrap().0).await
        };
        let launch =
            Launch { memory: Memory::Fresh, spec: &spec, run_dir: &run_dir, attachment: None };
        let life = async {
            let mut machine = jailed.launch(launch).await.unwrap();
            std::fs::write(root.join("go"), "").unwrap();
            timeout(Duration::from_secs(60), machine.process.ended()).await.unwrap()
        };
        let (death, first) = tokio::join!(life, api);
        let Error::VmmDied { status, stderr, .. } = death else { panic!("{death:?}") };
        assert!(status.contains("status 7"), "{status}");
        assert!(stderr.ends_with("what is wrong"), "{stderr}");
        assert!(first.starts_with("PUT /logger "), "{first}");
        assert!(first.contains(r#""log_path":"log""#), "{first}");
    }
}
