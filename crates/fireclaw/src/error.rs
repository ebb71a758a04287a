//! What a person is told when something fails: kind, cause, and what to do next.

use std::fmt::Write as _;

use fireclaw_host::{PathError, ProgramMissing};
use fireclaw_image::Error as ImageError;
use fireclaw_log::TOLD;
use fireclaw_vm::Error as VmError;
use tracing::error;

/// The exit status of `run` when Fireclaw itself failed, kept apart from those
/// of commands as `env` and `timeout` do.
pub const RUN_FAILED: u8 = 125;

/// Whose turn it is to do something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The command line asked for something that cannot be.
    Usage,
    /// This host lacks something.
    Host,
    /// The guest failed.
    Guest,
    /// The system refused something: permissions, space, files.
    System,
}

/// An error with a hint.
#[derive(Debug)]
pub struct CliError {
    kind: Kind,
    message: String,
    details: Vec<(&'static str, String)>,
    hint: Option<String>,
    /// An exit status other than the command's usual one.
    pub exit_code: Option<u8>,
}

/// The result of a command.
pub type Result<T> = std::result::Result<T, CliError>;

impl CliError {
    /// An error without a hint.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), details: Vec::new(), hint: None, exit_code: None }
    }

    /// A mistake on the command line.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { exit_code: Some(2), ..Self::new(Kind::Usage, message) }
    }

    /// Adds what to do next.
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// Ended by a signal to us: the status is what a shell makes of it.
    pub fn interrupted(signal: i32) -> Self {
        Self {
            exit_code: u8::try_from(128 + signal).ok(),
            ..Self::new(Kind::System, "interrupted")
        }
    }

    /// Text of another program that goes with it, under a name.
    pub fn detail(mut self, name: &'static str, text: String) -> Self {
        if !text.is_empty() {
            self.details.push((name, text));
        }
        self
    }

    /// What is shown, for tests and for [`CliError::report`].
    pub fn text(&self) -> String {
        let kind = match self.kind {
            Kind::Usage => "usage error",
            Kind::Host => "host error",
            Kind::Guest => "guest error",
            Kind::System => "error",
        };
        let mut text = format!("fireclaw: {kind}: {}\n", self.message);
        for (name, detail) in &self.details {
            let _ = writeln!(text, "{name}:");
            for line in detail.lines() {
                let _ = writeln!(text, "  | {line}");
            }
        }
        if let Some(hint) = &self.hint {
            let _ = writeln!(text, "hint: {hint}");
        }
        text
    }

    /// What failed.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to do next.
    pub fn advice(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Tells the user, and the log if there is one.
    pub fn report(&self) {
        if fireclaw_log::is_for_people() {
            fireclaw_say::raw_to_stderr(&self.text());
        }
        for (name, detail) in &self.details {
            let lines = detail.lines();
            lines.for_each(|line| error!(target: TOLD, detail = name, "{line}"));
        }
        error!(target: TOLD, hint = self.hint.as_deref(), "{}", self.message);
    }
}

fn hint_for_io(error: &std::io::Error) -> Option<&'static str> {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Some(
            "free some space, `fireclaw image prune` helps, or set FIRECLAW_HOME to another disk",
        ),
        ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => {
            Some("set FIRECLAW_HOME to a directory that you may write to")
        }
        _ => None,
    }
}

impl From<PathError> for CliError {
    fn from(error: PathError) -> Self {
        let told = Self::new(Kind::System, error.to_string());
        match hint_for_io(&error.cause) {
            Some(hint) => told.hint(hint),
            None => told,
        }
    }
}

impl From<fireclaw_sandbox::Error> for CliError {
    fn from(error: fireclaw_sandbox::Error) -> Self {
        use fireclaw_sandbox::Error;
        let message = error.to_string();
        match error {
            Error::Image(e) => e.into(),
            Error::Vm(e) => e.into(),
            Error::Network(e) => e.into(),
            Error::TooMuchMemory { .. } => {
                Self::new(Kind::Host, message).hint("request less with --memory")
            }
            Error::Variable { .. } => Self::usage(message),
            Error::NoSnapshots(_) => Self::new(Kind::Host, message).hint("use another --vmm"),
            Error::NoMke2fs => Self::new(Kind::Host, message),
            Error::File(error) => error.into(),
            _ => Self::new(Kind::System, message),
        }
    }
}

impl From<VmError> for CliError {
    fn from(error: VmError) -> Self {
        let message = error.to_string();
        match error {
            VmError::VmmMissing(ProgramMissing { program, variable }) => {
                Self::new(Kind::Host, message).hint(match &variable[..] {
                    "FIRECLAW_QEMU" => {
                        format!("apt-get install qemu-system-x86, or set {variable}")
                    }
                    _ => {
                        format!("put {program} on PATH, or set {variable} to it, or use --vmm qemu")
                    }
                })
            }
            VmError::KvmUnusable { reason } => {
                let hint = if reason.contains("ermission") {
                    "add yourself to group kvm (usermod -aG kvm $USER) and log in again, or use --vmm qemu"
                } else {
                    "use --vmm qemu, which emulates where there is no KVM"
                };
                Self::new(Kind::Host, message).hint(hint)
            }
            VmError::VmmTooOld { .. } => Self::new(Kind::Host, message)
                .hint("install a newer version, or use the other --vmm"),
            VmError::Spawn { .. } | VmError::Refused { .. } => {
                Self::new(Kind::Host, message).hint("`fireclaw doctor` shows what works here")
            }
            VmError::VmmDied { stderr, console, .. } => {
                let panicked = console.contains("Kernel panic");
                let refused = console.is_empty() && !stderr.is_empty();
                let (kind, message) = if panicked {
                    (Kind::Guest, "the guest's kernel panicked".to_owned())
                } else {
                    (if refused { Kind::Host } else { Kind::Guest }, message)
                };
                Self::new(kind, message)
                    .detail("last VMM output", stderr)
                    .detail("last console lines", console)
                    .hint(if panicked {
                        "if memory ran out, give it more with --memory"
                    } else {
                        "`fireclaw doctor` shows what works here"
                    })
            }
            VmError::GuestSilent { console, .. } => {
                Self::new(Kind::Guest, message).detail("last console lines", console).hint(
                    "is this host overloaded? set FIRECLAW_BOOT_TIMEOUT=<seconds> to wait longer",
                )
            }
            VmError::Protocol { console, .. } => {
                Self::new(Kind::Guest, message).detail("last console lines", console)
            }
            VmError::NotPrepared { output, .. } => Self::new(Kind::Usage, message)
                .detail("its last words", output)
                .hint("try it in a VM: fireclaw run COMMAND"),
            VmError::BadName { .. } => Self::new(Kind::Usage, message),
            VmError::PoolRuns => Self::new(Kind::Usage, message)
                .hint("stop that one first, or start one with other options"),
            VmError::File(error) => error.into(),
            _ => Self::new(Kind::System, message),
        }
    }
}

