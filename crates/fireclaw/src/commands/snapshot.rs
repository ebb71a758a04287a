//! `fireclaw snapshot`: what runs start from.

use clap::Subcommand;
use comfy_table::{Table, presets};
use fireclaw_image::Home;
use fireclaw_vm::snapshot::Store;

use super::{print, print_json};
use crate::error::{CliError, Kind, Result};

/// List and remove snapshots
///
/// `fireclaw run` makes a snapshot when it first needs one, of a machine that
/// has booted and waits for its command, and every later run of the same shape
/// starts from it. Anything that went into it and changes, such as the kernel,
/// the image or the monitor, makes it useless, and a new one is made.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fireclaw snapshot ls
  fireclaw snapshot rm auto-5d6f8b2ba82bd47b
  fireclaw run --no-snapshot \"uname -a\"")]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List snapshots
    Ls {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove a snapshot; machines that run from it go on
    Rm {
        /// The snapshot's name
        name: String,
    },
}

/// Does what was asked.
pub fn execute(args: &Args) -> Result<u8> {
    let store = Store::new(Home::from_environment().snapshots());
    let known = store.list();
    match &args.action {
        Action::Ls { json: true } => print_json(&known)?,
        Action::Ls { json: false } => {
            let mut table = Table::new();
            table
                .load_preset(presets::NOTHING)
                .set_header(["NAME", "MONITOR", "CPUS", "MEMORY", "DISK"]);
            for snapshot in &known {
                table.add_row([
                    snapshot.name.clone(),
                    snapshot.monitor.clone(),
                    snapshot.cpus.to_string(),
                    format!("{} MiB", snapshot.memory_mib),
                    format!("{} MiB", snapshot.disk_bytes >> 20),
                ]);
            }
            print(&table.to_string())?;
        }
        Action::Rm { name } => {
            // Only a name that is listed: no path can be smuggled in.
            if !known.iter().any(|snapshot| snapshot.name == *name) {
                let names: Vec<_> = known.into_iter().map(|snapshot| snapshot.name).collect();
                return Err(CliError::new(
                    Kind::Usage,
                    format!("there is no snapshot named {name:?}"),
                )
                .hint(match &names[..] {
                    [] => "there are none; `fireclaw run` makes them".to_owned(),
                    names => format!("there are: {}", names.join(", ")),
                }));
            }
            store.remove(name)?;
        }
    }
    Ok(0)
}
