//! The VMs of agents: detached, each with a workspace of its own.

use std::cell::Cell;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use fireclaw_host::{PathError, ProcessStamp};
use fireclaw_image::Home;
use fireclaw_net::Client;
use fireclaw_policy::Network;
use fireclaw_protocol::message::ExecRequest;
use fireclaw_sandbox::{Host, OwnDisk, Plan, SandboxSpec, Start, Watch, disks};
use fireclaw_template::Template;
use fireclaw_vm::probe::Choice;
use fireclaw_vm::{Commands, Guest, RunDir};
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;

use super::exec::run;
use super::{Health, Program, Request, Sandbox, Sandboxes, provision};
use crate::{Result, skills};

/// The mark, in a VM's directory, of one that the state does not know and that is left
/// alone while it runs.
const SPARED: &str = "spared";

/// The end of the name of an agent's directory that is being removed: no name has a dot.
const GONE: &str = ".gone";

/// How long a VM may take to say how it is.
const HEALTH_LIMIT: Duration = Duration::from_secs(60);

/// Makes and finds the VMs of agents.
#[derive(Debug)]
pub struct Vms {
    host: Host,
    /// Whether what should be known of the VMM was told.
    has_told: Cell<bool>,
}

/// Tells people what goes another way than usual while a VM starts.
pub(super) struct Told<'a> {
    /// Whose it is.
    pub name: &'a str,
    /// Who is told.
    pub tell: &'a dyn Fn(&str),
}

impl Watch for Told<'_> {
    fn note(&mut self, text: String) {
        (self.tell)(&format!("{}: {text}", self.name));
    }
}

impl Vms {
    /// Those under a home.
    pub fn new(home: Home, vmm: Choice) -> Self {
        let host = Host { vmm, ..Host::new(home) };
        Self { host, has_told: Cell::new(false) }
    }

    /// Where the directories of VMs are.
    pub fn directory(&self) -> PathBuf {
        self.host.home.root().join("machines")
    }

    pub(super) fn host(&self) -> &Host {
        &self.host
    }

    pub(super) fn home(&self) -> &Home {
        &self.host.home
    }

    /// Tells what should be known of the VMM, once.
    pub(super) fn tell_once(&self, mut plan: Plan, tell: &dyn Fn(&str)) -> Plan {
        if let Some(note) = plan.note.take()
            && !self.has_told.replace(true)
        {
            tell(&note);
        }
        plan
    }

