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
/// `fireclaw run` makes a snapshot when it first needs one, of a machine that
/// has booted and waits for its command, and every later run of the same shape
/// starts from it. One that you give a name can have run a command before, so
/// that what this loaded is in memory already. Anything that went into a
/// snapshot and changes, such as the kernel, the image or the VMM, makes it
/// useless, and the next run makes it anew.
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
    /// Make a snapshot now, instead of when it is first needed
    Create {
        /// A name, for `run --snapshot`; without one, it is what runs of the
        /// same shape use
        #[arg(long)]
        name: Option<String>,

        /// A shell line to run before; nothing that it starts runs on
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
    /// Remove a snapshot; machines that run from it go on
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
    let spec = shape.spec(warm);
    let recipe = spec.recipe();
    if let Some(name) = name {
        store.can_name(name, &recipe)?;
    }
    let files = host.prepared(home, &spec)?;
    let id = runtime()?.block_on(async {
        let mut signals = Signals::listen()?;
        let made = async {
            let plan = host.plan(home, spec, files, None).await?;
            let say = || say!("fireclaw: making the snapshot");
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
            fireclaw_vm::escape(&recipe.warm.unwrap_or_default()),
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
