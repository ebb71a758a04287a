//! The machines of agents: kept, restored from a snapshot, with a workspace of their own.

mod disks;
mod furnish;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fireclaw_image::{Home, Manifest};
use fireclaw_net::{Client, Gateway, Place, Request};
use fireclaw_policy::{HostConfig, Network};
use fireclaw_protocol::message::{ExecEvent, ExecRequest, ExitStatus};
use fireclaw_template::Template;
use fireclaw_vm::probe::{Cache, Choice, Prober};
use fireclaw_vm::snapshot::{Recipe, Snapshot, Store};
use fireclaw_vm::{
    Commands, Disk, Guest, Launch, Launcher, Machine, MachineSpec, Memory, Plug, ProcessStamp,
    RunDir, Waiting,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{Error, Result, skills};

/// How long a guest that is taken over has to answer at first; it doubles with each try.
const FIRST_GREETING: Duration = Duration::from_secs(1);

/// How long we are away between two tries, for a guest to notice.
const ABSENCE: Duration = Duration::from_millis(100);

/// The mark, in a machine's directory, of one that the state does not know and that is left
/// alone while it runs.
const SPARED: &str = "spared";

/// What stands at the end of a command's output if the machine's memory ran out.
const OUT_OF_MEMORY: &str = "\n[the machine's memory ran out, and its kernel killed a process]\n";

/// The files behind a machine's own disks.
struct Disks {
    workspace: PathBuf,
    scratch: PathBuf,
}

/// Makes and finds machines.
#[derive(Debug)]
pub struct Machines {
    home: Home,
    vmm: Choice,
}

impl Machines {
    /// Machines under a home.
    pub fn new(home: Home, vmm: Choice) -> Self {
        Self { home, vmm }
    }

    /// Where the directories of machines are.
    pub fn directory(&self) -> PathBuf {
        self.home.root().join("machines")
    }

    /// What belongs to an agent whether it runs or not.
    pub fn agent_directory(&self, agent: &str) -> PathBuf {
        self.home.root().join("agents").join(agent)
    }

    /// What starts machines of this template with these disks.
    async fn launcher(&self, template: &Template, disks: &Disks) -> Result<Launcher> {
        let boot = fireclaw_image::resolve(&self.home, Manifest::BASE_IMAGE, None)?;
        let disk = |path: &Path, read_only| Disk { path: path.to_owned(), read_only };
        let spec = MachineSpec {
            kernel: boot.kernel,
            initramfs: boot.initramfs,
            cpus: template.cpus,
            memory_mib: template.memory_mib,
            // The order is that of the devices in the guest: see [`furnish`].
            disks: vec![
                disk(&boot.rootfs, true),
                disk(&disks.workspace, false),
                disk(&disks.scratch, false),
            ],
            card: template.network != Network::None,
            kernel_args: Vec::new(),
        };
        let run = self.home.run();
        let cache = Cache::open(&self.home.host_cache());
        let mut prober = Prober { spec: &spec, run: &run, cache };
        let backend = prober.choose(self.vmm).await?.backend;
        let patience = backend.kind().boot_patience();
        Ok(Launcher { backend, spec, run, patience })
    }

    /// Starts a machine with this id and network policy, which outlives this process.
    /// What people should know of it goes to `tell`.
    pub async fn start(
        &self,
        agent: &str,
        template: &Template,
        policy: Network,
        id: &str,
        tell: impl Fn(&str),
    ) -> Result<Guest> {
        let run_dir = RunDir::kept(&self.directory(), id)?;
        let disks = self.disks(agent, id);
        disks::workspace(&disks.workspace, template.workspace_mib)?;
        disks::scratch(&disks.scratch, template.disk_mib)?;
        let skills = self.skills(template)?;
        let launcher = self.launcher(template, &disks).await?;
        let gateway = self.open_gateway(agent, &launcher, policy, &run_dir).await?;
        let plug = gateway.as_ref().map(Gateway::plug);
        let snapshot = match launcher.backend.capabilities().snapshot {
            // Without one it boots.
            true => match self.snapshot(template, run_dir.path(), plug).await {
                Ok(snapshot) => Some(snapshot),
                Err(e) => {
                    tell(&format!("{agent}: no snapshot could be made, so it boots: {e}"));
                    None
                }
            },
            false => None,
        };
        let memory = match &snapshot {
            Some(snapshot) => Memory::RestoredFrom(&snapshot.directory),
            None => Memory::Fresh,
        };
        let launch = Launch { spec: &launcher.spec, run_dir: &run_dir, memory, plug };
        let coming = async {
            let machine = launcher.backend.launch(launch).await?;
            let waiting = Waiting::meet(machine, launcher.patience).await?;
            waiting.settle(agent, gateway.as_ref().map(|it| it.card().into())).await
        };
        let guest = match (coming.await, &snapshot) {
            (Ok(guest), _) => guest,
            (Err(e), snapshot) => {
                // The next try makes another where this one is to blame.
                if let Some(snapshot) = snapshot
                    && let Err(e) = Store::new(self.home.snapshots()).failed(&snapshot.id, &e)
                {
                    tell(&format!("{agent}: its snapshot could not be removed: {e}"));
                }
                return Err(e.into());
            }
        };
        if let (Some(gateway), Some(monitor)) = (gateway, guest.stamp()) {
            gateway.belongs_to(monitor).await?;
        }
        let commands = guest.commands();
        let keep = || {
            let copy = disks::keep(&disks.workspace)?;
            tell(&format!(
                "{agent}: its workspace is damaged and is being mended; as it was, it is kept in {}",
                copy.display()
            ));
            Ok(())
        };
        furnish::workspace(&commands, keep).await?;
        furnish::scratch(&commands).await?;
        furnish::skills(&commands, &skills).await?;
        Ok(guest)
    }

    /// Takes over a machine that an earlier daemon started.
    pub async fn adopt(
        &self,
        agent: &str,
        template: &Template,
        policy: Network,
        id: &str,
        process: ProcessStamp,
    ) -> Result<Guest> {
        let launcher = self.launcher(template, &self.disks(agent, id)).await?;
        let run_dir = RunDir::kept(&self.directory(), id)?;
        let card = match policy {
            Network::None => None,
            // A machine whose gateway is gone, or that never had one, is of no use.
            policy => {
                let gateway = self.gateway(id);
                let card = gateway.status().await?.card;
                gateway.set_policy(&policy).await?;
                Some(card.into())
            }
        };
        let mut patience = FIRST_GREETING;
        loop {
            let machine: Machine = launcher.backend.adopt(&run_dir, process).await?;
            // It may have been paused, and must answer now.
            machine.process.pause(false)?;
            let met =
                async { Waiting::meet(machine, patience).await?.settle(agent, card.clone()).await };
            match met.await {
                // A monitor that was stopped heard that the last host had gone and that
                // we had come at once, and its guest noticed neither. Let it see us go.
                Err(fireclaw_vm::Error::GuestSilent { .. }) if patience < launcher.patience => {
                    tokio::time::sleep(ABSENCE).await;
                    patience *= 2;
                }
                met => return Ok(met?),
            }
        }
    }

    /// The network of a machine that is about to be started; none if it needs none.
    async fn open_gateway(
        &self,
        agent: &str,
        launcher: &Launcher,
        policy: Network,
        run_dir: &RunDir,
    ) -> Result<Option<Gateway>> {
        if policy == Network::None {
            return Ok(None);
        }
        let home = self.home.root();
        let place = Place::here();
        let request = Request {
            policy,
            config: HostConfig::load(home).map_err(fireclaw_net::Error::from)?,
            owner: agent.to_owned(),
            directory: run_dir.path().to_owned(),
            place,
            state: place.state_directory(home),
            plug: launcher.backend.capabilities().plug,
            user: None,
        };
        Ok(Some(Gateway::open(request).await?))
    }

    /// What asks the gateway of a machine.
    pub fn gateway(&self, id: &str) -> Client {
        Client::new(self.directory().join(id))
    }

    /// Gives a machine its template's skills as they are now.
    ///
    /// # Errors
    /// [`Error::Skills`], [`Error::File`].
    pub async fn refresh_skills(&self, commands: &Commands, template: &Template) -> Result<()> {
        furnish::skills(commands, &self.skills(template)?).await
    }

    fn skills(&self, template: &Template) -> Result<Vec<u8>> {
        skills::pack(&self.home.root().join("templates"), &template.skills)
    }

    fn disks(&self, agent: &str, id: &str) -> Disks {
        Disks {
            workspace: self.agent_directory(agent).join("workspace.ext4"),
            // It goes with the machine.
            scratch: self.directory().join(id).join("scratch.ext4"),
        }
    }

    /// Ends whatever carries this id and removes its directory.
    pub fn clear(&self, id: &str) -> Result<()> {
        fireclaw_vm::kill_marked(id);
        let directory = self.directory().join(id);
        match fs::remove_dir_all(&directory) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::file("remove", directory)(e))
            }
            _ => Ok(()),
        }
    }

    /// Marks a machine as one that is not to be cleared away while it runs.
    pub fn spare(&self, id: &str) -> Result<()> {
        let mark = self.directory().join(id).join(SPARED);
        fs::write(&mark, "").map_err(Error::file("write", mark))
    }

    /// Whether it has that mark.
    pub fn is_spared(&self, id: &str) -> bool {
        self.directory().join(id).join(SPARED).exists()
    }

    /// The ids of all machines that have left anything.
    pub fn ids(&self) -> Vec<String> {
        let entries = fs::read_dir(self.directory()).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// The snapshot from which machines of this template start. Its disks are blank
    /// ones of the same sizes, which no guest has looked into; should it have to be
    /// made, they are in the directory of the machine that is the first to want it.
    async fn snapshot(
        &self,
        template: &Template,
        directory: &Path,
        plug: Option<&Plug>,
    ) -> Result<Snapshot> {
        let disks = Disks {
            workspace: directory.join("blank-workspace.img"),
            scratch: directory.join("blank-scratch.img"),
        };
        disks::sparse(&disks.workspace, template.workspace_mib)?;
        disks::sparse(&disks.scratch, template.disk_mib)?;
        let launcher = self.launcher(template, &disks).await?;
        let recipe = Recipe {
            image: Manifest::BASE_IMAGE.into(),
            kernel: None,
            cpus: template.cpus,
            memory_mib: template.memory_mib,
            card: template.network != Network::None,
            warm: None,
        };
        let store = Store::new(self.home.snapshots());
        Ok(launcher.snapshot(&store, &recipe, plug, || ()).await?)
    }
}

