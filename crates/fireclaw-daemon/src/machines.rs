//! The machines of agents: sandboxes that are detached, each with a workspace of its own.

mod provision;

use std::cell::Cell;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use fireclaw_host::{PathError, ProcessStamp};
use fireclaw_image::Home;
use fireclaw_net::Client;
use fireclaw_policy::Network;
use fireclaw_protocol::message::{ExecEvent, ExecRequest, ExitStatus};
use fireclaw_sandbox::{Host, OwnDisk, Plan, SandboxSpec, Start, Watch, disks};
use fireclaw_template::Template;
use fireclaw_vm::probe::Choice;
use fireclaw_vm::{Commands, Guest, RunDir};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{Error, Result, skills};

/// The mark, in a machine's directory, of one that the state does not know and that is left
/// alone while it runs.
const SPARED: &str = "spared";

/// The end of the name of an agent's directory that is being removed: no name has a dot.
const GONE: &str = ".gone";

/// What stands at the end of a command's output if the guest ran out of memory.
const OUT_OF_MEMORY: &str = "\n[the guest ran out of memory, and its kernel killed a process]\n";

/// Makes and finds machines.
#[derive(Debug)]
pub struct Machines {
    host: Host,
    /// Whether what should be known of the VMM was told.
    has_told: Cell<bool>,
}

/// Tells people what goes another way than usual while a machine starts.
struct Told<'a> {
    agent: &'a str,
    tell: &'a dyn Fn(&str),
}

impl Watch for Told<'_> {
    fn note(&mut self, text: String) {
        (self.tell)(&format!("{}: {text}", self.agent));
    }
}

impl Machines {
    /// Machines under a home.
    pub fn new(home: Home, vmm: Choice) -> Self {
        let host = Host { vmm, ..Host::new(home) };
        Self { host, has_told: Cell::new(false) }
    }

    /// Where the directories of machines are.
    pub fn directory(&self) -> PathBuf {
        self.host.home.root().join("machines")
    }

    /// What belongs to an agent whether it runs or not.
    pub fn agent_directory(&self, agent: &str) -> PathBuf {
        self.host.home.root().join("agents").join(agent)
    }

    /// Takes away what an agent that no longer runs has left: workspace, memories, log. The
    /// next one of this name begins with nothing. Where it is, to be removed; none if there
    /// was nothing.
    pub fn take_away(&self, agent: &str) -> Result<Option<PathBuf>> {
        let directory = self.agent_directory(agent);
        let gone = directory.with_file_name(format!("{agent}.{}{GONE}", RunDir::fresh_id()?));
        match fs::rename(&directory, &gone) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(PathError::at("remove", directory)(e).into()),
            Ok(()) => Ok(Some(gone)),
        }
    }

    /// Removes what was taken away. What is left of it goes with [`Machines::sweep`].
    pub async fn remove(&self, gone: PathBuf) -> Result<()> {
        let removed = disks::apart(move || {
            Ok(fs::remove_dir_all(&gone).map_err(|e| PathError::at("remove", gone)(e)))
        });
        Ok(removed.await??)
    }

    /// Removes what is left of agents that were being removed.
    pub async fn sweep(&self) -> Result<()> {
        let agents = self.host.home.root().join("agents");
        let swept = disks::apart(move || {
            for entry in fs::read_dir(agents).into_iter().flatten().flatten() {
                if entry.file_name().to_str().is_some_and(|name| name.ends_with(GONE)) {
                    let _ = fs::remove_dir_all(entry.path());
                }
            }
            Ok(())
        });
        Ok(swept.await?)
    }

    /// What starts machines of this template for an agent.
    async fn plan(
        &self,
        agent: &str,
        template: &Template,
        policy: Network,
        id: &str,
        tell: &dyn Fn(&str),
    ) -> Result<Plan> {
        let spec = SandboxSpec {
            cpus: template.cpus,
            memory_mib: template.memory_mib,
            // The order is that of the devices in the guest: see [`provision`].
            disks: vec![
                OwnDisk { path: self.workspace(agent), mib: template.workspace_mib },
                OwnDisk { path: self.scratch(id), mib: template.disk_mib },
            ],
            network: policy,
            ..SandboxSpec::default()
        };
        let mut plan = self.host.plan(spec).await?;
        if let Some(note) = plan.note.take()
            && !self.has_told.replace(true)
        {
            tell(&note);
        }
        Ok(plan)
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
        let run_dir = RunDir::detached(&self.directory(), id)?;
        let (workspace, scratch) = (self.workspace(agent), self.scratch(id));
        disks::lasting(&workspace, template.workspace_mib, "workspace").await?;
        disks::passing(&scratch, template.disk_mib, "scratch").await?;
        let skills = self.skills(template).await?;
        let plan = self.plan(agent, template, policy, id, &tell).await?;
        let start = Start { detached: Some((&run_dir, agent)), ..Start::default() };
        let guest = plan.start(start, &mut Told { agent, tell: &tell }).await?.guest;
        let commands = guest.commands();
        let keep = async || {
            let copy = workspace.with_extension("damaged");
            disks::copy(&workspace, &copy).await?;
            tell(&format!(
                "{agent}: its workspace is damaged and is being mended; as it was, it is kept in {}",
                copy.display()
            ));
            Ok(())
        };
        provision::workspace(&commands, keep).await?;
        provision::scratch(&commands).await?;
        provision::skills(&commands, &skills).await?;
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
        tell: impl Fn(&str),
    ) -> Result<Guest> {
        let plan = self.plan(agent, template, policy, id, &tell).await?;
        let run_dir = RunDir::detached(&self.directory(), id)?;
        Ok(plan.adopt(&run_dir, agent, process).await?)
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
        provision::skills(commands, &self.skills(template).await?).await
    }

    async fn skills(&self, template: &Template) -> Result<Vec<u8>> {
        let (templates, skills) =
            (self.host.home.root().join("templates"), template.skills.clone());
        disks::apart(move || Ok(skills::pack(&templates, &skills))).await?
    }

    fn workspace(&self, agent: &str) -> PathBuf {
        self.agent_directory(agent).join("workspace.ext4")
    }

    /// It goes with the machine.
    fn scratch(&self, id: &str) -> PathBuf {
        self.directory().join(id).join("scratch.ext4")
    }

    /// Ends whatever carries this id and removes its directory.
    pub async fn clear(&self, id: &str) -> Result<()> {
        let (id, directory) = (id.to_owned(), self.directory().join(id));
        let cleared = disks::apart(move || {
            fireclaw_vm::kill_marked(&id);
            Ok(match fs::remove_dir_all(&directory) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    Err(PathError::at("remove", directory)(e))
                }
                _ => Ok(()),
            })
        });
        Ok(cleared.await??)
    }

    /// Marks a machine as one that is not to be cleared away while it runs.
    pub fn spare(&self, id: &str) -> Result<()> {
        let mark = self.directory().join(id).join(SPARED);
        Ok(fs::write(&mark, "").map_err(PathError::at("write", mark))?)
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
        provision::leave(&commands).await
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
