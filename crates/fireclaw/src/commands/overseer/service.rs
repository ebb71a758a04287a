//! `fireclaw overseer install` and `uninstall`: the overseer as a systemd service.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Subcommand;
use fireclaw_host::PathError;
use fireclaw_image::Home;
use fireclaw_say::say;

use super::unit::{MARK, Unit};
use super::{Options, ensure_set_up};
use crate::error::{CliError, Kind, Result};

/// The unit's name.
const NAME: &str = "fireclaw-overseer.service";

/// Secrets that the overseer takes from its environment.
const SECRETS: [&str; 2] = ["FIRECLAW_IRC_PASSWORD", "FIRECLAW_MODEL_KEY"];

#[derive(Debug, Subcommand)]
pub enum Action {
    /// Install the overseer as a systemd service with these options
    ///
    /// Writes a unit with these options, enables it and starts it. The unit contains no
    /// secrets; it reads them from an environment file, which the command names.
    #[command(after_help = "\
Examples:
  fireclaw overseer install --local-model
  fireclaw overseer install --print --server irc.example.org --tls --port 6697
  sudo FIRECLAW_HOME=/var/lib/fireclaw fireclaw overseer install")]
    Install {
        #[command(flatten)]
        scope: ScopeArgs,
        /// Print the unit without installing it
        #[arg(long)]
        print: bool,
        /// Replace a unit that Fireclaw did not write
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        options: Box<Options>,
    },
    /// Stop the service and remove its unit; agent VMs keep running
    Uninstall {
        #[command(flatten)]
        scope: ScopeArgs,
        /// Remove a unit that Fireclaw did not write
        #[arg(long)]
        force: bool,
    },
}

#[derive(Debug, clap::Args)]
pub struct ScopeArgs {
    /// Use the user's service manager; the default without root
    #[arg(long, conflicts_with = "system")]
    user: bool,
    /// Use the system's service manager; the default for root
    #[arg(long)]
    system: bool,
}

/// Does what was asked.
pub fn execute(action: &Action) -> Result<u8> {
    match action {
        Action::Install { scope, print, force, options } => {
            let scope = Scope::of(scope)?;
            let home = Home::from_environment();
            let text = text(&scope, &home, options)?;
            if *print {
                return super::super::print(text.trim_end()).map(|()| 0);
            }
            ensure_set_up(&home)?;
            scope.refuse_foreign(*force)?;
            scope.write(&text)?;
            scope.start()?;
        }
        Action::Uninstall { scope, force } => {
            let scope = Scope::of(scope)?;
            scope.refuse_foreign(*force)?;
            scope.remove()?;
        }
    }
    Ok(0)
}

/// The unit for these options.
fn text(scope: &Scope, home: &Home, options: &Options) -> Result<String> {
    // A mistake is told now, not by a service that does not start.
    super::owners(options)?;
    if has_password(&options.model_server) {
        return Err(CliError::usage(
            "--model-server contains a password, which the unit would expose",
        )
        .hint(format!(
            "leave it out, and write FIRECLAW_MODEL_SERVER=… into {}",
            scope.secrets.display()
        )));
    }
    let program = std::env::current_exe()
        .map_err(|e| CliError::new(Kind::System, format!("cannot find this program: {e}")))?;
    for path in [&program, &scope.secrets] {
        // systemd takes no others, whatever the quotes.
        let is_plain = |c: char| !c.is_control() && !matches!(c, '"' | '\'' | '\\');
        if !path.to_str().is_some_and(|path| path.chars().all(is_plain)) {
            return Err(CliError::usage(format!("systemd does not accept the path {path:?}"))
                .hint("move it to a path of plain characters"));
        }
    }
    let mut arguments = vec!["overseer".into()];
    arguments.extend(options.words());
    let unit = Unit {
        is_system: scope.is_system,
        needs_network: options.server.is_some(),
        program: &program,
        arguments: &arguments,
        home: home.root(),
        secrets: &scope.secrets,
    };
    Ok(unit.text())
}

/// Whether a URL has a user and a password (RFC 3986, 3.2.1).
fn has_password(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split(['/', '?', '#']).next().is_some_and(|authority| authority.contains('@'))
}

/// Whose service it is.
struct Scope {
    is_system: bool,
    unit: PathBuf,
    secrets: PathBuf,
}

impl Scope {
    fn of(args: &ScopeArgs) -> Result<Self> {
        let is_system = args.system || (!args.user && rustix::process::geteuid().is_root());
        if is_system {
            let unit = Path::new("/etc/systemd/system").join(NAME);
            return Ok(Self { is_system, unit, secrets: "/etc/fireclaw/overseer.env".into() });
        }
        // Relative ones are void (XDG Base Directory Specification).
        let named = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
        let config = named
            .filter(|path| path.is_absolute())
            .or_else(|| Some(std::env::home_dir()?.join(".config")))
            .ok_or_else(|| CliError::new(Kind::Host, "no home directory found"))?;
        let unit = config.join("systemd/user").join(NAME);
        Ok(Self { is_system, unit, secrets: config.join("fireclaw/overseer.env") })
    }

