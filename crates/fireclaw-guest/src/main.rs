//! PID 1 of a Fireclaw microVM.
//!
//! The kernel starts this static program from the initramfs. It loads the few
//! modules that are needed, lays a writable overlay on the read-only base
//! image, makes that the root, and then serves the host over one stream until
//! the VM is killed. It keeps no secret and trusts only the host.
//!
//! Started again as `/run/fireclaw/guest agent`, it is the built-in agent, and as
//! `/run/fireclaw/guest leave` it has the VM ready to be ended, and as
//! `/run/fireclaw/guest root DEVICE` it has a disk keep what is written to the root.

/// Writes a line to the console, which the host shows when a VM ends too
/// early. A console that cannot be written is no reason to end: a panic of PID 1
/// is the kernel's.
macro_rules! say {
    ($($argument:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), "fireclaw-guest: {}", format_args!($($argument)*));
    }};
}
pub(crate) use say;

mod boot;
mod connect;
mod exec;
mod identity;
mod interface;
mod leave;
mod limits;
mod root;
mod serve;
mod transport;

use std::os::fd::AsFd;
use std::process::ExitCode;

use tokio::net::unix::pipe;

fn main() -> ExitCode {
    if std::process::id() != 1 {
        match std::env::args_os().nth(1) {
            Some(argument) if argument == "agent" => return agent(),
            Some(argument) if argument == "leave" => return leave(),
            Some(argument) if argument == "root" => return root(),
            _ => {}
        }
        let version = env!("CARGO_PKG_VERSION");
        say!("version {version} is the init of a microVM; it does nothing elsewhere");
        return ExitCode::FAILURE;
    }
    let problem = match run() {
        Ok(never) => match never {},
        Err(problem) => problem,
    };
    say!("{problem}");
    let _ = rustix::system::reboot(rustix::system::RebootCommand::Restart);
    ExitCode::FAILURE
}

/// Runs the built-in agent, which the host starts as user `agent`.
fn agent() -> ExitCode {
    match talk() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            say!("the agent ended: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Ends what runs and writes everything to the disks; the host starts it as root, and ends
/// the VM after it.
fn leave() -> ExitCode {
    let problems = leave::leave();
    for problem in &problems {
        say!("{problem}");
    }
    if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Makes a disk the upper layer of the root; the host starts it as root, before anything else.
fn root() -> ExitCode {
    let device = std::env::args().nth(2).unwrap_or_default();
    match root::replace(&device) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            say!("{problem}");
            ExitCode::FAILURE
        }
    }
}

/// Talks with the host over standard input and output, which are pipes as for every
/// command.
fn talk() -> std::io::Result<()> {
    let input = std::io::stdin().as_fd().try_clone_to_owned()?;
    let output = std::io::stdout().as_fd().try_clone_to_owned()?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let input = pipe::Receiver::from_owned_fd(input)?;
        let output = pipe::Sender::from_owned_fd(output)?;
        fireclaw_agent::run(input, output, fireclaw_agent::Paths::default()).await
    })
}

fn run() -> Result<std::convert::Infallible, String> {
    let booted = boot::boot()?;
    limits::set();
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| format!("cannot start: {e}"))?
        .block_on(serve::serve(&booted))
}
