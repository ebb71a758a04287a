//! `fireclaw run -d`, `fireclaw run --name` and `fireclaw create`: sandboxes that stay.

use fireclaw_daemon::SandboxConfig;
use fireclaw_image::{Home, ImageConfig, Manifest};

use super::Args;
use crate::client::exec::{variable, words};
use crate::client::sandboxes::Sandboxes;
use crate::commands::print;
use crate::error::{CliError, Result};
use crate::run::relay::Reads;
use crate::runtime::runtime;

/// The kind of terminal that every image knows.
const PLAIN: &str = "xterm";

/// Makes one and runs its command: attached to it, or in the background.
pub fn run(args: Args) -> Result<u8> {
    let home = Home::from_environment();
    let (name, detach, no_stdin) = (args.name.clone(), args.detach, args.no_stdin);
    if args.tty && !detach {
        // Before anything is made that would have to be removed.
        drop(Reads::of(true, false)?);
    }
    let config = args.config(&home)?;
    let has_command = !config.command.is_empty();
    let runtime = runtime()?;
    let done = runtime.block_on(async {
        let sandboxes = Sandboxes::of(&home).await?;
        let name = sandboxes.create(name, config).await?;
        if !detach && has_command {
            return sandboxes.attach(&name, true, no_stdin).await;
        }
        sandboxes.start(&name).await?;
        print(&name).map(|()| 0)
    });
    // Reading standard input cannot be interrupted: do not wait for it.
    runtime.shutdown_background();
    done
}

/// Makes one and leaves it stopped.
pub fn create(args: Args) -> Result<u8> {
    let home = Home::from_environment();
    if args.detach {
        return Err(CliError::usage("--detach is for `fireclaw run`")
            .hint("fireclaw create starts nothing; fireclaw start NAME does"));
    }
    let name = args.name.clone();
    let config = args.config(&home)?;
    runtime()?.block_on(async {
        let name = Sandboxes::of(&home).await?.create(name, config).await?;
        print(&name).map(|()| 0)
    })
}

impl Args {
    /// What the sandbox is made from. Its image is pulled if it has to be.
    fn config(self, home: &Home) -> Result<SandboxConfig> {
        self.check()?;
        self.refuse_what_does_not_stay()?;
        let spec = self.spec(home)?;
        self.host.prepared(home, &spec)?;
        let manifest = Manifest::read(home)?;
        let image = manifest.images.get(&spec.image).map(|image| &image.config);
        let request = self.any_request(image.unwrap_or(&ImageConfig::default()))?;
        let own = |bytes: Vec<u8>| String::from_utf8(bytes);
        let argv = request.argv.into_iter().map(|word| {
            use std::os::unix::ffi::OsStringExt;
            std::ffi::OsString::from_vec(word.into())
        });
        let workdir = request.workdir.map(|path| own(path.into())).transpose();
        Ok(SandboxConfig {
            image: spec.image,
            cpus: spec.cpus,
            memory_mib: spec.memory_mib,
            disk_mib: self.disk,
            network: spec.network,
            command: words(argv.collect())?,
            env: request.env.into_iter().map(variable).collect::<Result<_>>()?,
            workdir: workdir.map_err(|_| CliError::usage("the working directory is not UTF-8"))?,
            user: request.user,
            terminal: self.tty.then(|| std::env::var("TERM").unwrap_or_else(|_| PLAIN.into())),
            // As in Docker, what runs in the background reads nothing unless that is said.
            input: !self.no_stdin && (self.interactive || self.tty || !self.detach),
            publish: self.publish,
            restart: self.restart,
            remove: self.rm,
            stop_signal: None,
        })
    }

    /// Refuses what is only for a run that is thrown away.
    fn refuse_what_does_not_stay(&self) -> Result<()> {
        let given = [
            ("--parallel", self.parallel.is_some()),
            ("--snapshot", self.snapshot.is_some()),
            ("--no-snapshot", self.no_snapshot),
            ("--jail", self.jail.is_some()),
            ("--timeout", self.timeout.is_some()),
            ("--kernel", self.shape.has_kernel()),
        ];
        match given.into_iter().find(|(_, is_given)| *is_given) {
            Some((option, _)) => {
                Err(CliError::usage(format!("{option} is not for a sandbox that stays")))
            }
            None => Ok(()),
        }
    }
}
