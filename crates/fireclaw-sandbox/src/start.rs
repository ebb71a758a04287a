//! Starts a sandbox as fast as this host can.

use fireclaw_policy::HostConfig;
use fireclaw_vm::snapshot::{Snapshot, Store};
use fireclaw_vm::{Guest, Memory, RunDir, TapAttachment, Waiting, fresh_hostname, pool};
use tracing::debug;

use crate::disks::apart;
use crate::{Error, Phase, Plan, Result, SandboxNetwork, Watch};

/// How a sandbox is started.
#[derive(Debug, Default)]
pub struct Start<'a> {
    /// Its directory and name, if it is to outlive us: it then has that host name. Another
    /// is gone with us, and its name is fresh.
    pub detached: Option<(&'a RunDir, &'a str)>,
    /// Whether it boots, even if that is slower.
    pub from_cold: bool,
    /// What the host lets networks do, if it is not what the data directory says.
    pub network_config: Option<&'a HostConfig>,
}

/// A guest with all that is its own. Dropping it ends it, unless it is detached.
#[derive(Debug)]
pub struct Sandbox {
    /// The guest.
    pub guest: Guest,
    network: Option<SandboxNetwork>,
}

impl Sandbox {
    /// Its network, if it has one that ends with us.
    pub fn network(&self) -> Option<&SandboxNetwork> {
        self.network.as_ref()
    }

    /// Ends it and waits until nothing of it is left.
    ///
    /// # Errors
    /// What could not be ended.
    pub async fn end(self) -> Result<()> {
        let killed = self.guest.kill().await;
        if let Some(network) = self.network {
            network.close().await?;
        }
        Ok(killed?)
    }
}

impl Plan {
    /// Starts a sandbox: one that waits in a pool, else from its snapshot, else from cold.
    ///
    /// A snapshot that fails is thrown away, unless its guest was only slow, and the sandbox
    /// boots. Only one that was warmed must start from its snapshot: without it, it is
    /// something else, so that snapshot is made anew.
    ///
    /// # Errors
    /// [`Error::Vm`], [`Error::Network`], [`Error::File`]; [`Error::NoSnapshots`] for one that
    /// was warmed.
    pub async fn start(&self, start: Start<'_>, watch: &mut impl Watch) -> Result<Sandbox> {
        let network = self.open_network(start.detached, start.network_config).await?;
        if network.is_some() {
            watch.ends(Phase::Network);
        }
        let coming = Coming { plan: self, start: &start, network: network.as_ref() };
        let guest = coming.fastest(watch).await?;
        match (start.detached, network, guest.stamp()) {
            (Some(_), Some(network), Some(vmm)) => {
                network.belongs_to(vmm).await?;
                Ok(Sandbox { guest, network: None })
            }
            (_, network, _) => Ok(Sandbox { guest, network }),
        }
    }
}

/// A sandbox on its way.
struct Coming<'a> {
    plan: &'a Plan,
    start: &'a Start<'a>,
    network: Option<&'a SandboxNetwork>,
}

