//! The machines of agents: kept, restored from a snapshot, with a workspace of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use fireclaw_image::{Home, Manifest};
use fireclaw_protocol::message::{ExecEvent, ExecRequest, ExitStatus};
use fireclaw_template::Template;
use fireclaw_vm::probe::{Cache, Choice, Prober};
use fireclaw_vm::snapshot::{Recipe, Store};
use fireclaw_vm::{
    Commands, Disk, Guest, Launch, Launcher, Machine, MachineSpec, Memory, ProcessStamp, RunDir,
    Waiting,
};
use tokio::io::AsyncReadExt;

use crate::{Error, Result};

/// How long mounting a workspace may take, a check of its file system included.
const MOUNTING: Duration = Duration::from_secs(120);

/// How long a guest may take to notice that it has another host; longer each time.
const NOTICING: Duration = Duration::from_secs(2);

/// Mounts the workspace, checked first if it does not mount as it is, grown if
/// its disk has grown. As root, in the guest: a file system that a guest wrote
/// is nothing for the host to read.
const MOUNT: &str = "mkdir -p /workspace
mount -t ext4 -o nosuid,nodev /dev/vdb /workspace 2>/dev/null || {
    e2fsck -p /dev/vdb || [ $? -le 2 ] || exit 1
    mount -t ext4 -o nosuid,nodev /dev/vdb /workspace || exit 1
}
resize2fs /dev/vdb >/dev/null 2>&1
chown agent: /workspace && chmod 0750 /workspace";

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

    /// What starts machines of this template with this file as the workspace.
    async fn launcher(&self, template: &Template, workspace: &Path) -> Result<Launcher> {
        let boot = fireclaw_image::resolve(&self.home, Manifest::BASE_IMAGE, None)?;
        let disk = |path: &Path, read_only| Disk { path: path.to_owned(), read_only };
        let spec = MachineSpec {
            kernel: boot.kernel,
            initramfs: boot.initramfs,
            cpus: template.cpus,
            memory_mib: template.memory_mib,
            disks: vec![disk(&boot.rootfs, true), disk(workspace, false)],
            kernel_args: Vec::new(),
        };
        let run = self.home.run();
        let cache = Cache::open(&self.home.host_cache());
        let mut prober = Prober { spec: &spec, run: &run, cache };
        let backend = prober.choose(self.vmm).await?.backend;
        let patience = backend.kind().boot_patience();
        Ok(Launcher { backend, spec, run, patience })
    }

    /// Starts a machine with this id, which outlives this process.
    pub async fn start(&self, agent: &str, template: &Template, id: &str) -> Result<Guest> {
        let workspace = self.workspace(agent, template.workspace_mib)?;
        let launcher = self.launcher(template, &workspace).await?;
        let run_dir = RunDir::kept(&self.directory(), id)?;
        let snapshot = match launcher.backend.capabilities().snapshot {
            true => Some(self.snapshot(template).await?),
            false => None,
        };
        let memory = match &snapshot {
            Some(directory) => Memory::RestoredFrom(directory),
            None => Memory::Fresh,
        };
        let launch = Launch { spec: &launcher.spec, run_dir: &run_dir, memory };
        let machine = launcher.backend.launch(launch).await?;
        let waiting = Waiting::meet(machine, launcher.patience).await?;
        let guest = waiting.settle(agent).await?;
        mount(&guest).await?;
        Ok(guest)
    }

    /// Takes over a machine that an earlier daemon started.
    pub async fn adopt(
        &self,
        agent: &str,
        template: &Template,
        id: &str,
        process: ProcessStamp,
    ) -> Result<Guest> {
        let workspace = self.workspace(agent, template.workspace_mib)?;
        let launcher = self.launcher(template, &workspace).await?;
        let run_dir = RunDir::kept(&self.directory(), id)?;
        let mut wait = NOTICING;
        loop {
            let machine: Machine = launcher.backend.adopt(&run_dir, process).await?;
            // It may have been paused, and must answer now.
            machine.process.pause(false)?;
            let meeting = Waiting::meet(machine, launcher.patience);
            if let Ok(met) = tokio::time::timeout(wait, meeting).await {
                return Ok(met?.settle(agent).await?);
            }
            // A guest that stood still while one host went and another came takes the
            // second for the first. Now that one has gone, too, for long enough to be missed.
            tokio::time::sleep(wait / 4).await;
            wait *= 4;
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

    /// The ids of all machines that have left anything.
    pub fn ids(&self) -> Vec<String> {
        let entries = fs::read_dir(self.directory()).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// The snapshot from which machines of this template start. Its workspace is
    /// a blank disk of the same size, which no guest has looked into.
    async fn snapshot(&self, template: &Template) -> Result<PathBuf> {
        let blank = self.home.root().join(format!("cache/blank-{}.img", template.workspace_mib));
        sparse(&blank, template.workspace_mib)?;
        let launcher = self.launcher(template, &blank).await?;
        let recipe = Recipe {
            image: Manifest::BASE_IMAGE.into(),
            kernel: None,
            cpus: template.cpus,
            memory_mib: template.memory_mib,
            warm: None,
        };
        let store = Store::new(self.home.snapshots());
        Ok(launcher.snapshot(&store, &recipe, || ()).await?.directory)
    }

    /// An agent's workspace disk: made if it is not there, grown if it is smaller.
    fn workspace(&self, agent: &str, mib: u64) -> Result<PathBuf> {
        let directory = self.agent_directory(agent);
        fs::create_dir_all(&directory).map_err(Error::file("create", &directory))?;
        let path = directory.join("workspace.ext4");
        if path.exists() {
            sparse(&path, mib)?;
            return Ok(path);
        }
        // Under another name until it is whole.
        let fresh = directory.join("workspace.new");
        let _ = fs::remove_file(&fresh);
        sparse(&fresh, mib)?;
        format(&fresh)?;
        fs::rename(&fresh, &path).map_err(Error::file("create", &path))?;
        Ok(path)
    }
}

/// Makes a sparse file, or lets it grow; it never shrinks.
fn sparse(path: &Path, mib: u64) -> Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(Error::file("create", directory))?;
    }
    let file = fs::File::options().create(true).truncate(false).write(true).open(path);
    let file = file.map_err(Error::file("create", path))?;
    let length = file.metadata().map_err(Error::file("read", path))?.len();
    if length < mib << 20 {
        file.set_len(mib << 20).map_err(Error::file("write", path))?;
    }
    Ok(())
}

