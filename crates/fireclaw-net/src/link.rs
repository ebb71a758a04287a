//! A machine's card as its monitor and its guest take it.

use std::path::{Path, PathBuf};

use fireclaw_policy::{HostConfig, Network};
use fireclaw_protocol::hello;
use fireclaw_vm::{Namespace, PlugKind as Wanted};

use crate::{Card, Client, Error, Gateway, Place, Plug, PlugKind, ProcessStamp, Request, Result};
use crate::{clean, list, open};

/// This very program, also after its file was replaced (proc(5)).
const PROGRAM: &str = "/proc/self/exe";

/// The hidden command that leads this program to [`crate::gateway_main`].
pub const COMMAND: &str = "gateway";

/// The network of one machine: its gateway, and what monitor and guest get of it.
///
/// Dropping it ends the gateway, unless that [belongs to](Link::belongs_to) a monitor.
#[derive(Debug)]
pub struct Link {
    gateway: Gateway,
    plug: fireclaw_vm::Plug,
    card: hello::Card,
}

/// What a [`Link`] is to be.
#[derive(Debug)]
pub struct Wish<'a> {
    /// The directory of everything of ours.
    pub home: &'a Path,
    /// What the machine may reach; not [`Network::None`].
    pub policy: Network,
    /// What the host's owner decided; see [`config`].
    pub config: HostConfig,
    /// For whom it is, as `fireclaw net ls` shows it.
    pub owner: String,
    /// An existing directory for the gateway's socket.
    pub directory: PathBuf,
    /// What the machine's monitor takes.
    pub plug: Wanted,
    /// As which user the monitor runs, if not as ours.
    pub user: Option<u32>,
}

impl Link {
    /// Opens the network of a machine that is about to be started.
    ///
    /// # Errors
    /// Whatever a gateway cannot do.
    pub async fn open(wish: Wish<'_>) -> Result<Self> {
        let place = Place::here();
        let request = Request {
            policy: wish.policy,
            config: wish.config,
            owner: wish.owner,
            directory: wish.directory,
            place,
            state: place.state_directory(wish.home),
            plug: match wish.plug {
                Wanted::Tap => PlugKind::Tap,
                Wanted::Named => PlugKind::Named { user: wish.user },
            },
        };
        let mut gateway = open(Path::new(PROGRAM), &[COMMAND], request).await?;
        let plug = gateway.take_plug().ok_or_else(|| Error::gateway("gave no tap"))?;
        let card = card(gateway.card());
        Ok(Self { gateway, plug: plug.into(), card })
    }

    /// Where the monitor plugs the card in. A machine of which a snapshot is made may be on
    /// it too, before the one that stays: its card is down.
    pub fn plug(&self) -> &fireclaw_vm::Plug {
        &self.plug
    }

    /// Who the guest is.
    pub fn card(&self) -> hello::Card {
        self.card.clone()
    }

    /// Has the network live exactly as long as a monitor.
    ///
    /// # Errors
    /// [`Error::Gateway`], also if the monitor has ended.
    pub async fn belongs_to(self, monitor: ProcessStamp) -> Result<()> {
        self.gateway.belongs_to(monitor).await
    }

    /// Ends the network of a machine that has ended, and waits for that.
    ///
    /// # Errors
    /// [`Error::Gateway`] if it does not end.
    pub async fn close(self) -> Result<()> {
        drop(self.plug);
        self.gateway.close().await
    }
}

/// The card of a machine that another process started.
///
/// # Errors
/// [`Error::Gateway`] if its gateway is no more.
pub async fn adopted(directory: &Path) -> Result<hello::Card> {
    Ok(card(&Client::new(directory).status().await?.card))
}

/// Frees what is nobody's any more, of all machines that were written down.
///
/// # Errors
/// What could not be removed.
pub fn sweep(home: &Path) -> Result<()> {
    let place = Place::here();
    let state = place.state_directory(home);
    if list(&state)?.is_empty() {
        // Most hosts: none of the programs that networks need has to be there.
        return Ok(());
    }
    clean(place, &state).map(drop)
}

/// The host's `network.toml`.
///
/// # Errors
/// [`Error::Config`].
pub fn config(home: &Path) -> Result<HostConfig> {
    HostConfig::load(home).map_err(|e| Error::Config { problem: e.to_string() })
}

fn card(card: &Card) -> hello::Card {
    let Card { mac, address, prefix, gateway, resolver } = *card;
    hello::Card { mac: mac.0.into(), address, prefix, gateway, resolver }
}

impl From<Plug> for fireclaw_vm::Plug {
    fn from(plug: Plug) -> Self {
        match plug {
            Plug::Tap(tap) => Self::Tap(tap),
            Plug::Named { name, namespace } => {
                let namespace = namespace.map(|(user, net)| Namespace { user: Some(user), net });
                Self::Named { name, namespace }
            }
        }
    }
}
