//! Takes over a sandbox that outlived who started it.

use std::time::Duration;

use fireclaw_host::ProcessStamp;
use fireclaw_policy::Network;
use fireclaw_vm::{Guest, Machine, RunDir, Waiting};

use crate::{Plan, Result, network};

/// How long a guest that is taken over has to answer at first; it doubles with each try.
const FIRST_GREETING: Duration = Duration::from_secs(1);

/// How long we are away between two tries, for a guest to notice.
const ABSENCE: Duration = Duration::from_millis(100);

impl Plan {
    /// Takes over the sandbox of this name in a directory, whose VMM is `process`. Its
    /// network has the spec's policy from then on.
    ///
    /// # Errors
    /// [`crate::Error::Vm`] if it no longer runs or does not answer;
    /// [`crate::Error::Network`] if its gateway is gone.
    pub async fn adopt(
        &self,
        run_dir: &RunDir,
        name: &str,
        process: ProcessStamp,
    ) -> Result<Guest> {
        let interface = match &self.spec.network {
            Network::None => None,
            // A VM whose gateway is gone, or that never had one, is of no use.
            policy => {
                let gateway = network::gateway(run_dir);
                let interface = gateway.status().await?.interface;
                gateway.set_policy(policy).await?;
                Some(interface.into())
            }
        };
        let mut timeout = FIRST_GREETING;
        loop {
            let machine: Machine = self.launcher.backend.adopt(run_dir, process).await?;
            // It may have been paused, and must answer now.
            machine.process.pause(false)?;
            let met = async {
                Waiting::meet(machine, timeout).await?.personalize(name, interface.clone()).await
            };
            match met.await {
                // A VMM that was stopped heard that the last host had gone and that
                // we had come at once, and its guest noticed neither. Let it see us go.
                Err(fireclaw_vm::Error::GuestSilent { .. }) if timeout < self.launcher.timeout => {
                    tokio::time::sleep(ABSENCE).await;
                    timeout *= 2;
                }
                met => return Ok(met?),
            }
        }
    }
}
