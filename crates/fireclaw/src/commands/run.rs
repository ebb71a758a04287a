//! `fireclaw run`: one command in a throw-away microVM, or in a sandbox that stays.

mod named;

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fireclaw_daemon::Restart;
use fireclaw_host::PathError;
use fireclaw_image::{Home, ImageConfig, Manifest};
use fireclaw_policy::Network;
use fireclaw_protocol::message::{EnvVar, ExecRequest};
use fireclaw_sandbox::{Ports, Publication, SandboxSpec};
use fireclaw_vm::snapshot::Store;

use crate::error::{CliError, Result};
use crate::machine::{Host, Shape};
use crate::phases::Phases;
use crate::run::relay::Reads;
use crate::run::spool::Spool;
use crate::run::{Order, Outcome, parallel, publish, relay};
use crate::runtime::runtime;
use crate::signals::Signals;
use crate::values;

/// How long a command may take that nobody watches.
const TIMEOUT: Duration = Duration::from_secs(60);

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
  fireclaw run -it --image python:3.12 bash
  fireclaw run --image python:3.12 python3 -c 'print(6*7)'
  fireclaw run --parallel 8 'echo clone $FIRECLAW_CLONE'
  fireclaw run -d --name web --image nginx --publish 8080:80

Environment:
  FIRECLAW_QEMU, FIRECLAW_FIRECRACKER, FIRECLAW_JAILER   programs to use instead of those on PATH
  FIRECLAW_BOOT_TIMEOUT   boot timeout in seconds (30 on KVM, 120 emulated)")]
pub struct Args {
    /// Shell command line for the guest's /bin/sh, or a program and its arguments as several
    /// words. With an ENTRYPOINT, all are its arguments
    #[arg(value_name = "LINE", num_args = 0..)]
    line: Vec<OsString>,

    /// Program and arguments, run without a shell
    #[arg(last = true, value_name = "CMD")]
    argv: Vec<OsString>,

    /// Kill the command after this many seconds, or a time such as 10m [default: 60; never with
    /// a terminal]
    #[arg(short, long, value_name = "SECONDS", value_parser = values::timeout, allow_negative_numbers = true)]
    timeout: Option<Duration>,

    /// Set an environment variable; NAME alone passes the host's value
    #[arg(short, long = "env", value_name = "NAME[=VALUE]", value_parser = values::variable())]
    envs: Vec<EnvVar>,

    /// Set the variables of a file: a line NAME[=VALUE] each, and comments after #
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,

    /// Program to run instead of the image's ENTRYPOINT; "" for none
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<OsString>,

    /// Working directory in the guest [default: the image's WORKDIR, or the user's home]
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<OsString>,

    /// User in the guest, by name or number [default: the image's USER, or root]
    #[arg(short, long, value_name = "USER[:GROUP]")]
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

    /// Run the command in N VMs at once. Each reads all of standard input. Output lines are
    /// labelled, FIRECLAW_CLONE holds the number of each VM, and the exit status is the highest
    #[arg(short, long, value_name = "N", value_parser = values::parallel, allow_negative_numbers = true)]
    parallel: Option<usize>,

    /// Egress policy: none, local (the services in network.toml), full (the internet), or
    /// allow:NAME,… with host names, *.domains and :ports
    #[arg(long, value_name = "POLICY", default_value = "none", value_parser = values::network)]
    network: Network,

    /// Forward a host port to the guest. Listens on 127.0.0.1 unless an address is given; host
    /// port 0 picks a free port and prints it. -p 8080:80 is the same
    #[arg(long, value_name = "[ADDR:]HOST_PORT:GUEST_PORT")]
    publish: Vec<Publication>,

    /// Run in a sandbox that stays, in the background; print its name
    #[arg(short, long)]
    detach: bool,

    /// Run in a sandbox of this name, which stays until `fireclaw rm`
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// Remove the sandbox when its command has ended, which is so without --name and -d
    #[arg(long)]
    rm: bool,

    /// What happens when the command of a sandbox that stays has ended: no, on-failure[:N],
    /// always or unless-stopped
    #[arg(long, value_name = "POLICY", default_value = "no", conflicts_with = "rm")]
    restart: Restart,