/// Runs a command in the guest; its exit status and the end of what it wrote.
pub async fn run(
    commands: &Commands,
    request: ExecRequest,
    limit: Duration,
) -> Result<(Option<u8>, String)> {
    run_with(commands, request, &[], limit).await
}

/// The same with something on its standard input.
async fn run_with(
    commands: &Commands,
    mut request: ExecRequest,
    input: &[u8],
    limit: Duration,
) -> Result<(Option<u8>, String)> {
    const MOST: u64 = 64 * 1024;
    request.timeout_ms = u64::try_from(limit.as_millis()).ok();
    let talk = async {
        let mut exec = commands.exec(request).await?;
        let (mut out, mut err) = (String::new(), String::new());
        let feed = async {
            // A command need not read what it gets.
            let _ = exec.stdin.write_all(input).await;
            let _ = exec.stdin.shutdown().await;
        };
        let (a, b, ()) =
            tokio::join!(read(&mut exec.stdout, MOST), read(&mut exec.stderr, MOST), feed);
        out.push_str(&a);
        err.push_str(&b);
        loop {
            let event = exec.events.next().await?;
            if event.is_out_of_memory() {
                err.push_str(OUT_OF_MEMORY);
            }
            let code = match event {
                ExecEvent::Started => continue,
                ExecEvent::Exited(ExitStatus::Code(code), _) => Some(code),
                ExecEvent::Exited(..) => None,
                ExecEvent::Failed { cause, message } => {
                    err.push_str(&message);
                    Some(cause.status())
                }
            };
            return Ok::<_, fireclaw_protocol::Error>((code, out + &err));
        }
    };
    match tokio::time::timeout(limit + Duration::from_secs(10), talk).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(e)) => Err(Error::Workspace(e.to_string())),
        Err(_) => Err(Error::Workspace("the guest does not answer".into())),
    }
}

