//! The network of a run's machine.

use fireclaw_image::Home;
use fireclaw_net::{Gateway, Place, Request};
use fireclaw_policy::{HostConfig, Network};
use fireclaw_vm::{Launcher, RunDir};

use crate::error::Result;

/// A gateway with the directory that it needs, which goes after it.
#[derive(Debug)]
pub struct RunNetwork {
    gateway: Gateway,
    directory: RunDir,
}

impl RunNetwork {
    /// The network for one machine; none for a policy that needs none.
    pub async fn open(
        home: &Home,
        launcher: &Launcher,
        policy: &Network,
        jail: Option<(u32, u32)>,
    ) -> Result<Option<Self>> {
        if *policy == Network::None {
            return Ok(None);
        }
        let config = HostConfig::load(home.root()).map_err(fireclaw_net::Error::from)?;
        Ok(Some(Self::with(home, launcher, policy, config, jail).await?))
    }

    /// The same with a configuration instead of the home's.
    pub async fn with(
        home: &Home,
        launcher: &Launcher,
        policy: &Network,
        config: HostConfig,
        jail: Option<(u32, u32)>,
    ) -> Result<Self> {
        let directory = RunDir::create(&home.run())?;
        let place = Place::here();
        let request = Request {
            policy: policy.clone(),
            config,
            owner: directory.id().to_owned(),
            directory: directory.path().to_owned(),
            place,
            state: place.state_directory(home.root()),
            plug: launcher.backend.capabilities().plug,
            user: jail.map(|(user, _)| user),
        };
        Ok(Self { gateway: Gateway::open(request).await?, directory })
    }

    /// For whom it is, as `fireclaw net ls` shows it.
    pub fn owner(&self) -> &str {
        self.directory.id()
    }

    /// What the monitor and the guest need of it.
    pub fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    /// Ends it, after its machine.
    pub async fn close(self) -> Result<()> {
        Ok(self.gateway.close().await?)
    }
}