    /// Size of the disk of a sandbox that stays; it takes what is written
    #[arg(long, value_name = "SIZE", default_value = "10G", value_parser = values::disk)]
    disk: u64,

    /// Give the command a terminal: yours. -it is the same
    #[arg(long, conflicts_with_all = ["parallel", "no_stdin"])]
    tty: bool,

    /// Forward standard input, which is the default
    #[arg(short, long, conflicts_with = "no_stdin")]
    interactive: bool,

    /// Do not forward standard input
    #[arg(short = 'n', long)]
    no_stdin: bool,

    /// Print the time of each phase on standard error
    #[arg(short, long)]
    verbose: bool,
}

/// Makes a sandbox that stays, and leaves it stopped.
pub fn create(args: Args) -> Result<u8> {
    named::create(args)
}

/// Runs the command.
pub fn execute(args: Args) -> Result<u8> {
    if args.detach || args.name.is_some() {
        return named::run(args);
    }
    if args.restart != Restart::No {
        return Err(CliError::usage("--restart is for a sandbox that stays")
            .hint("fireclaw run -d --name NAME --restart POLICY …"));
    }
    let mut phases = Phases::start(args.verbose);
    args.check()?;
    let ports = args.ports()?;
    let home = Home::from_environment();
    let spec = args.spec(&home)?;
    let manifest = Manifest::read(&home)?;
    let image = manifest.images.get(&spec.image).map(|image| &image.config);
    let request = args.request(image.unwrap_or(&ImageConfig::default()))?;
    let files = args.host.prepared(&home, &spec)?;
    let runtime = runtime()?;
    let outcome = runtime.block_on(async {
        let mut signals = Signals::listen()?;
        let reads = Reads::of(args.tty, args.no_stdin)?;
        let plan = tokio::select! {
            plan = args.host.plan(&home, spec, files, args.jail) => plan?,
            signal = signals.next() => return Ok(Outcome::Interrupted(signal)),
        };
        let from_cold = args.no_snapshot || args.jail.is_some();
        let order = Order { plan: &plan, from_cold, timeout: args.limit() };
        match args.parallel {
            None => single(&order, request, reads, ports, signals, &mut phases).await,
            Some(clones) => {
                let input = args.spool(home.root())?;
                parallel::run(&order, clones, &request, input, signals, &mut phases).await
            }
        }
    });
    phases.report();
    // Reading standard input cannot be interrupted: do not wait for it.
    runtime.shutdown_background();
    outcome.map(|outcome| outcome.report("", args.limit()))
}

async fn single(
    order: &Order<'_>,
    request: ExecRequest,
    mut reads: Reads,
    ports: Ports,
    mut signals: Signals,
    phases: &mut Phases,
) -> Result<Outcome> {
    let mut sandbox = tokio::select! {
        started = order.start(phases) => started?,
        // What was started is killed and removed as it is dropped.
        signal = signals.next() => return Ok(Outcome::Interrupted(signal)),
    };
    // Before the command's time begins.
    tokio::select! {
        handed = reads.hand_over() => handed?,
        signal = signals.next() => return Ok(Outcome::Interrupted(signal)),
        death = sandbox.guest.died() => return Err(death.into()),
    }
    let commands = sandbox.guest.commands();
    let work = relay::run(&commands, request, reads, signals);
    let relayed = publish::during(ports, &commands, work);
    let outcome = relay::attend(&mut sandbox.guest, relayed, order.timeout).await;
    phases.mark("command");
    let ended = sandbox.end().await;
    phases.mark("clean-up");
    let outcome = outcome?;
    ended?;
    Ok(outcome)
}

impl Args {
    /// How long the command may take.
    fn limit(&self) -> Option<Duration> {
        self.timeout.or_else(|| (!self.tty).then_some(TIMEOUT))
    }

    /// What many clones read.
    fn spool(&self, directory: &Path) -> Result<Option<Spool>> {
        if self.no_stdin {
            return Ok(None);
        }
        Ok(Some(Spool::start(directory).map_err(PathError::at("create a file in", directory))?))
    }

