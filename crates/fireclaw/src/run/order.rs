//! What is to be run, and on what.

use std::time::Duration;

use fireclaw_image::Home;
use fireclaw_policy::Network;
use fireclaw_vm::snapshot::Recipe;
use fireclaw_vm::{Guest, Launcher};

use super::network::RunNetwork;
use crate::error::Result;
use crate::machine;
use crate::phases::Phases;

/// What all clones of one run have in common.
#[derive(Debug)]
pub struct Order<'a> {
    /// Where snapshots and pools are.
    pub home: &'a Home,
    /// The machine.
    pub recipe: &'a Recipe,
    /// What starts it.
    pub launcher: &'a Launcher,
    /// Whether neither pool nor snapshot may be used.
    pub from_cold: bool,
    /// What it may reach.
    pub network: &'a Network,
    /// The monitor's user and group, if it has a jail.
    pub jail: Option<(u32, u32)>,
    /// How long the command may take.
    pub timeout: Duration,
}

impl Order<'_> {
    /// Starts a machine.
    pub async fn start(&self, phases: &mut Phases) -> Result<Running> {
        let network = RunNetwork::open(self.home, self.launcher, self.network, self.jail).await?;
        if network.is_some() {
            phases.mark("network");
        }
        let gateway = network.as_ref().map(RunNetwork::gateway);
        let guest = if self.from_cold {
            machine::cold(self.launcher, gateway, phases).await?
        } else {
            machine::start(self.launcher, self.home, self.recipe, gateway, phases).await?
        };
        Ok(Running { guest, network })
    }
}

/// A machine with all that is its own. Dropping it ends it.
#[derive(Debug)]
pub struct Running {
    /// The guest.
    pub guest: Guest,
    network: Option<RunNetwork>,
}

impl Running {
    /// Ends the machine and waits until nothing of it is left.
    pub async fn end(self) -> Result<()> {
        let killed = self.guest.kill().await;
        if let Some(network) = self.network {
            network.close().await?;
        }
        Ok(killed?)
    }
}