/// Has a machine that is about to be ended write everything to its disks.
///
/// # Errors
/// [`Error::Workspace`] if something may be lost.
pub fn leave(guest: &Guest) -> impl Future<Output = Result<()>> + use<> {
    // One that was stopped where it is would not hear of it.
    let goes_on = guest.pause(false);
    let commands = guest.commands();
    async move {
        goes_on?;
        furnish::leave(&commands).await
    }
}

/// How a machine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It answers.
    Well,
    /// It does not.
    Silent,
    /// Nothing can be written to its workspace: Linux mounts a file system read-only after
    /// an error of its disk.
    ReadOnly,
}

/// Asks a machine how it is. Only what it says plainly counts: whoever is root in it may
/// have removed its programs, or filled its memory, and is not to lose the machine for it.
pub async fn health(commands: Commands, limit: Duration) -> Health {
    const FIND: [&str; 4] = ["grep", "-q", "^[^ ]* /workspace [^ ]* ro[, ]", "/proc/mounts"];
    let argv = FIND.map(|word| word.as_bytes().to_vec().into());
    let request = ExecRequest { argv: argv.into(), ..ExecRequest::default() };
    match run(&commands, request, limit).await {
        Ok((Some(0), _)) => Health::ReadOnly,
        Ok(_) => Health::Well,
        Err(_) => Health::Silent,
    }
}

/// What comes over a channel, up to a bound; the rest is read and dropped.
async fn read(from: &mut (impl tokio::io::AsyncRead + Unpin), most: u64) -> String {
    let mut kept = Vec::new();
    let _ = from.take(most).read_to_end(&mut kept).await;
    let _ = tokio::io::copy(from, &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&kept).into_owned()
}