    /// The sandbox that was asked for.
    fn spec(&self, home: &Home) -> Result<SandboxSpec> {
        let spec = match &self.snapshot {
            None => self.shape.spec(home, None)?,
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
        publish::open(&self.publish)
    }

    /// Refuses what can be refused before anything is pulled or started.
    fn check(&self) -> Result<()> {
        let is_blank = |word: &OsString| word.to_string_lossy().trim().is_empty();
        match (&self.line[..], &self.argv[..]) {
            ([line], []) if is_blank(line) => {
                Err(CliError::usage("the command is empty").hint("fireclaw run \"uname -a\""))
            }
            ([], [program, ..]) if program.is_empty() => {
                Err(CliError::usage("the command is empty").hint("fireclaw run -- uname -a"))
            }
            ([line, ..], rest) if self.line.len() > 1 || !rest.is_empty() => {
                let words: Vec<_> =
                    self.line.iter().chain(rest).map(|w| w.to_string_lossy()).collect();
                let words = words.join(" ");
                let hint = if values::looks_like_an_image(line) {
                    format!("to run an image: fireclaw run --image {words}")
                } else {
                    // Options between the words are ours by now, so they are not repeated.
                    let program = line.to_string_lossy();
                    let program = program.split(' ').next().unwrap_or_default();
                    format!(
                        "quote it: fireclaw run \"{program} …\", or put -- before it: \
                         fireclaw run -- {program} …"
                    )
                };
                Err(CliError::usage("the shell command line must be one argument").hint(hint))
            }
            _ => self.user.as_deref().map_or(Ok(()), values::guest_user),
        }
    }

    /// The words of the command in an image that says this about how it is run.
    fn argv(&self, image: &ImageConfig) -> Vec<Vec<u8>> {
        let entrypoint = match &self.entrypoint {
            Some(program) if program.is_empty() => Vec::new(),
            Some(program) => vec![program.as_bytes().to_vec()],
            None => image.entrypoint.iter().map(|word| word.as_bytes().to_vec()).collect(),
        };
        let command: Vec<Vec<u8>> = match (&self.line[..], &self.argv[..]) {
            // Another entry point has no use for the image's arguments.
            ([], []) if self.entrypoint.is_some() => Vec::new(),
            ([], []) => image.cmd.iter().map(|word| word.as_bytes().to_vec()).collect(),
            ([line], _) if entrypoint.is_empty() && !is_program(line) => {
                [b"/bin/sh", &b"-c"[..], line.as_bytes()].map(<[u8]>::to_vec).into()
            }
            (line, argv) => line.iter().chain(argv).map(|w| w.as_bytes().to_vec()).collect(),
        };
        entrypoint.into_iter().chain(command).collect()
    }

    /// What is run in an image that says this about how it is run.
    fn request(&self, image: &ImageConfig) -> Result<ExecRequest> {
        let request = self.any_request(image)?;
        if request.argv.is_empty() {
            return Err(CliError::usage("there is no command to run")
                .hint("fireclaw run \"uname -a\", or fireclaw run -- uname -a"));
        }
        Ok(request)
    }

    /// The same, also if there is no command.
    fn any_request(&self, image: &ImageConfig) -> Result<ExecRequest> {
        let of_files = self.env_file.iter().map(|file| values::variables_of(file));
        let of_files: Vec<_> = of_files.collect::<Result<_>>()?;
        let argv = self.argv(image).into_iter().map(Into::into).collect();
        let variable = |text: &String| {
            let (name, value) = text.split_once('=')?;
            let [name, value] = [name, value].map(|part| part.as_bytes().to_vec().into());
            Some(EnvVar { name, value })
        };
        let workdir = self.workdir.as_ref().map(|path| path.as_bytes().to_vec());
        // One that says how it is run and no folder means the root, as with Docker.
        let of_image = || match &*image.workdir {
            "" if image.is_empty() => None,
            "" => Some(b"/".to_vec()),
            workdir => Some(workdir.as_bytes().to_vec()),
        };
        let user = self.user.clone().or_else(|| Some(image.user.clone()).filter(|u| !u.is_empty()));
        Ok(ExecRequest {
            id: 0,
            argv,
            // What was asked for comes later and wins.
            env: image
                .env
                .iter()
                .filter_map(variable)
                .chain(of_files.into_iter().flatten())
                .chain(self.envs.clone())
                .collect(),
            workdir: workdir.or_else(of_image).map(Into::into),
            user,
            timeout_ms: self
                .limit()
                .map(|limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)),
            terminal: None,
        })
    }
}

