//! The network of a run's machine.

use fireclaw_image::Home;
use fireclaw_net::link::{self, Link, Wish};
use fireclaw_policy::{HostConfig, Network};
use fireclaw_vm::{Launcher, RunDir};

use crate::error::Result;

/// A link with the directory that it needs, which goes after it.
#[derive(Debug)]
pub struct RunLink {
    link: Link,
    directory: RunDir,
}

impl RunLink {
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
        let config = link::config(home.root())?;
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
        let wish = Wish {
            home: home.root(),
            policy: policy.clone(),
            config,
            owner: directory.id().to_owned(),
            directory: directory.path().to_owned(),
            plug: launcher.backend.capabilities().plug,
            user: jail.map(|(user, _)| user),
        };
        Ok(Self { link: Link::open(wish).await?, directory })
    }

    /// For whom it is, as `fireclaw net ls` shows it.
    pub fn owner(&self) -> &str {
        self.directory.id()
    }

    /// What the monitor and the guest need of it.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// Ends it, after its machine.
    pub async fn close(self) -> Result<()> {
        Ok(self.link.close().await?)
    }
}
