//! `fireclaw run`: one command in a throw-away microVM.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use fireclaw_image::Home;
use fireclaw_policy::Network;
use fireclaw_protocol::message::{EnvVar, ExecRequest};
use fireclaw_sandbox::SandboxSpec;
use fireclaw_vm::snapshot::Store;

use crate::error::{CliError, Result};
use crate::machine::{Host, Shape};
use crate::phases::Phases;
use crate::run::publish::{Ports, Publication};
use crate::run::{Order, Outcome, parallel, relay};
use crate::runtime::runtime;
use crate::signals::Signals;
use crate::values;

/// Run a command in a fresh microVM
///
/// The command gets its own kernel and disk, which are destroyed when it exits. Standard input,
/// output and error are streamed. Exit status: the command's own, 128+n if signal n killed it,
/// 124 on timeout, 127 if the command was not found, 126 if it cannot be executed, 125 if
/// Fireclaw failed.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fireclaw run \"uname -a\"
  fireclaw run -v \"python3 -c 'print(6*7)'\"
  tar c src | fireclaw run --memory 1G \"tar x -C /tmp && make -C /tmp/src\"
  fireclaw run --user agent --env KEY=value --workdir /tmp -- env
  fireclaw run --timeout 600 --publish 8080:80 \"python3 -m http.server 80\"
  fireclaw run --network allow:deb.example.org,*.example.net:443 \"curl http://deb.example.org/\"
  fireclaw run --parallel 8 'echo clone $FIRECLAW_CLONE'

Environment:
  FIRECLAW_QEMU, FIRECLAW_FIRECRACKER, FIRECLAW_JAILER   programs to use instead of those on PATH
  FIRECLAW_BOOT_TIMEOUT   boot timeout in seconds (30 on KVM, 120 emulated)")]
pub struct Args {
    /// Shell command line for the guest's /bin/sh
    #[arg(value_name = "LINE", num_args = 0..)]
    line: Vec<OsString>,

    /// Program and arguments, run without a shell
    #[arg(last = true, value_name = "CMD")]
    argv: Vec<OsString>,

    /// Kill the command after this many seconds
    #[arg(short, long, value_name = "SECONDS", default_value = "60", value_parser = values::timeout, allow_negative_numbers = true)]
    timeout: Duration,

    /// Set an environment variable
    #[arg(short, long = "env", value_name = "NAME=VALUE", value_parser = values::variable())]
    envs: Vec<EnvVar>,

    /// Working directory in the guest [default: the user's home]
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<OsString>,

    /// User in the guest, by name or number [default: root]
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,

    #[command(flatten)]
    shape: Shape,

    #[command(flatten)]
    host: Host,

    /// Run Firecracker in its jailer as this user and group (root only)
    #[arg(long, value_name = "UID:GID", value_parser = values::owner)]
    jail: Option<(u32, u32)>,

    /// Cold-boot instead of restoring a snapshot
    #[arg(long)]
    no_snapshot: bool,

    /// Restore this named snapshot; see `fireclaw snapshot`
    #[arg(long, value_name = "NAME", conflicts_with_all = ["cpus", "memory", "image", "kernel", "no_snapshot", "jail"])]
    snapshot: Option<String>,

    /// Run the command in N VMs at once. Output lines are labelled, FIRECLAW_CLONE holds the
    /// number of each VM, and the exit status is the highest
    #[arg(short, long, value_name = "N", value_parser = values::parallel, allow_negative_numbers = true)]
    parallel: Option<usize>,

    /// Egress policy: none, local (the services in network.toml), full (the internet), or
    /// allow:NAME,… with host names, *.domains and :ports
    #[arg(long, value_name = "POLICY", default_value = "none", value_parser = values::network)]
    network: Network,

    /// Forward a host port to the guest. Listens on 127.0.0.1 unless an address is given; host
    /// port 0 picks a free port and prints it
    #[arg(long, value_name = "[ADDR:]HOST_PORT:GUEST_PORT")]
    publish: Vec<Publication>,

    /// Do not forward standard input
    #[arg(short = 'n', long)]
    no_stdin: bool,

    /// Print the time of each phase on standard error
    #[arg(short, long)]
    verbose: bool,
}