    /// The directory of one, made if it is not there.
    pub(super) async fn run_dir(&self, id: &str) -> Result<RunDir> {
        let (machines, id) = (self.directory(), id.to_owned());
        Ok(disks::apart(move || Ok(RunDir::detached(&machines, &id)?)).await?)
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

    /// Removes what was taken away. What is left of it goes with [`Vms::sweep`].
    pub async fn remove(&self, gone: PathBuf) -> Result<()> {
        let removed = disks::apart(move || {
            Ok(fs::remove_dir_all(&gone).map_err(|e| PathError::at("remove", gone)(e)))
        });
        Ok(removed.await??)
    }

    /// Removes what is left of agents that were being removed.
    pub async fn sweep(&self) -> Result<()> {
        let agents = self.home().root().join("agents");
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

    /// What starts VMs of this template for an agent.
    async fn plan(&self, wanted: &Request<'_>, tell: &dyn Fn(&str)) -> Result<Plan> {
        let Request { agent, template, policy, id } = wanted;
        let spec = SandboxSpec {
            cpus: template.cpus,
            memory_mib: template.memory_mib,
            // The order is that of the devices in the guest: see [`provision`].
            disks: vec![
                OwnDisk { path: self.workspace(agent), mib: template.workspace_mib },
                OwnDisk { path: self.scratch(id), mib: template.disk_mib },
            ],
            network: policy.clone(),
            ..SandboxSpec::default()
        };
        Ok(self.tell_once(self.host.plan(spec).await?, tell))
    }

    async fn start(&self, wanted: Request<'_>, tell: &dyn Fn(&str)) -> Result<Guest> {
        let Request { agent, template, id, .. } = wanted;
        let run_dir = self.run_dir(id).await?;
        let (workspace, scratch) = (self.workspace(agent), self.scratch(id));
        disks::lasting(&workspace, template.workspace_mib, "workspace").await?;
        disks::passing(&scratch, template.disk_mib, "scratch").await?;
        let skills = self.skills(template).await?;
        let plan = self.plan(&wanted, tell).await?;
        let start = Start { detached: Some((&run_dir, agent)), ..Start::default() };
        let guest = plan.start(start, &mut Told { name: agent, tell }).await?.guest;
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

    async fn adopt(
        &self,
        wanted: Request<'_>,
        process: ProcessStamp,
        tell: &dyn Fn(&str),
    ) -> Result<Guest> {
        let plan = self.plan(&wanted, tell).await?;
        let run_dir = self.run_dir(wanted.id).await?;
        Ok(plan.adopt(&run_dir, wanted.agent, process).await?)
    }

    /// What asks the gateway of a VM.
    pub fn gateway(&self, id: &str) -> Client {
        Client::new(self.directory().join(id))
    }

    async fn skills(&self, template: &Template) -> Result<Vec<u8>> {
        let (templates, skills) =
            (self.host.home.root().join("templates"), template.skills.clone());
        disks::apart(move || Ok(skills::pack(&templates, &skills))).await?
    }

    fn workspace(&self, agent: &str) -> PathBuf {
        self.agent_directory(agent).join("workspace.ext4")
    }

    /// It goes with the VM.
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

    /// Marks a VM as one that is not to be cleared away while it runs.
    pub fn spare(&self, id: &str) -> Result<()> {
        let mark = self.directory().join(id).join(SPARED);
        Ok(fs::write(&mark, "").map_err(PathError::at("write", mark))?)
    }

    /// Whether it has that mark.
    pub fn is_spared(&self, id: &str) -> bool {
        self.directory().join(id).join(SPARED).exists()
    }

    /// The ids of all VMs that have left anything.
    pub fn ids(&self) -> Vec<String> {
        let entries = fs::read_dir(self.directory()).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }
}

impl Sandboxes for Vms {
    fn agent_directory(&self, agent: &str) -> PathBuf {
        self.agent_directory(agent)
    }

    fn start<'a>(
        &'a self,
        wanted: Request<'a>,
        tell: &'a dyn Fn(&str),
    ) -> LocalBoxFuture<'a, Result<Box<dyn Sandbox>>> {
        async { Ok(Box::new(self.start(wanted, tell).await?) as Box<dyn Sandbox>) }.boxed_local()
    }

    fn adopt<'a>(
        &'a self,
        wanted: Request<'a>,
        process: ProcessStamp,
        tell: &'a dyn Fn(&str),
    ) -> LocalBoxFuture<'a, Result<Box<dyn Sandbox>>> {
        let adopted = self.adopt(wanted, process, tell);
        async { Ok(Box::new(adopted.await?) as Box<dyn Sandbox>) }.boxed_local()
    }

    fn clear<'a>(&'a self, id: &'a str) -> LocalBoxFuture<'a, Result<()>> {
        self.clear(id).boxed_local()
    }

    fn set_policy<'a>(&'a self, id: &'a str, policy: Network) -> LocalBoxFuture<'a, Result<()>> {
        async move { Ok(self.gateway(id).set_policy(&policy).await?) }.boxed_local()
    }

    fn refresh_skills<'a>(
        &'a self,
        commands: &'a Commands,
        template: &'a Template,
    ) -> LocalBoxFuture<'a, Result<()>> {
        async { provision::skills(commands, &self.skills(template).await?).await }.boxed_local()
    }
}

impl Sandbox for Guest {
    fn vmm_pid(&self) -> Option<u32> {
        self.vmm_pid()
    }

    fn stamp(&self) -> Option<ProcessStamp> {
        self.stamp()
    }

    fn commands(&self) -> Commands {
        self.commands()
    }

    fn program<'a>(&'a self, command: &'a [String]) -> LocalBoxFuture<'a, Result<Program>> {
        async { Program::start(&self.commands(), command).await }.boxed_local()
    }

    fn pause(&self, paused: bool) -> Result<()> {
        Ok(self.pause(paused)?)
    }

    fn died(&mut self) -> LocalBoxFuture<'_, String> {
        async { self.died().await.to_string() }.boxed_local()
    }

    fn save(&self) -> LocalBoxFuture<'static, Result<()>> {
        // One that was stopped where it is would not hear of it.
        let goes_on = self.pause(false);
        let commands = self.commands();
        async move {
            goes_on?;
            provision::leave(&commands).await
        }
        .boxed_local()
    }

    fn health(&self) -> LocalBoxFuture<'static, Health> {
        health(self.commands()).boxed_local()
    }
}

/// Asks a VM how it is. Only what it says plainly counts: whoever is root in it may
/// have removed its programs, or filled its memory, and is not to lose the VM for it.
async fn health(commands: Commands) -> Health {
    const FIND: [&str; 4] = ["grep", "-q", "^[^ ]* /workspace [^ ]* ro[, ]", "/proc/mounts"];
    let argv = FIND.map(|word| word.as_bytes().to_vec().into());
    let request = ExecRequest { argv: argv.into(), ..ExecRequest::default() };
    match run(&commands, request, HEALTH_LIMIT).await {
        Ok((Some(0), _)) => Health::ReadOnly,
        Ok(_) => Health::Well,
        Err(_) => Health::Silent,
    }
}
