//! `fireclaw snapshot`: what runs start from.

use clap::Subcommand;
use comfy_table::{Table, presets};
use fireclaw_image::Home;
use fireclaw_say::say;
use fireclaw_vm::snapshot::Store;

use super::{print, print_json};
use crate::error::{CliError, Kind, Result};
use crate::machine::{Host, Shape};
use crate::runtime::runtime;
use crate::signals::Signals;

/// Make, list and remove snapshots
///
/// `fireclaw run` takes a snapshot of a booted, idle VM when it first needs one. Later runs
/// with the same image, kernel, vCPUs and memory restore it. A named snapshot can run a command
/// first, so that whatever the command loaded is already in memory. When the kernel, the image
/// or the VMM changes, the next run replaces the snapshot.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fireclaw snapshot create --name py --warm \"python3 -c 'import json'\"
  fireclaw run --snapshot py \"python3 -c 'import json; print(json.dumps(1))'\"
  fireclaw snapshot ls
  fireclaw snapshot rm py
  fireclaw run --no-snapshot \"uname -a\"")]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Create a snapshot now instead of on first use
    Create {
        /// Name for `run --snapshot`; without one, the snapshot serves all runs with the same
        /// options
        #[arg(long)]
        name: Option<String>,

        /// Shell command line to run first; its processes do not survive
        #[arg(long, value_name = "LINE", requires = "name")]
        warm: Option<String>,

        #[command(flatten)]
        shape: Shape,

        #[command(flatten)]
        host: Host,
    },
    /// List snapshots
    Ls {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove a snapshot; VMs restored from it keep running
    Rm {
        /// The snapshot's name
        name: String,
    },
}

/// Does what was asked.
pub fn execute(args: Args) -> Result<u8> {
    let home = Home::from_environment();
    let store = Store::new(home.snapshots());
    match args.action {
        Action::Create { name, warm, shape, host } => {
            create(&home, &store, name.as_deref(), warm, &shape, &host)
        }
        Action::Ls { json: true } => print_json(&store.list()).map(|()| 0),
        Action::Ls { json: false } => print(&table(&store).to_string()).map(|()| 0),
        Action::Rm { name } => {
            // Only a name that is listed: no path can be smuggled in.
            let known = store.list();
            let named: Vec<_> = known.iter().filter(|snapshot| snapshot.name == name).collect();
            if named.is_empty() {
                return Err(unknown(&store, &name));
            }
            for snapshot in named {
                store.remove(snapshot)?;
            }
            Ok(0)
        }
    }
}

fn create(
    home: &Home,
    store: &Store,
    name: Option<&str>,
    warm: Option<String>,
    shape: &Shape,
    host: &Host,
) -> Result<u8> {
    let spec = shape.spec(home, warm)?;
    let recipe = spec.recipe();
    if let Some(name) = name {
        store.can_name(name, &recipe)?;
    }
    let files = host.prepared(home, &spec)?;
    let id = runtime()?.block_on(async {
        let mut signals = Signals::listen()?;
        let made = async {
            let plan = host.plan(home, spec, files, None).await?;
            let say = || say!("fireclaw: creating the snapshot");
            Ok(plan.snapshot(None, say).await?.id)
        };
        tokio::select! {
            made = made => made,
            // What was started is killed, and what was made half removed.
            signal = signals.next() => Err(CliError::interrupted(signal)),
        }
    })?;
    if let Some(name) = name {
        store.name(name, &recipe)?;
    }
    print(name.unwrap_or(&id)).map(|()| 0)
}

fn table(store: &Store) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_header(["NAME", "IMAGE", "MONITOR", "CPUS", "MEMORY", "DISK", "WARM"]);
    for snapshot in store.list() {
        let recipe = snapshot.recipe;
        table.add_row([
            snapshot.name,
            recipe.image,
            snapshot.vmm.unwrap_or_else(|| "(made when needed)".into()),
            recipe.cpus.to_string(),
            format!("{} MiB", recipe.memory_mib),
            format!("{} MiB", snapshot.disk_bytes >> 20),
            fireclaw_host::escape(&recipe.warm.unwrap_or_default()),
        ]);
    }
    table
}

/// The error for a snapshot that is not there.
pub fn unknown(store: &Store, name: &str) -> CliError {
    let mut names: Vec<_> = store.list().into_iter().map(|snapshot| snapshot.name).collect();
    names.dedup();
    let hint = match &names[..] {
        [] => "there are none; `fireclaw snapshot create --name NAME` makes one".to_owned(),
        names => format!("there are: {}", names.join(", ")),
    };
    CliError::new(Kind::Usage, format!("there is no snapshot named {name:?}")).hint(hint)
}