impl Coming<'_> {
    fn attachment(&self) -> Option<&TapAttachment> {
        self.network.map(SandboxNetwork::attachment)
    }

    fn detached(&self) -> Option<&RunDir> {
        self.start.detached.map(|(run_dir, _)| run_dir)
    }

    async fn fastest(&self, watch: &mut impl Watch) -> Result<Guest> {
        let must_be_restored = self.plan.spec.warm.is_some();
        if self.start.from_cold || self.plan.needs_snapshots().is_err() {
            if must_be_restored {
                self.plan.needs_snapshots()?;
            }
            return self.cold(watch).await;
        }
        if let Some(guest) = self.pooled(watch).await? {
            return Ok(guest);
        }
        match self.plan.snapshot(self.attachment(), || watch.makes_snapshot()).await {
            Ok(snapshot) => match self.restored(&snapshot, watch).await {
                Ok(guest) => return Ok(guest),
                // The snapshot is kept, and the next try finds it.
                Err(e) if must_be_restored && !is_to_blame(&e) => return Err(e),
                Err(e) => {
                    let instead = if must_be_restored { "is made anew" } else { "boots" };
                    watch.note(format!("the snapshot could not be used, so it {instead}: {e}"));
                    self.clear_failed(&snapshot, e, watch).await;
                    if must_be_restored {
                        let snapshot = self
                            .plan
                            .snapshot(self.attachment(), || watch.makes_snapshot())
                            .await?;
                        return self.restored(&snapshot, watch).await;
                    }
                }
            },
            Err(e) if must_be_restored => return Err(e),
            Err(e) => watch.note(format!("no snapshot could be made, so it boots: {e}")),
        }
        self.cold(watch).await
    }

    /// Removes what a restore that failed leaves, and the snapshot if it is to blame.
    async fn clear_failed(&self, snapshot: &Snapshot, error: Error, watch: &mut impl Watch) {
        if let Error::Vm(error) = error {
            let (store, id) = (self.plan.store(), snapshot.id.clone());
            // Its memory is a large file, which takes the system a while to free.
            if let Err(e) = apart(move || Ok(store.failed(&id, &error)?)).await {
                watch.note(format!("the snapshot could not be removed: {e}"));
            }
        }
        if let Some(run_dir) = self.detached() {
            fireclaw_vm::clear_detached(run_dir).await;
        }
    }

    /// One that waits: they have no interface, no disks, and are nobody's to keep.
    async fn pooled(&self, watch: &mut impl Watch) -> Result<Option<Guest>> {
        let plan = self.plan;
        if self.network.is_some() || self.start.detached.is_some() || !plan.spec.disks.is_empty() {
            return Ok(None);
        }
        let key = plan.launcher.key(plan.spec.warm.as_deref())?;
        let pools = plan.host.home.pool();
        let Some(machine) = pool::take(&pools, &key.id()).await else { return Ok(None) };
        debug!("takes one that waits in the pool");
        watch.ends(Phase::Prepare);
        watch.ends(Phase::FromPool);
        let come = async {
            let waiting = Waiting::meet(machine, plan.launcher.timeout).await?;
            self.personalized(waiting, watch).await
        };
        match come.await {
            Ok(guest) => Ok(Some(guest)),
            Err(e) => {
                watch.note(format!("the pool's VM could not be used: {e}"));
                Ok(None)
            }
        }
    }

    async fn restored(&self, snapshot: &Snapshot, watch: &mut impl Watch) -> Result<Guest> {
        watch.ends(Phase::Prepare);
        debug!(snapshot = %snapshot.id, "restores it");
        let launcher = &self.plan.launcher;
        let memory = Memory::RestoredFrom(&snapshot.directory);
        let machine = launcher.launch_in(self.detached(), memory, self.attachment()).await?;
        watch.ends(Phase::Restore);
        self.personalized(Waiting::meet(machine, launcher.timeout).await?, watch).await
    }

    async fn cold(&self, watch: &mut impl Watch) -> Result<Guest> {
        debug!("boots it");
        watch.ends(Phase::Prepare);
        let launcher = &self.plan.launcher;
        let on_start = || watch.ends(Phase::VmmStart);
        let waiting =
            launcher.boot_in(self.detached(), Memory::Fresh, self.attachment(), on_start).await?;
        self.personalized(waiting, watch).await
    }

    /// Tells the guest who it is.
    async fn personalized(&self, waiting: Waiting, watch: &mut impl Watch) -> Result<Guest> {
        if let Some(hello) = waiting.hello() {
            watch.booted(hello);
        }
        let name = match self.start.detached {
            Some((_, name)) => name.to_owned(),
            None => fresh_hostname()?,
        };
        let guest = waiting.personalize(&name, self.network.map(SandboxNetwork::interface)).await?;
        watch.ends(Phase::Identity);
        if let Some(within) = guest.clock_within() {
            watch.set_clock(within);
        }
        debug!(host_name = name, vmm_pid = guest.vmm_pid(), "it is up");
        Ok(guest)
    }
}

/// Whether a restore that failed speaks against its snapshot.
fn is_to_blame(error: &Error) -> bool {
    matches!(error, Error::Vm(error) if Store::is_to_blame(error))
}