    /// The hint for what root may do.
    fn file(
        &self,
        action: &'static str,
        path: &Path,
    ) -> impl FnOnce(std::io::Error) -> CliError + use<> {
        let lacks_root = self.is_system && !rustix::process::geteuid().is_root();
        let error = PathError::at(action, path.to_owned());
        move |cause| match lacks_root {
            true => CliError::from(error(cause)).hint("run as root, or use --user"),
            false => error(cause).into(),
        }
    }

    /// An error if there is a unit that we did not write.
    fn refuse_foreign(&self, force: bool) -> Result<()> {
        match fs::read(&self.unit) {
            Ok(text) if force || text.starts_with(MARK.as_bytes()) => Ok(()),
            Ok(_) => Err(CliError::new(
                Kind::System,
                format!("{} was written by somebody else", self.unit.display()),
            )
            .hint("check it first; --force overrides")),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(self.file("read", &self.unit)(e)),
        }
    }

    /// Writes the unit, whole or not at all.
    fn write(&self, text: &str) -> Result<()> {
        let new = self.unit.with_extension("service.new");
        if let Some(directory) = self.unit.parent() {
            fs::create_dir_all(directory).map_err(self.file("create", directory))?;
        }
        fs::write(&new, text).map_err(self.file("write", &new))?;
        fs::rename(&new, &self.unit).map_err(self.file("write", &self.unit))?;
        say!("fireclaw: wrote {}", self.unit.display());
        for name in SECRETS.iter().filter(|name| std::env::var_os(name).is_some()) {
            say!(
                "fireclaw: {name} is set here, but not for the service: write it into {}, mode 600",
                self.secrets.display()
            );
        }
        let others_may = |file: fs::Metadata| file.permissions().mode() & 0o077 != 0;
        if fs::metadata(&self.secrets).is_ok_and(others_may) {
            let secrets = self.secrets.display();
            say!("fireclaw: other users can read {secrets}; run chmod 600 {secrets}");
        }
        Ok(())
    }

    fn start(&self) -> Result<()> {
        if !self.is_managed() {
            let systemctl = self.systemctl();
            say!(
                "fireclaw: no systemd to start it runs here; where it does: {systemctl} daemon-reload && \
                 {systemctl} enable --now {NAME}"
            );
            return Ok(());
        }
        self.call(&["daemon-reload"])?;
        self.call(&["enable", NAME])?;
        // Also one that runs takes on what was written.
        self.call(&["restart", NAME])?;
        say!("fireclaw: overseer started; check it with {} status {NAME}", self.systemctl());
        if !self.is_system {
            say!("fireclaw: to keep it running while you are logged out: loginctl enable-linger");
        }
        Ok(())
    }

    fn remove(&self) -> Result<()> {
        if !self.unit.exists() {
            return Err(CliError::new(
                Kind::System,
                format!("there is no {}", self.unit.display()),
            ));
        }
        if self.is_managed() {
            self.call(&["disable", "--now", NAME])?;
        }
        fs::remove_file(&self.unit).map_err(self.file("remove", &self.unit))?;
        if self.is_managed() {
            self.call(&["daemon-reload"])?;
        }
        say!("fireclaw: removed {}; agent VMs keep running", self.unit.display());
        Ok(())
    }

    /// Whether the service manager runs: the system's as sd_booted(3) finds out, that of a
    /// user by what it has in the user's runtime directory.
    fn is_managed(&self) -> bool {
        if self.is_system {
            return sd_notify::booted().unwrap_or(false);
        }
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        runtime.is_some_and(|directory| directory.join("systemd/private").exists())
    }

    /// The command as people type it.
    fn systemctl(&self) -> &'static str {
        if self.is_system { "systemctl" } else { "systemctl --user" }
    }

    fn call(&self, words: &[&str]) -> Result<()> {
        let mut systemctl = Command::new("systemctl");
        if !self.is_system {
            systemctl.arg("--user");
        }
        let asked = format!("{} {}", self.systemctl(), words.join(" "));
        let status = systemctl.args(words).stdin(Stdio::null()).status();
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(CliError::new(Kind::Host, format!("{asked}: {status}"))
                .hint(format!("see {} status {NAME} and journalctl", self.systemctl()))),
            Err(e) => Err(CliError::new(Kind::Host, format!("{asked}: {e}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_in_urls_are_seen() {
        for url in ["http://ann:secret@host:1/v1", "ann:secret@host", "https://key@host?x"] {
            assert!(has_password(url), "{url}");
        }
        for url in ["http://127.0.0.1:11434", "http://host/@/a?b=c@d#e@f", "host"] {
            assert!(!has_password(url), "{url}");
        }
    }
}