impl From<fireclaw_net::Error> for CliError {
    fn from(error: fireclaw_net::Error) -> Self {
        let made = Self::new(Kind::Host, error.to_string());
        match error.hint() {
            Some(hint) => made.hint(hint),
            None => made,
        }
    }
}

impl From<ImageError> for CliError {
    fn from(error: ImageError) -> Self {
        let message = error.to_string();
        match error {
            ImageError::NotSetUp { .. } => Self::new(Kind::Host, message)
                .hint("run `fireclaw setup` once, or add --yes to run it now"),
            ImageError::UnknownImage { known, .. } => {
                Self::new(Kind::Usage, message).hint(if known.is_empty() {
                    "run `fireclaw setup` to get the base image".to_owned()
                } else {
                    format!("there are: {}", known.join(", "))
                })
            }
            ImageError::BadName { .. } => Self::new(Kind::Usage, message),
            ImageError::Damaged { path, .. } => {
                Self::new(Kind::System, message).hint(if path.ends_with("manifest.json") {
                    "`fireclaw setup --force` rebuilds everything"
                } else {
                    "`fireclaw setup` rebuilds it; import your own images again"
                })
            }
            ImageError::BadKernel { .. } => Self::new(Kind::Usage, message).hint(
                "give an x86-64 vmlinux or bzImage with virtio-mmio, ext4 and overlay built in",
            ),
            ImageError::BadArchive { .. } => Self::new(Kind::Usage, message).hint(
                "a tar archive is needed: a root file system as `docker export` writes it, or an \
                 image as `docker save` does",
            ),
            ImageError::BelowFolder { ref folder, .. } => {
                let hint = format!("pack what is in it: tar -C {folder} -cf - .");
                Self::new(Kind::Usage, message).hint(hint)
            }
            ImageError::OneLayer { .. } => Self::new(Kind::Usage, message).hint(
                "give the whole image, as `docker save` or `skopeo copy … oci-archive:FILE` writes it",
            ),
            ImageError::WhichImage { ref known, .. } => Self::new(Kind::Usage, message)
                .hint(match &known[..] {
                    [] => "leave out --tag".to_owned(),
                    known => format!("choose one with --tag: {}", known.join(", ")),
                }),
            ImageError::ToolMissing { program } => Self::new(Kind::Host, message)
                .hint(format!("apt-get install {program}")),
            ImageError::ToolFailed { problem, program } => {
                let hint = if problem.contains("chroot mode") {
                    "without root, set-up needs user namespaces: apt-get install uidmap, and a line \
                     for you in /etc/subuid and /etc/subgid; or run it as root once"
                } else {
                    "is the network up? --mirror URL uses another apt mirror"
                };
                Self::new(Kind::Host, format!("{program} failed"))
                    .detail("its last words", problem)
                    .hint(hint)
            }
            ImageError::Cancelled => Self {
                exit_code: Some(130),
                ..Self::new(Kind::System, "set-up was interrupted")
                    .hint("run it again to continue where it stopped")
            },
            ImageError::NoSpace { .. } => Self::new(Kind::System, message)
                .hint("free some space, or set FIRECLAW_HOME to a larger disk"),
            ImageError::File(error) => error.into(),
            _ => Self::new(Kind::System, message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_shows_the_console_and_a_hint() {
        let error = CliError::from(VmError::VmmDied {
            status: "qemu exited with status 0".into(),
            stderr: String::new(),
            console: "Kernel panic - not syncing: x\nRebooting".into(),
        });
        insta::assert_snapshot!(error.text(), @r"
        fireclaw: guest error: the guest's kernel panicked
        last console lines:
          | Kernel panic - not syncing: x
          | Rebooting
        hint: if memory ran out, give it more with --memory
        ");
    }

    #[test]
    fn every_kind_of_missing_program_has_its_hint() {
        let missing = |variable: &str| {
            let (program, variable) = ("it".into(), variable.into());
            CliError::from(VmError::VmmMissing(ProgramMissing { program, variable })).text()
        };
        assert!(missing("FIRECLAW_QEMU").contains("apt-get install qemu-system-x86"));
        assert!(missing("FIRECLAW_FIRECRACKER").contains("set FIRECLAW_FIRECRACKER"));
        let tool = CliError::from(ImageError::ToolMissing { program: "mmdebstrap" });
        assert!(tool.text().contains("apt-get install mmdebstrap"));
    }
}
