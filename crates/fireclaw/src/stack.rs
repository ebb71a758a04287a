//! The stack of this process, and of the programs that it starts.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::error::{CliError, Kind, Result};

/// The least stack, in bytes. Less has QEMU end with SIGSEGV, and this program, too, which
/// could then no longer say why.
const LEAST: u64 = 1024 * 1024;

/// What Linux gives a process unless told otherwise, in bytes.
const USUAL: u64 = 8 * 1024 * 1024;

/// Raises a limit on the stack that is too low, which counts at once and for all programs
/// that are started from here.
///
/// # Errors
/// If it may not be raised.
pub fn ensure() -> Result<()> {
    let known = getrlimit(Resource::Stack);
    let Some(wanted) = wanted(known) else { return Ok(()) };
    setrlimit(Resource::Stack, wanted).map_err(|_| {
        let kib = known.current.unwrap_or_default() / 1024;
        CliError::new(
            Kind::Host,
            format!("the stack is limited to {kib} KiB, {} are needed", LEAST / 1024),
        )
        .hint("run `ulimit -s 8192` in a new shell and try again")
    })
}

/// What to set if the limit is too low. A hard limit that is too low may be raised by root.
fn wanted(known: Rlimit) -> Option<Rlimit> {
    let is_low = |limit: Option<u64>| limit.is_some_and(|limit| limit < LEAST);
    if !is_low(known.current) {
        return None;
    }
    let maximum = if is_low(known.maximum) { Some(USUAL) } else { known.maximum };
    Some(Rlimit { current: Some(maximum.unwrap_or(USUAL).min(USUAL)), maximum })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1024;

    #[test]
    fn only_a_stack_that_is_too_small_is_made_larger() {
        for (current, maximum, expected) in [
            (Some(USUAL), None, None),
            (None, None, None),
            (Some(LEAST), Some(LEAST), None),
            (Some(64 * KIB), None, Some((Some(USUAL), None))),
            (Some(64 * KIB), Some(2048 * KIB), Some((Some(2048 * KIB), Some(2048 * KIB)))),
            (Some(64 * KIB), Some(64 * KIB), Some((Some(USUAL), Some(USUAL)))),
        ] {
            let limit = wanted(Rlimit { current, maximum });
            assert_eq!(limit.map(|it| (it.current, it.maximum)), expected);
        }
    }
}
