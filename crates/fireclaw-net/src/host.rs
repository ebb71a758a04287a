//! The bridge, and what else of the host is changed while VMs are there.

use std::net::Ipv4Addr;

use fireclaw_policy::HostConfig;
use ipnet::Ipv4Net;
use serde_json::Value;

use crate::address::Mac;
use crate::netlink::{Link, Netlink};
use crate::rules;
use crate::state::{Machine, State};
use crate::{Error, Result, conntrack, nft};

/// Where the kernel's settings of networks are.
const SETTINGS: &str = "/proc/sys/net/";
const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

/// What is noted of the host besides settings, which are noted by their path: where all
/// VMs are, `bridge NAME` that we made, with its MAC, and `address NAME ADDRESS` that we
/// gave to one of somebody else.
const NETWORK: &str = "network";
const BRIDGE: &str = "bridge";
const ADDRESS: &str = "address";

fn with_prefix(config: &HostConfig) -> Ipv4Net {
    Ipv4Net::new_assert(config.gateway(), config.subnet.prefix_len())
}

/// Whether VMs may be where this configuration has them: they share one set of rules, so
/// all that run are in one place.
///
/// # Errors
/// [`Error::Elsewhere`] if others run in another.
pub(crate) fn agree(state: &State, config: &HostConfig) -> Result<()> {
    let wanted = format!("{} on {}", config.subnet, config.bridge);
    state.note(NETWORK, &wanted)?;
    match state.noted(NETWORK)? {
        Some(running) if running != wanted => Err(Error::Elsewhere { wanted, running }),
        _ => Ok(()),
    }
}

/// A bridge that is there, and whether it has its address.
type Found = Option<(Link, bool)>;

/// What there is of the bridge, if its name and addresses are free or its own.
///
/// # Errors
/// [`Error::Conflict`] if they are used for something else.
pub(crate) fn find(netlink: &Netlink, config: &HostConfig) -> Result<Found> {
    let links = netlink.links()?;
    let there = links.iter().find(|link| link.name == config.bridge);
    let conflict = |with: String, instead: &str| Error::Conflict {
        subnet: config.subnet.to_string(),
        with,
        instead: instead.into(),
    };
    let bridge = "bridge = \"fcbr1\"";
    if let Some(link) = there
        && !link.is_bridge
    {
        return Err(conflict(format!("{} is there and is no bridge", link.name), bridge));
    }
    let ours = there.map(|link| link.index);
    // What is on a bridge can be reached by anybody there, past all rules.
    let stranger = |link: &&Link| {
        ours.is_some() && link.master == ours && crate::address::of_tap(&link.name).is_none()
    };
    if let Some(link) = links.iter().find(stranger) {
        return Err(conflict(format!("{} is on the bridge {}", link.name, config.bridge), bridge));
    }
    let addresses = netlink.addresses()?;
    let address = with_prefix(config);
    let has = addresses.iter().any(|used| Some(used.link) == ours && used.network == address);
    let routes = netlink.routes()?;
    let other = addresses.iter().chain(&routes).find(|used| {
        let overlap =
            used.network.contains(&config.subnet) || config.subnet.contains(&used.network);
        // What is wider stands for the default route, as VPNs set it in two halves.
        overlap && Some(used.link) != ours && used.network.prefix_len() >= 8
    });
    let Some(used) = other else { return Ok(there.cloned().map(|link| (link, has))) };
    let link = links.iter().find(|link| link.index == used.link);
    let name = link.map_or("a route", |link| &link.name[..]);
    let subnet = "subnet = \"10.99.0.0/24\"";
    Err(conflict(format!("{} on {name}", used.network.trunc()), subnet))
}

/// The bridge, made if it is not there. What the host had before is noted; a namespace had
/// nothing, and has no state.
///
/// # Errors
/// [`Error::Conflict`] if its name or its addresses are used for something else.
pub(crate) fn bridge(
    netlink: &Netlink,
    state: Option<&State>,
    config: &HostConfig,
) -> Result<Link> {
    let (name, address) = (&config.bridge, with_prefix(config));
    let found = find(netlink, config)?;
    let (ours, mac) = (format!("{BRIDGE} {name}"), Mac::of(config.gateway()));
    // Somebody else's stays, and is to be as it was.
    let mut stays = None;
    if let Some(state) = state {
        if let Some((link, _)) = &found {
            let is_ours = state.noted(&ours)?.is_some() && link.mac == Some(mac);
            stays = (!is_ours).then_some(state);
        } else {
            state.note(&ours, &mac.to_string())?;
        }
    }
    let link = match found {
        Some((link, true)) => link,
        Some((link, false)) => {
            if let Some(state) = stays {
                state.note(&format!("{ADDRESS} {name} {address}"), "")?;
            }
            netlink.add_address(link.index, address)?;
            link
        }
        None => netlink.make_bridge(name, mac, address)?,
    };
    netlink.up(link.index)?;
    match stays {
        // Without IPv6 it would lose addresses; that of VMs ends at their taps.
        Some(_) => ipv4(stays, name)?,
        None => quiet(name)?,
    }
    Ok(link)
}

/// No IPv6 on a device of ours, and what holds for one of others too, see [`ipv4`].
pub(crate) fn quiet(device: &str) -> Result<()> {
    let ipv6 = format!("{SETTINGS}ipv6/conf/{device}/disable_ipv6");
    // A kernel without IPv6 has nothing to be quiet about.
    if std::path::Path::new(&ipv6).exists() {
        switch_on(None, &ipv6)?;
    }
    ipv4(None, device)
}