/// Whether a line is nothing but the path of a program, which needs no shell: an image may
/// have none.
fn is_program(line: &OsString) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._+-".contains(byte);
    line.as_bytes().starts_with(b"/") && line.as_bytes().iter().all(plain)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn args(words: &[&str]) -> Args {
        Line::parse_from(["run"].iter().chain(words)).args
    }

    fn argv(words: &[&str], image: &ImageConfig) -> Vec<String> {
        let request = args(words).request(image).unwrap();
        request.argv.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect()
    }

    fn owned(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn entry_point_and_command_are_those_of_docker() {
        let plain = ImageConfig { cmd: owned(&["bash"]), ..ImageConfig::default() };
        assert_eq!(argv(&[], &plain), ["bash"]);
        assert_eq!(argv(&["ls /"], &plain), ["/bin/sh", "-c", "ls /"]);
        assert_eq!(argv(&["/hello"], &plain), ["/hello"]);
        assert_eq!(argv(&["--", "ls", "/"], &plain), ["ls", "/"]);
        let tool = ImageConfig {
            entrypoint: owned(&["/tool", "-x"]),
            cmd: owned(&["--help"]),
            ..ImageConfig::default()
        };
        assert_eq!(argv(&[], &tool), ["/tool", "-x", "--help"]);
        assert_eq!(argv(&["sub command"], &tool), ["/tool", "-x", "sub command"]);
        assert_eq!(argv(&["--", "a", "b"], &tool), ["/tool", "-x", "a", "b"]);
        assert_eq!(argv(&["--entrypoint", "/bin/ls"], &tool), ["/bin/ls"]);
        assert_eq!(argv(&["--entrypoint", "/bin/ls", "--", "-l"], &tool), ["/bin/ls", "-l"]);
        assert_eq!(argv(&["--entrypoint", "", "id"], &tool), ["/bin/sh", "-c", "id"]);
        let none = args(&[]).request(&ImageConfig::default());
        assert!(none.unwrap_err().text().contains("no command"));
    }

    #[test]
    fn what_is_asked_for_wins_over_what_the_image_says() {
        let image = ImageConfig {
            env: owned(&["A=image", "B=image=x", "broken"]),
            user: "1000:50".into(),
            workdir: "/app".into(),
            ..ImageConfig::default()
        };
        let request = args(&["-e", "A=own", "id"]).request(&image).unwrap();
        let env: Vec<_> = request.env.iter().map(|v| (&v.name[..], &v.value[..])).collect();
        let expected: [(&[u8], &[u8]); 3] = [(b"A", b"image"), (b"B", b"image=x"), (b"A", b"own")];
        assert_eq!(env, expected);
        assert_eq!(request.user.as_deref(), Some("1000:50"));
        assert_eq!(request.workdir.as_deref(), Some(&b"/app".to_vec()));
        let request = args(&["-u", "root", "-w", "/", "id"]).request(&image).unwrap();
        assert_eq!(request.user.as_deref(), Some("root"));
        assert_eq!(request.workdir.as_deref(), Some(&b"/".to_vec()));
    }

    #[test]
    fn who_knows_docker_is_shown_the_right_line() {
        let hint = |words: &[&str]| args(words).check().unwrap_err().text();
        let said = hint(&["python:3.12", "python3", "app.py"]);
        assert!(said.contains("--image python:3.12 python3 app.py"), "{said}");
        assert!(hint(&["uname", "x"]).contains("fireclaw run -- uname …"));
        args(&["uname -a"]).check().unwrap();
        args(&[]).check().unwrap();
    }
}