/// Makes an ext4 file system with a journal on a blank disk.
fn format(path: &Path) -> Result<()> {
    let program = fireclaw_vm::find_program("FIRECLAW_MKE2FS", "mke2fs")
        .map_err(|_| Error::Workspace("mke2fs is missing: apt-get install e2fsprogs".into()))?;
    let output = Command::new(program)
        .args(["-q", "-F", "-t", "ext4", "-m", "0", "-L", "workspace"])
        .arg(path)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| Error::System("starting mke2fs", e))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(Error::Workspace(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

async fn mount(guest: &Guest) -> Result<()> {
    let argv = ["/bin/sh", "-c", MOUNT].map(|word| word.as_bytes().to_vec().into());
    let (code, said) = run(
        &guest.commands(),
        ExecRequest { argv: argv.into(), ..ExecRequest::default() },
        MOUNTING,
    )
    .await?;
    match code {
        Some(0) => Ok(()),
        _ => Err(Error::Workspace(format!(
            "it cannot be mounted: {}",
            fireclaw_vm::escape(said.trim())
        ))),
    }
}

/// Runs a command in the guest; its exit status and the end of what it wrote.
pub async fn run(
    commands: &Commands,
    mut request: ExecRequest,
    limit: Duration,
) -> Result<(Option<u8>, String)> {
    const MOST: u64 = 64 * 1024;
    request.timeout_ms = u64::try_from(limit.as_millis()).ok();
    let talk = async {
        let mut exec = commands.exec(request).await?;
        let (mut out, mut err) = (String::new(), String::new());
        let (a, b) = tokio::join!(read(&mut exec.stdout, MOST), read(&mut exec.stderr, MOST));
        out.push_str(&a);
        err.push_str(&b);
        loop {
            let code = match exec.events.next().await? {
                ExecEvent::Started => continue,
                ExecEvent::Exited(ExitStatus::Code(code)) => Some(code),
                ExecEvent::Exited(_) => None,
                ExecEvent::Failed { message, .. } => {
                    err.push_str(&message);
                    Some(127)
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

/// Whether a command can be run.
pub async fn is_well(commands: Commands, limit: Duration) -> bool {
    let argv = vec![b"true".to_vec().into()];
    let request = ExecRequest { argv, ..ExecRequest::default() };
    run(&commands, request, limit).await.is_ok()
}

/// What comes over a channel, up to a bound; the rest is read and dropped.
async fn read(from: &mut (impl tokio::io::AsyncRead + Unpin), most: u64) -> String {
    let mut kept = Vec::new();
    let _ = from.take(most).read_to_end(&mut kept).await;
    let _ = tokio::io::copy(from, &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&kept).into_owned()
}
