//! The network of a run's machine.

use fireclaw_image::Home;
use fireclaw_net::link::{Link, Wish};
use fireclaw_policy::Network;
use fireclaw_vm::{Launcher, RunDir};

use crate::error::Result;

/// A link with the directory that it needs, which goes after it.
#[derive(Debug)]
pub struct RunLink {
    link: Link,
    _directory: RunDir,
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
        let directory = RunDir::create(&home.run())?;
        let wish = Wish {
            home: home.root(),
            policy: policy.clone(),
            owner: directory.id().to_owned(),
            directory: directory.path().to_owned(),
            plug: launcher.backend.capabilities().plug,
            user: jail.map(|(user, _)| user),
        };
        Ok(Some(Self { link: Link::open(wish).await?, _directory: directory }))
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
