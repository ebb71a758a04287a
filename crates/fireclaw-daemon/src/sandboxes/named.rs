//! The VMs of named sandboxes: detached, each with a disk that keeps its root.

use std::path::PathBuf;

use fireclaw_protocol::message::ExecRequest;
use fireclaw_sandbox::{OwnDisk, Plan, SandboxSpec, Start, disks};
use fireclaw_vm::Guest;

use super::exec::run;
use super::vms::{Told, Vms};
use super::{GUEST, ROOT_LIMIT};
use crate::state::SandboxRow;
use crate::{Error, Result};

/// The disk in the guest: the one after the image's.
const DISK: &str = "/dev/vdb";

impl Vms {
    /// What belongs to a sandbox whether it runs or not.
    pub fn sandbox_directory(&self, id: &str) -> PathBuf {
        self.sandboxes().join(id)
    }

    /// Where the directories of sandboxes are.
    pub fn sandboxes(&self) -> PathBuf {
        self.home().root().join("sandboxes")
    }

    fn sandbox_disk(&self, id: &str) -> PathBuf {
        self.sandbox_directory(id).join("disk.ext4")
    }

    async fn sandbox_plan(&self, row: &SandboxRow, tell: &dyn Fn(&str)) -> Result<Plan> {
        let disk = OwnDisk { path: self.sandbox_disk(&row.id), mib: row.config.disk_mib };
        let spec = SandboxSpec { disks: vec![disk], ..row.config.spec() };
        let (home, id) = (self.home().clone(), row.id.clone());
        let files = disks::apart(move || Ok(fireclaw_image::resolve_pinned(&home, &id, None)?));
        let plan = self.host().plan_with(spec, files.await?).await?;
        Ok(self.tell_once(plan, tell))
    }

    /// Starts the VM of a sandbox as `machine`.
    pub async fn start_sandbox(
        &self,
        row: &SandboxRow,
        machine: &str,
        tell: &dyn Fn(&str),
    ) -> Result<Guest> {
        let run_dir = self.run_dir(machine).await?;
        disks::lasting(&self.sandbox_disk(&row.id), row.config.disk_mib, "sandbox").await?;
        let plan = self.sandbox_plan(row, tell).await?;
        let start = Start { detached: Some((&run_dir, &row.name)), ..Start::default() };
        let mut watch = Told { name: &row.name, tell };
        let guest = plan.start(start, &mut watch).await?.guest;
        let argv = [GUEST, "root", DISK].map(|word| word.as_bytes().to_vec().into());
        let request = ExecRequest { argv: argv.into(), ..ExecRequest::default() };
        match run(&guest.commands(), request, ROOT_LIMIT).await? {
            (Some(0), _) => Ok(guest),
            (_, said) => Err(Error::Workspace(fireclaw_host::escape(said.trim()))),
        }
    }

    /// Takes over the VM of a sandbox that an earlier daemon started.
    ///
    /// Legal for a row that has a VM and its process.
    pub async fn adopt_sandbox(&self, row: &SandboxRow, tell: &dyn Fn(&str)) -> Result<Guest> {
        let gone = || Error::Workspace("its VM is not known".into());
        let machine = row.machine.as_ref().ok_or_else(gone)?;
        let process = row.process.ok_or_else(gone)?;
        let plan = self.sandbox_plan(row, tell).await?;
        let run_dir = self.run_dir(machine).await?;
        Ok(plan.adopt(&run_dir, &row.name, process).await?)
    }
}
