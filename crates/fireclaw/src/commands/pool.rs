//! `fireclaw pool`: VMs that wait.

use fireclaw_image::Home;
use fireclaw_say::say;
use fireclaw_vm::pool::Pool;
use fireclaw_vm::snapshot::Store;

use crate::error::{CliError, Result};
use crate::machine::{self, Host, Shape};
use crate::runtime::runtime;
use crate::signals::Signals;
use crate::values;

/// Keep VMs ready, so that `fireclaw run` starts at once
///
/// Runs in the foreground until Ctrl-C or SIGTERM, then destroys its VMs. `fireclaw run` with
/// the same options takes a VM from the pool automatically; each VM is used once and replaced.
/// A waiting VM shares the snapshot's memory and gets its identity when it is taken.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fireclaw pool --size 4
  fireclaw pool --size 2 --snapshot py   VMs of a named snapshot")]
pub struct Args {
    /// Number of VMs to keep ready
    #[arg(short, long, value_name = "N", default_value = "4", value_parser = values::pool_size, allow_negative_numbers = true)]
    size: usize,

    /// Restore this named snapshot; see `fireclaw snapshot`
    #[arg(long, value_name = "NAME", conflicts_with_all = ["cpus", "memory", "image", "kernel"])]
    snapshot: Option<String>,

    #[command(flatten)]
    shape: Shape,

    #[command(flatten)]
    host: Host,
}

/// Keeps the pool until a signal comes.
pub fn execute(args: &Args) -> Result<u8> {
    let home = Home::from_environment();
    let store = Store::new(home.snapshots());
    let spec = match &args.snapshot {
        Some(name) => {
            let recipe = store.recipe(name);
            recipe.ok_or_else(|| super::snapshot::unknown(&store, name))?.into()
        }
        None => args.shape.spec(&home, None)?,
    };
    let files = args.host.prepared(&home, &spec)?;
    let local = tokio::task::LocalSet::new();
    runtime()?.block_on_local(local, async {
        let mut signals = Signals::listen()?;
        let serve = async {
            let plan = args.host.plan(&home, spec, files, None).await?;
            plan.needs_snapshots()?;
            let limit = plan.limit();
            if args.size > limit.sandboxes {
                let most = limit.sandboxes;
                return Err(CliError::usage(format!("{} VMs are too many", args.size))
                    .hint(format!("at most {most} here: {}", limit.reason)));
            }
            let snapshot = plan.snapshot(None, machine::say_making).await?;
            let pool = Pool::new(plan.launcher().clone(), snapshot, args.size, home.pool())?;
            let mut said = false;
            let never = pool.serve(|waiting, problem| {
                if let Some(problem) = problem {
                    say!("fireclaw: a VM was lost: {problem}");
                }
                if waiting == args.size && !said {
                    said = true;
                    say!("fireclaw: {waiting} VMs ready; Ctrl-C destroys them");
                }
            });
            match never.await? {}
        };
        tokio::select! {
            ended = serve => ended,
            // What waits is killed as it is dropped.
            _ = signals.next() => Ok(0),
        }
    })
}