/// Runs the command.
pub fn execute(args: Args) -> Result<u8> {
    let mut phases = Phases::start(args.verbose);
    let request = args.request()?;
    let ports = args.ports()?;
    let home = Home::from_environment();
    let spec = args.spec(&home)?;
    let files = args.host.prepared(&home, &spec)?;
    let runtime = runtime()?;
    let outcome = runtime.block_on(async {
        let mut signals = Signals::listen()?;
        let plan = tokio::select! {
            plan = args.host.plan(&home, spec, files, args.jail) => plan?,
            signal = signals.next() => return Ok(Outcome::Interrupted(signal)),
        };
        let from_cold = args.no_snapshot || args.jail.is_some();
        let order = Order { plan: &plan, from_cold, timeout: args.timeout };
        match args.parallel {
            None => single(&order, request, !args.no_stdin, ports, signals, &mut phases).await,
            Some(clones) => parallel::run(&order, clones, &request, signals, &mut phases).await,
        }
    });
    phases.report();
    // Reading standard input cannot be interrupted: do not wait for it.
    runtime.shutdown_background();
    outcome.map(|outcome| outcome.report("", args.timeout))
}

async fn single(
    order: &Order<'_>,
    request: ExecRequest,
    with_stdin: bool,
    ports: Ports,
    mut signals: Signals,
    phases: &mut Phases,
) -> Result<Outcome> {
    let mut sandbox = tokio::select! {
        started = order.start(phases) => started?,
        // What was started is killed and removed as it is dropped.
        signal = signals.next() => return Ok(Outcome::Interrupted(signal)),
    };
    let commands = sandbox.guest.commands();
    let relayed = ports.during(&commands, relay::run(&commands, request, with_stdin, signals));
    let outcome = relay::attend(&mut sandbox.guest, relayed, order.timeout).await;
    phases.mark("command");
    let ended = sandbox.end().await;
    phases.mark("clean-up");
    let outcome = outcome?;
    ended?;
    Ok(outcome)
}

impl Args {
    /// The sandbox that was asked for.
    fn spec(&self, home: &Home) -> Result<SandboxSpec> {
        let spec = match &self.snapshot {
            None => self.shape.spec(None),
            Some(name) => {
                let store = Store::new(home.snapshots());
                store.recipe(name).ok_or_else(|| super::snapshot::unknown(&store, name))?.into()
            }
        };
        Ok(SandboxSpec { network: self.network.clone(), ..spec })
    }

    /// The ports that are published, taken before anything is started.
    fn ports(&self) -> Result<Ports> {
        if self.parallel.is_some() && !self.publish.is_empty() {
            return Err(CliError::usage("--publish cannot be combined with --parallel")
                .hint("start them one by one, each with its own port"));
        }
        Ports::open(&self.publish)
    }

    fn request(&self) -> Result<ExecRequest> {
        let bytes = |word: &OsString| word.as_bytes().to_vec().into();
        let argv = match (&self.line[..], &self.argv[..]) {
            ([], []) => {
                return Err(CliError::usage("there is no command to run")
                    .hint("fireclaw run \"uname -a\", or fireclaw run -- uname -a"));
            }
            ([line], []) if line.to_string_lossy().trim().is_empty() => {
                return Err(
                    CliError::usage("the command is empty").hint("fireclaw run \"uname -a\"")
                );
            }
            ([line], []) => {
                [OsStr::new("/bin/sh"), OsStr::new("-c"), line].map(|w| bytes(&w.to_owned())).into()
            }
            ([], argv) if argv[0].is_empty() => {
                return Err(
                    CliError::usage("the command is empty").hint("fireclaw run -- uname -a")
                );
            }
            ([], argv) => argv.iter().map(bytes).collect(),
            (words, rest) => {
                let words: Vec<_> = words.iter().chain(rest).map(|w| w.to_string_lossy()).collect();
                let words = words.join(" ");
                return Err(CliError::usage("the shell command line must be one argument").hint(format!(
                    "quote it: fireclaw run {words:?}, or pass arguments: fireclaw run -- {words}"
                )));
            }
        };
        self.user.as_deref().map_or(Ok(()), values::guest_user)?;
        Ok(ExecRequest {
            id: 0,
            argv,
            env: self.envs.clone(),
            workdir: self.workdir.as_ref().map(bytes),
            user: self.user.clone(),
            timeout_ms: Some(u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX)),
        })
    }
}
