//! `fireclaw run`: one command in a throw-away microVM.

use std::ffi::{OsStr, OsString};
use std::io::IsTerminal;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fireclaw_image::{Bootable, Home, Manifest, Options};
use fireclaw_protocol::message::{EnvVar, ExecRequest};
use fireclaw_vm::firecracker::Jail;
use fireclaw_vm::probe::{Cache, Choice, Prober};
use fireclaw_vm::snapshot::{Key, Snapshot, Store};
use fireclaw_vm::{Backend, Disk, Guest, Launch, MachineSpec, Memory, RunDir};

use crate::error::{CliError, Kind, Result};
use crate::run::phases::Phases;
use crate::run::signals::Signals;
use crate::run::{Outcome, relay, values};

/// Run a command in a fresh microVM
///
/// The command gets a kernel and a disk of its own, and both are gone when it
/// ends. Standard input, output and error stream through; the exit status is
/// the command's own, 128+n if signal n ended it, 124 if its time ran out, 127
/// if there is no such command, 126 if it cannot be executed, 125 if Fireclaw
/// itself failed.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fireclaw run \"uname -a\"
  fireclaw run -v \"python3 -c 'print(6*7)'\"
  tar c src | fireclaw run --memory 1G \"tar x -C /tmp && make -C /tmp/src\"
  fireclaw run --user agent --env KEY=value --workdir /tmp -- env

Environment:
  FIRECLAW_QEMU, FIRECLAW_FIRECRACKER, FIRECLAW_JAILER   these programs instead of those on PATH
  FIRECLAW_BOOT_TIMEOUT   seconds a guest may take to boot (30 on KVM, 120 emulated)")]
pub struct Args {
    /// A shell line, run by the guest's /bin/sh
    #[arg(value_name = "LINE", num_args = 0..)]
    line: Vec<OsString>,

    /// A program and its arguments, passed on as they are
    #[arg(last = true, value_name = "CMD")]
    argv: Vec<OsString>,

    /// End the command after so many seconds
    #[arg(short, long, value_name = "SECONDS", default_value = "60", value_parser = values::timeout, allow_negative_numbers = true)]
    timeout: Duration,

    /// Set a variable in the command's environment
    #[arg(short, long = "env", value_name = "NAME=VALUE", value_parser = values::variable())]
    envs: Vec<EnvVar>,

    /// Start in this directory of the guest [default: the user's home]
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<OsString>,

    /// Run as this user of the guest, by name or number [default: root]
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,

    /// Virtual processors
    #[arg(long, value_name = "N", default_value = "1", value_parser = values::cpus, allow_negative_numbers = true)]
    cpus: u32,

    /// Memory in MiB, or with a unit: 512, 512M, 2G
    #[arg(short, long, value_name = "SIZE", default_value = "256", value_parser = values::memory, allow_negative_numbers = true)]
    memory: u64,

    /// The image to boot
    #[arg(long, value_name = "NAME", default_value = Manifest::BASE_IMAGE)]
    image: String,

    /// Boot another kernel: a file, or a name from `fireclaw images ls`
    #[arg(long, value_name = "KERNEL")]
    kernel: Option<PathBuf>,

    /// The virtual machine monitor
    #[arg(long, value_name = "VMM", env = "FIRECLAW_VMM", default_value = "auto")]
    vmm: Vmm,

    /// Confine Firecracker with its jailer as this user and group (root only)
    #[arg(long, value_name = "UID:GID", value_parser = values::owner)]
    jail: Option<(u32, u32)>,

    /// Boot from cold instead of from a snapshot
    #[arg(long)]
    no_snapshot: bool,

    /// Do not pass standard input on
    #[arg(short = 'n', long)]
    no_stdin: bool,

    /// Show the phases with their milliseconds on standard error
    #[arg(short, long)]
    verbose: bool,

    /// Do not say that emulation is used
    #[arg(short, long, env = "FIRECLAW_QUIET", value_parser = clap::builder::FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    quiet: bool,

    /// If set-up has not been done, do it now
    #[arg(short, long)]
    yes: bool,
}

/// The monitors that can be asked for.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum Vmm {
    /// Firecracker if KVM boots, else QEMU on KVM, else QEMU emulated
    Auto,
    /// Firecracker on KVM
    Firecracker,
    /// QEMU, on KVM if it boots
    Qemu,
}

impl From<Vmm> for Choice {
    fn from(vmm: Vmm) -> Self {
        match vmm {
            Vmm::Auto => Self::Auto,
            Vmm::Firecracker => Self::Firecracker,
            Vmm::Qemu => Self::Qemu,
        }
    }
}

/// Runs the command.
pub fn execute(args: Args) -> Result<u8> {
    let mut phases = Phases::start(args.verbose);
    let request = args.request()?;
    values::fits_host(args.memory)?;
    let home = Home::from_environment();
    let bootable = prepared(&home, &args)?;
    // One thread: the VMM's parent-death signal is tied to the thread that
    // starts it, which must therefore be the one that lives longest.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| CliError::new(Kind::System, format!("cannot start: {e}")))?;
    let outcome = runtime.block_on(in_machine(&args, &home, bootable, request, &mut phases));
    phases.report();
    // Reading standard input cannot be interrupted: do not wait for it.
    runtime.shutdown_background();
    outcome.map(|outcome| outcome.report(args.timeout))
}

