//! The bridge, and what else of the host is changed while machines are there.

use std::net::Ipv4Addr;

use fireclaw_policy::HostConfig;
use ipnet::Ipv4Net;
use serde_json::Value;

use crate::address::Mac;
use crate::netlink::{Link, Netlink};
use crate::rules;
use crate::state::{Change, Machine, State};
use crate::{Error, Result, conntrack, nft};

const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

fn with_prefix(config: &HostConfig) -> Ipv4Net {
    Ipv4Net::new_assert(config.gateway(), config.subnet.prefix_len())
}

/// Whether name and addresses of the bridge are free, or the bridge's own.
///
/// # Errors
/// [`Error::Conflict`] if they are used for something else.
pub(crate) fn conflict(netlink: &Netlink, config: &HostConfig) -> Result<()> {
    let links = netlink.links()?;
    let there = links.iter().find(|link| link.name == config.bridge);
    let conflict = |with: String| Error::Conflict { subnet: config.subnet.to_string(), with };
    if let Some(link) = there
        && !link.is_bridge
    {
        return Err(conflict(format!("{} is there and is no bridge", link.name)));
    }
    let ours = there.map(|link| link.index);
    // What is on a bridge can be reached by anybody there, past all rules.
    let stranger = |link: &&Link| {
        ours.is_some() && link.master == ours && crate::address::of_tap(&link.name).is_none()
    };
    if let Some(link) = links.iter().find(stranger) {
        return Err(conflict(format!("{} is on the bridge {}", link.name, config.bridge)));
    }
    let mut used = netlink.addresses()?;
    used.extend(netlink.routes()?);
    let other = used.iter().find(|used| {
        let overlap =
            used.network.contains(&config.subnet) || config.subnet.contains(&used.network);
        // What is wider stands for the default route, as VPNs set it in two halves.
        overlap && Some(used.link) != ours && used.network.prefix_len() >= 8
    });
    let Some(used) = other else { return Ok(()) };
    let link = links.iter().find(|link| link.index == used.link);
    let name = link.map_or("a route", |link| &link.name[..]);
    Err(conflict(format!("{} on {name}", used.network.trunc())))
}

/// The bridge, made if it is not there.
///
/// # Errors
/// [`Error::Conflict`] if its name or its addresses are used for something else.
pub(crate) fn bridge(
    netlink: &Netlink,
    state: Option<&State>,
    config: &HostConfig,
) -> Result<Link> {
    conflict(netlink, config)?;
    let address = with_prefix(config);
    let there = netlink.link(&config.bridge)?;
    let index = there.as_ref().map(|link| link.index);
    let has =
        netlink.addresses()?.iter().any(|used| Some(used.link) == index && used.network == address);
    let link = match there {
        Some(link) if has => link,
        // Made by somebody else, or by us and killed before it had its address.
        Some(link) => {
            netlink.add_address(link.index, address)?;
            link
        }
        None => {
            if let Some(state) = state {
                state.note(Change::Bridge, &config.bridge)?;
            }
            netlink.make_bridge(&config.bridge, Mac::of(config.gateway()), address)?
        }
    };
    netlink.up(link.index)?;
    quiet(&config.bridge)?;
    Ok(link)
}

/// No IPv6 on a device of ours, no packets with senders from elsewhere, and no answer about
/// other addresses of the host.
pub(crate) fn quiet(device: &str) -> Result<()> {
    let settings = [("ipv6", "disable_ipv6"), ("ipv4", "rp_filter"), ("ipv4", "arp_ignore")];
    for (setting, value) in settings {
        let path = format!("/proc/sys/net/{setting}/conf/{device}/{value}");
        match std::fs::write(&path, "1") {
            // A kernel without IPv6.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && setting == "ipv6" => {}
            other => other.map_err(Error::system(format!("writing {path}")))?,
        }
    }
    Ok(())
}

/// Lets the host forward packets, and notes how it was.
pub(crate) fn forward(state: Option<&State>) -> Result<()> {
    let failed = || Error::system::<std::io::Error>(format!("writing {FORWARDING}"));
    let before = std::fs::read_to_string(FORWARDING).map_err(failed())?;
    if before.trim() == "1" {
        return Ok(());
    }
    if let Some(state) = state {
        state.note(Change::Forwarding, before.trim())?;
    }
    std::fs::write(FORWARDING, "1").map_err(failed())
}

/// Removes what belongs to a machine, and frees its address. What has gone is fine.
pub(crate) fn remove(netlink: &Netlink, state: &State, machine: &Machine) -> Result<()> {
    let address = machine.address;
    let last = state.machines()?.iter().all(|other| other.address == address);
    if last && nft::run(rules::tear_down_last(address)).is_ok() {
        netlink.remove(&machine.tap())?;
    } else {
        remove_things(netlink, address)?;
    }
    // Where that is not possible no machine ever started.
    let _ = conntrack::forget(address);
    state.free(machine)?;
    Ok(())
}

/// All rules of the host. One that can't list them has none.
fn all_rules() -> Vec<Value> {
    nft::run(rules::all()).unwrap_or_default()
}

/// Removes rules and tap of an address.
pub(crate) fn remove_things(netlink: &Netlink, address: Ipv4Addr) -> Result<()> {
    if nft::run(rules::tear_down(address).concat()).is_err() {
        // Something is not there; what is there goes by parts.
        let [shared, own] = rules::tear_down(address).map(nft::run);
        if rules::found(&all_rules()).contains(&address) {
            return shared.and(own).map(drop);
        }
    }
    netlink.remove(&crate::address::tap_name(address))
}

/// Undoes what is needed no longer: forwarding without a machine that leaves, the bridge
/// without any.
pub(crate) fn settle(netlink: &Netlink, state: &State) -> Result<()> {
    let machines = state.machines()?;
    if !machines.iter().any(|machine| machine.policy == "full")
        && let Some(before) = state.noted(Change::Forwarding)?
    {
        std::fs::write(FORWARDING, before)
            .map_err(Error::system(format!("writing {FORWARDING}")))?;
        state.forget(Change::Forwarding)?;
    }
    if !machines.is_empty() {
        return Ok(());
    }
    if let Some(bridge) = state.noted(Change::Bridge)? {
        // Somebody else may have connected something to it.
        let links = netlink.links()?;
        let there = links.iter().find(|link| link.name == bridge);
        let ports = there.is_some_and(|there| links.iter().any(|l| l.master == Some(there.index)));
        if !ports {
            netlink.remove(&bridge)?;
            state.forget(Change::Bridge)?;
        }
    }
    Ok(())
}

/// Frees what belongs to keepers that are no more: their machines, oldest address first.
pub(crate) fn sweep(netlink: &Netlink, state: &State) -> Result<Vec<Machine>> {
    let mut swept = Vec::new();
    for machine in state.machines()? {
        if !machine.keeper.lives() {
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
    strays.extend(rules::found(&all_rules()));
    strays.sort();
    strays.dedup();
    strays.retain(|address| !known.contains(address));
    for &address in &strays {
        remove_things(netlink, address)?;
    }
    if known.is_empty() && rules::has_base(&all_rules()) {
        nft::run(rules::remove_base())?;
    }
    Ok(strays)
}
