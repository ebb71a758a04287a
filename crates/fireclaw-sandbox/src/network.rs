//! The network of a sandbox.

use fireclaw_host::ProcessStamp;
use fireclaw_net::{Client, Gateway, NetworkMode, Request};
use fireclaw_policy::{HostConfig, Network};
use fireclaw_vm::{RunDir, TapAttachment};

use crate::{Plan, Result};

/// The gateway of a sandbox, with the directory that it needs.
#[derive(Debug)]
pub struct SandboxNetwork {
    gateway: Gateway,
    /// Its own, if the sandbox has none that is detached; it goes after the gateway.
    directory: Option<RunDir>,
    owner: String,
}

impl SandboxNetwork {
    /// For whom it is, as `fireclaw net ls` shows it.
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// Where the VMM finds the tap.
    pub fn attachment(&self) -> &TapAttachment {
        self.gateway.attachment()
    }

    /// What the guest has to know.
    pub(crate) fn interface(&self) -> fireclaw_protocol::hello::Interface {
        self.gateway.interface().into()
    }

    /// Ends it, after its VM.
    ///
    /// # Errors
    /// What of it could not be removed.
    pub async fn close(self) -> Result<()> {
        Ok(self.gateway.close().await?)
    }

    /// Has it live for as long as the VMM does, whatever becomes of us.
    pub(crate) async fn belongs_to(self, vmm: ProcessStamp) -> Result<()> {
        debug_assert!(self.directory.is_none(), "its directory would go with us");
        Ok(self.gateway.belongs_to(vmm).await?)
    }
}

impl Plan {
    /// The network of a sandbox that is about to be started; none if it needs none. That of
    /// one that outlives us is in its directory and has its name; `config` is the host's
    /// unless given.
    pub(crate) async fn open_network(
        &self,
        detached: Option<(&RunDir, &str)>,
        config: Option<&HostConfig>,
    ) -> Result<Option<SandboxNetwork>> {
        if self.spec.network == Network::None {
            return Ok(None);
        }
        let home = self.host.home.root();
        let config = match config {
            Some(config) => config.clone(),
            None => HostConfig::load(home).map_err(fireclaw_net::Error::from)?,
        };
        let own = match detached {
            Some(_) => None,
            None => Some(RunDir::create(&self.host.home.run())?),
        };
        let (directory, owner) = match (detached, &own) {
            (Some((directory, name)), _) => (directory.path().to_owned(), name.to_owned()),
            (None, Some(own)) => (own.path().to_owned(), own.id().to_owned()),
            (None, None) => unreachable!("one of the two was made above"),
        };
        let mode = NetworkMode::here();
        let request = Request {
            policy: self.spec.network.clone(),
            config,
            owner: owner.clone(),
            directory,
            mode,
            state: mode.state_directory(home),
            attachment: self.launcher.backend.capabilities().attachment,
            user: self.host.jail.map(|(user, _)| user),
        };
        let gateway = Gateway::open(request).await?;
        Ok(Some(SandboxNetwork { gateway, directory: own, owner }))
    }
}

/// What asks the gateway of a sandbox that is detached in this directory.
pub(crate) fn gateway(directory: &RunDir) -> Client {
    Client::new(directory.path().to_owned())
}
