//! `fireclaw net`: network interfaces of VMs.

mod check;

use clap::Subcommand;
use comfy_table::{Table, presets};
use fireclaw_image::Home;
use fireclaw_net::{Client, Machine, NetworkMode, Status};

use super::{print, print_json};
use crate::error::Result;
use crate::machine::Host;
use crate::runtime::runtime;

/// Inspect, check and clean up VM networks
///
/// network.toml in the data directory sets VM addresses and what `--network local` opens.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fireclaw net ls               VMs with a network interface, and their egress policy
  fireclaw net ls --denials     and the refused connections
  fireclaw net check            check whether networking works on this host
  fireclaw net prune            remove leftovers")]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List VMs that have a network interface
    Ls {
        /// Show refused connections with the reason
        #[arg(long)]
        denials: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Check network requirements, and test what VMs can reach
    Check {
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        host: Host,
    },
    /// Remove what VMs that have ended left behind
    #[command(alias = "clean")]
    Prune,
}

/// One VM, and how its gateway is; none if it does not answer.
#[derive(Debug, serde::Serialize)]
struct Row {
    #[serde(flatten)]
    machine: Machine,
    status: Option<Status>,
}

/// Does what was asked.
pub fn execute(args: &Args) -> Result<u8> {
    let mode = NetworkMode::here();
    let state = mode.state_directory(Home::from_environment().root());
    match args.action {
        Action::Ls { denials, json } => {
            let rows = rows(fireclaw_net::list(&state)?)?;
            match (json, denials) {
                (true, _) => print_json(&rows)?,
                (false, false) => print(&table(&rows).to_string())?,
                (false, true) => print(&refused(&rows).to_string())?,
            }
            Ok(0)
        }
        Action::Check { json, ref host } => check::execute(mode, host, json),
        Action::Prune => {
            let cleaned = fireclaw_net::clean(mode, &state)?;
            for machine in &cleaned.machines {
                print(&format!("removed what {} left at {}", machine.owner, machine.address))?;
            }
            for address in &cleaned.strays {
                print(&format!("removed what somebody left at {address}"))?;
            }
            if cleaned == fireclaw_net::Cleaned::default() {
                print("nothing to remove")?;
            }
            Ok(0)
        }
    }
}

fn rows(machines: Vec<Machine>) -> Result<Vec<Row>> {
    let runtime = runtime()?;
    let row = |machine: Machine| {
        let status = runtime.block_on(Client::new(&machine.directory).status()).ok();
        Row { machine, status }
    };
    Ok(machines.into_iter().map(row).collect())
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(["OWNER", "ADDRESS", "POLICY", "REFUSED"]);
    for Row { machine, status } in rows {
        let (policy, refused) = match status {
            Some(status) => {
                let packets: u64 = status.packets.iter().map(|refused| refused.packets).sum();
                (short(&status.policy.to_string()), (status.denied + packets).to_string())
            }
            None => (machine.policy.clone(), "its gateway does not answer".into()),
        };
        table.add_row([machine.owner.clone(), machine.address.to_string(), policy, refused]);
    }
    table
}

fn short(policy: &str) -> String {
    const MOST: usize = 60;
    let mut text: String = policy.chars().take(MOST).collect();
    if policy.chars().nth(MOST).is_some() {
        text.push('…');
    }
    text
}

fn refused(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(["OWNER", "TIMES", "WHAT", "REASON"]);
    for Row { machine, status } in rows {
        let Some(status) = status else { continue };
        for denial in &status.denials {
            let port = denial.port.map_or(String::new(), |port| format!(":{port}"));
            let what = format!("{}{port}", denial.what);
            let (times, reason) = (denial.count.to_string(), denial.reason.clone());
            table.add_row([machine.owner.clone(), times, what, reason]);
        }
        for refused in &status.packets {
            let (owner, times) = (machine.owner.clone(), refused.packets.to_string());
            table.add_row([owner, times, refused.what.clone(), "packets".into()]);
        }
    }
    table
}