/// No packets with senders from elsewhere, and no answer about other addresses of the host.
fn ipv4(state: Option<&State>, device: &str) -> Result<()> {
    let set = |name| switch_on(state, &format!("{SETTINGS}ipv4/conf/{device}/{name}"));
    ["rp_filter", "arp_ignore"].into_iter().try_for_each(set)
}

/// Lets the host forward packets.
pub(crate) fn forward(state: Option<&State>) -> Result<()> {
    switch_on(state, FORWARDING)
}

/// Sets a setting to 1, and notes what it was.
fn switch_on(state: Option<&State>, path: &str) -> Result<()> {
    let failed = || Error::system::<std::io::Error>(format!("writing {path}"));
    let before = std::fs::read_to_string(path).map_err(failed())?;
    if before.trim() == "1" {
        return Ok(());
    }
    if let Some(state) = state {
        state.note(path, before.trim())?;
    }
    std::fs::write(path, "1").map_err(failed())
}

/// Removes what belongs to a VM, and frees its address. What has gone is fine.
pub(crate) fn remove(netlink: &Netlink, state: &State, machine: &Machine) -> Result<()> {
    let address = machine.address;
    // The tap first: the guest may run still, and is not to do so without rules.
    netlink.remove(&machine.tap())?;
    let last = state.machines()?.iter().all(|other| other.address == address);
    if !last || nft::run(rules::tear_down_last(address)).is_err() {
        remove_rules(address)?;
    }
    // Where that is not possible no VM ever started.
    let _ = conntrack::forget(address);
    state.free(machine)?;
    Ok(())
}

/// All rules of the host. A kernel that can't list them has none.
fn all_rules() -> Result<Vec<Value>> {
    match nft::run(rules::all()) {
        Err(Error::Rules { .. }) => Ok(Vec::new()),
        listed => listed,
    }
}

/// Removes the rules of an address, or what is there of them.
pub(crate) fn remove_rules(address: Ipv4Addr) -> Result<()> {
    if nft::run(rules::tear_down(address).concat()).is_err() {
        // Something is not there; what is there goes by parts.
        let [shared, own] = rules::tear_down(address).map(nft::run);
        if rules::found(&all_rules()?).contains(&address) {
            return shared.and(own).map(drop);
        }
    }
    Ok(())
}

/// Undoes what is needed no longer: forwarding without a VM that leaves, all else
/// without any VM.
pub(crate) fn reconcile(netlink: &Netlink, state: &State) -> Result<()> {
    let machines = state.machines()?;
    let leaves = machines.iter().any(|machine| machine.policy == "full");
    for (what, before) in state.notes()? {
        let is_needed = if what == FORWARDING { leaves } else { !machines.is_empty() };
        if !is_needed && undo(netlink, &what, &before)? {
            state.forget(&what)?;
        }
    }
    Ok(())
}

/// Undoes one change of the host; whether that was possible.
fn undo(netlink: &Netlink, what: &str, before: &str) -> Result<bool> {
    match what.split(' ').collect::<Vec<_>>()[..] {
        [BRIDGE, name] => {
            // Somebody else may have made one of that name, or connected something to ours.
            let links = netlink.links()?;
            let is_it = |link: &&Link| {
                link.name == name && link.mac.map(|m| m.to_string()).as_deref() == Some(before)
            };
            let Some(there) = links.iter().find(is_it) else { return Ok(true) };
            if links.iter().any(|link| link.master == Some(there.index)) {
                return Ok(false);
            }
            netlink.remove(name)?;
        }
        [ADDRESS, name, address] => {
            if let (Some(link), Ok(address)) = (netlink.link(name)?, address.parse()) {
                netlink.remove_address(link.index, address)?;
            }
        }
        [path] if path.starts_with(SETTINGS) => match std::fs::write(path, before) {
            // It went with its device.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            written => written.map_err(Error::system(format!("writing {path}")))?,
        },
        _ => {}
    }
    Ok(true)
}

/// Frees what belongs to helpers that are no more: their VMs, oldest address first.
pub(crate) fn sweep(netlink: &Netlink, state: &State) -> Result<Vec<Machine>> {
    let mut swept = Vec::new();
    for machine in state.machines()? {
        if !machine.helper.lives() {
            remove(netlink, state, &machine)?;
            swept.push(machine);
        }
    }
    Ok(swept)
}

/// Removes taps and rules that carry our names but belong to no address of the state.
pub(crate) fn remove_strays(netlink: &Netlink, state: &State) -> Result<Vec<Ipv4Addr>> {
    let known: Vec<Ipv4Addr> = state.machines()?.iter().map(|machine| machine.address).collect();
    let links = netlink.links()?;
    let mut strays: Vec<Ipv4Addr> =
        links.iter().filter_map(|link| crate::address::of_tap(&link.name)).collect();
    strays.extend(rules::found(&all_rules()?));
    strays.sort();
    strays.dedup();
    strays.retain(|address| !known.contains(address));
    for &address in &strays {
        netlink.remove(&crate::address::tap_name(address))?;
        remove_rules(address)?;
    }
    if known.is_empty() && rules::has_base(&all_rules()?) {
        nft::run(rules::remove_base())?;
    }
    Ok(strays)
}
