//! Why a VM did not come up or went away.

use fireclaw_host::{PathError, ProgramMissing};

/// An error of this crate. The command line adds the hint for each kind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No VMM of that name is installed.
    #[error(transparent)]
    VmmMissing(#[from] ProgramMissing),
    /// Hardware virtualization was asked for and cannot be used.
    #[error("KVM cannot be used on this host: {reason}")]
    KvmUnusable {
        /// What was found when it was tried.
        reason: String,
    },
    /// The installed VMM is too old.
    #[error("{program} {found} is too old: {needed} or newer is needed")]
    VmmTooOld {
        /// The program.
        program: String,
        /// Its version.
        found: String,
        /// The oldest version that works.
        needed: String,
    },
    /// The VMM could not be started.
    #[error("cannot start {program}: {cause}")]
    Spawn {
        /// The program.
        program: String,
        /// What the system said.
        cause: std::io::Error,
    },
    /// The VMM refused what it was asked.
    #[error("{vmm} refused {request}: {message}")]
    Refused {
        /// The VMM's name.
        vmm: &'static str,
        /// The request, such as `PUT /boot-source`.
        request: String,
        /// The VMM's own words.
        message: String,
    },
    /// The VMM ended before the guest was done.
    #[error("the VMM ended unexpectedly ({status})")]
    VmmDied {
        /// How it ended, in words.
        status: String,
        /// The last of what it wrote to standard error, escaped.
        stderr: String,
        /// The last lines of the guest's console, escaped.
        console: String,
    },
    /// The guest did not report in time.
    #[error("the guest did not answer within {} s", limit.as_secs_f64())]
    GuestSilent {
        /// How long it was waited for.
        limit: std::time::Duration,
        /// The last lines of the guest's console, escaped.
        console: String,
    },
    /// The guest broke the protocol or its stream failed.
    #[error("the guest's stream failed: {cause}")]
    Protocol {
        /// What went wrong.
        cause: fireclaw_protocol::Error,
        /// The last lines of the guest's console, escaped.
        console: String,
    },
    /// The command that should have prepared a VM failed.
    #[error("the warming command {how}")]
    NotPrepared {
        /// How it ended, in words.
        how: String,
        /// The last of its output, escaped.
        output: String,
    },
    /// A snapshot cannot have this name.
    #[error("{name:?} cannot be the name of this snapshot: {problem}")]
    BadName {
        /// The name.
        name: String,
        /// Why not.
        problem: String,
    },
    /// The VM's network interface has nowhere to go: a mistake of the caller.
    #[error("the network interface cannot be attached: {0}")]
    TapAttachment(&'static str),
    /// There is a pool of this kind already.
    #[error("a pool with these options is already running")]
    PoolRuns,
    /// A file or directory of ours could not be used.
    #[error(transparent)]
    File(#[from] PathError),
    /// Another system call failed.
    #[error("{what}: {cause}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        cause: std::io::Error,
    },
}

/// The result of an operation on a VM.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn system(what: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |cause| Self::System { what, cause }
    }
}
