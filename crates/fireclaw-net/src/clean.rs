//! What is there, what is nobody's, and what works.

use std::net::Ipv4Addr;
use std::path::Path;

use fireclaw_host::find_program;
use fireclaw_policy::HostConfig;

use crate::mode::NetworkMode;
use crate::netlink::Netlink;
use crate::state::{Machine, State, lock};
use crate::{Error, Result, conntrack, host, nft, rules};

/// What was removed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cleaned {
    /// VMs whose helper is no more.
    pub machines: Vec<Machine>,
    /// Addresses of taps and rules that no VM of the state has.
    pub strays: Vec<Ipv4Addr>,
}

/// One thing that was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What.
    pub name: &'static str,
    /// The one policy that needs it, by its first word; none if all do.
    pub only: Option<&'static str>,
    /// What was found, or what went wrong.
    pub result: Result<String>,
}

/// The VMs of a state, by address.
///
/// # Errors
/// [`Error::State`].
pub fn list(state: &Path) -> Result<Vec<Machine>> {
    State::open_existing(state)?.map_or(Ok(Vec::new()), |state| state.machines())
}

/// Removes what is nobody's: of VMs whose helper is no more, and what carries our names
/// but is in no state. Rules, devices and settings of others are not touched.
///
/// # Errors
/// What could not be removed; the rest is tried at the next time.
pub fn clean(mode: NetworkMode, state: &Path) -> Result<Cleaned> {
    if !state.exists() && mode == NetworkMode::Namespace {
        return Ok(Cleaned::default());
    }
    if mode == NetworkMode::Namespace {
        // All else went with the namespace.
        let machines = State::open(state)?.free_dead()?;
        return Ok(Cleaned { machines, strays: Vec::new() });
    }
    let _held = lock(state)?;
    let state = State::open(state)?;
    let netlink = Netlink::open()?;
    let machines = host::sweep(&netlink, &state)?;
    let strays = host::remove_strays(&netlink, &state)?;
    host::reconcile(&netlink, &state)?;
    Ok(Cleaned { machines, strays })
}

/// Frees what is nobody's any more of this home's VMs, if any were written down: most
/// hosts have none, and none of the programs that networks need.
///
/// # Errors
/// What could not be removed.
pub fn sweep(home: &Path) -> Result<()> {
    let mode = NetworkMode::here();
    let state = mode.state_directory(home);
    if list(&state)?.is_empty() {
        return Ok(());
    }
    clean(mode, &state).map(drop)
}

/// Tries what a network interface needs on this host, and changes nothing.
pub fn check(mode: NetworkMode, config: &HostConfig) -> Vec<Check> {
    let program = |name, package| {
        let found = find_program("", name).map_err(Error::missing(package));
        found.map(|path| path.display().to_string())
    };
    let tun = std::fs::File::options().read(true).write(true).open("/dev/net/tun");
    let tun = tun.map(|_| "/dev/net/tun".to_owned()).map_err(Error::device("opening /dev/net/tun"));
    let of_all = |name, result| Check { name, only: None, result };
    let mut checks = vec![
        of_all(
            "network mode",
            Ok(match mode {
                NetworkMode::Host => format!("the host, on bridge {}", config.bridge),
                NetworkMode::Namespace => "namespaces of their own".into(),
            }),
        ),
        of_all("taps", tun),
        of_all("nft", program("nft", "nftables")),
    ];
    match mode {
        NetworkMode::Host => {
            let rules = nft::check(&rules::sample(config))
                // Of nobody, so that nothing is forgotten.
                .and_then(|()| conntrack::available())
                .map(|()| "the kernel takes all of them".into());
            let subnet = Netlink::open()
                .and_then(|netlink| host::find(&netlink, config))
                .map(|_| format!("{} is free", config.subnet));
            checks.extend([of_all("rules", rules), of_all("subnet", subnet)]);
        }
        NetworkMode::Namespace => checks.push(Check {
            name: "slirp4netns",
            only: Some("full"),
            result: program("slirp4netns", "slirp4netns"),
        }),
    }
    checks
}