/// The boot files; set-up is done here if it may be.
fn prepared(home: &Home, args: &Args) -> Result<Bootable> {
    let resolve = || fireclaw_image::resolve(home, &args.image, args.kernel.as_deref());
    match resolve() {
        Err(fireclaw_image::Error::NotSetUp { .. })
            if args.yes || std::io::stderr().is_terminal() =>
        {
            eprintln!("fireclaw: first use: preparing {} once", home.root().display());
            super::setup::prepare(home, &Options::default())?;
            Ok(resolve()?)
        }
        other => Ok(other?),
    }
}

async fn in_machine(
    args: &Args,
    home: &Home,
    bootable: Bootable,
    request: ExecRequest,
    phases: &mut Phases,
) -> Result<Outcome> {
    let mut signals = Signals::listen()
        .map_err(|e| CliError::new(Kind::System, format!("cannot listen for signals: {e}")))?;
    let boot = boot(args, home, bootable, phases);
    // Bindings are dropped last to first: the guest is gone before its
    // directory is.
    let (run_dir, mut guest) = tokio::select! {
        booted = boot => booted?,
        // What was started is killed and removed as it is dropped.
        signal = signals.next() => return Ok(Outcome::Interrupted(signal)),
    };
    let commands = guest.commands();
    let outcome = tokio::select! {
        outcome = relay::run(&commands, request, !args.no_stdin, signals) => match outcome {
            Ok(outcome) => Ok(outcome),
            Err(relay::Broken::Guest(e)) => Err(guest.explain(e).await.into()),
            Err(relay::Broken::Output(e)) => Err(e),
        },
        death = guest.died() => Err(death.into()),
        // The guest keeps the time itself; one that does not is ended here.
        () = tokio::time::sleep(args.timeout + relay::GRACE) => Ok(Outcome::TimedOut),
    };
    phases.mark("command");
    let killed = guest.kill().await;
    drop(run_dir);
    phases.mark("clean-up");
    let outcome = outcome?;
    killed?;
    Ok(outcome)
}

async fn boot(
    args: &Args,
    home: &Home,
    bootable: Bootable,
    phases: &mut Phases,
) -> Result<(RunDir, Guest)> {
    let spec = MachineSpec {
        kernel: bootable.kernel,
        initramfs: bootable.initramfs,
        cpus: args.cpus,
        memory_mib: args.memory,
        disks: vec![Disk { path: bootable.rootfs, read_only: true }],
        kernel_args: Vec::new(),
    };
    let run = home.run();
    let mut prober = Prober { spec: &spec, run: &run, cache: Cache::open(&home.host_cache()) };
    let chosen = match args.jail {
        Some((uid, gid)) => {
            let program = fireclaw_vm::find_program("FIRECLAW_JAILER", "jailer")?;
            prober.jailed(Jail { program, uid, gid })?
        }
        None => prober.choose(args.vmm.into()).await?,
    };
    if let Some(note) = chosen.note.filter(|_| !args.quiet) {
        eprintln!("fireclaw: {note}");
    }
    let backend = chosen.backend.as_ref();
    let patience = values::boot_patience(backend.kind())?;
    if !args.no_snapshot && args.jail.is_none() && backend.capabilities().snapshot {
        match snapshot(backend, &spec, home, patience).await {
            Ok(snapshot) => {
                phases.mark("prepare");
                let memory = Memory::RestoredFrom(&snapshot.directory);
                match start(backend, &spec, &run, memory, patience, phases).await {
                    Ok(started) => return Ok(started),
                    Err(e) => {
                        phases.note(format!("the snapshot could not be used: {}", e.text()));
                        Store::new(home.snapshots()).remove(&snapshot.name)?;
                    }
                }
            }
            Err(e) => phases.note(format!("no snapshot could be made: {e}")),
        }
    }
    phases.mark("prepare");
    start(backend, &spec, &run, Memory::Fresh, patience, phases).await
}

/// The snapshot for this machine; made now if there is no valid one.
async fn snapshot(
    backend: &dyn Backend,
    spec: &MachineSpec,
    home: &Home,
    patience: Duration,
) -> fireclaw_vm::Result<Snapshot> {
    let key = Key::new(backend, spec)?;
    let run = home.run();
    let fill = async |directory: PathBuf| {
        if std::io::stderr().is_terminal() {
            eprintln!("fireclaw: making a snapshot, once, for faster starts from now on");
        }
        let run_dir = RunDir::create(&run)?;
        let memory = Memory::SavedTo(&directory);
        let machine = backend.launch(Launch { spec, run_dir: &run_dir, memory }).await?;
        Guest::save(machine, patience).await
    };
    Store::new(home.snapshots()).find_or_create(&key.automatic_name(), &key, fill).await
}

async fn start(
    backend: &dyn Backend,
    spec: &MachineSpec,
    run: &Path,
    memory: Memory<'_>,
    patience: Duration,
    phases: &mut Phases,
) -> Result<(RunDir, Guest)> {
    let run_dir = RunDir::create(run)?;
    let machine = backend.launch(Launch { spec, run_dir: &run_dir, memory }).await?;
    phases.mark("monitor start");
    let guest = Guest::greet(machine, "fireclaw", patience).await?;
    match guest.hello() {
        Some(hello) => phases.booted(hello),
        None => phases.mark("identity"),
    }
    Ok((run_dir, guest))
}

impl Args {
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
                return Err(CliError::usage("more than one word for the shell line").hint(format!(
                    "quote it: fireclaw run {words:?}, or pass arguments: fireclaw run -- {words}"
                )));
            }
        };
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
