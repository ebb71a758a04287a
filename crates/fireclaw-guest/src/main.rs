//! PID 1 of a Fireclaw microVM.
//!
//! The kernel starts this static program from the initramfs. It loads the few
//! modules that are needed, lays a writable overlay on the read-only base
//! image, makes that the root, and then serves the host over one stream until
//! the machine is killed. It keeps no secret and trusts only the host.

/// Writes a line to the console, which the host shows when a machine ends too
/// early. A console that cannot be written is no reason to end: `eprintln`
/// would panic, and a panic of PID 1 is the kernel's.
macro_rules! say {
    ($($argument:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), "fireclaw-guest: {}", format_args!($($argument)*));
    }};
}
pub(crate) use say;

mod boot;
mod exec;
mod identity;
mod serve;
mod transport;

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::process::id() != 1 {
        eprintln!(
            "fireclaw-guest {} is the init of a microVM; it does nothing elsewhere",
            env!("CARGO_PKG_VERSION")
        );
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

fn run() -> Result<std::convert::Infallible, String> {
    let booted = boot::boot()?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| format!("cannot start: {e}"))?
        .block_on(serve::serve(&booted))
}
