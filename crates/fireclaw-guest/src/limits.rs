//! Limits on what each process may use, which all that PID 1 starts inherit.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// How many files a process may have open, unless it raises the limit: what programs that
/// use select(2), or close all descriptors one by one, can bear.
const OPEN_FILES: u64 = 1024;

/// How far it may raise it: as on a Linux with systemd. The kernel's own 4096 is too little
/// for databases and web servers.
const MOST_OPEN_FILES: u64 = 524_288;

/// Sets them.
pub fn set() {
    let known = getrlimit(Resource::Nofile);
    let wanted = open_files(known);
    if let Err(e) = setrlimit(Resource::Nofile, wanted) {
        crate::say!("the limit of open files stays {:?}: {e}", known.maximum);
    }
}

/// The limits of open files to set; one that is higher already stays.
fn open_files(known: Rlimit) -> Rlimit {
    let maximum = known.maximum.map(|most| most.max(MOST_OPEN_FILES));
    Rlimit { current: Some(OPEN_FILES), maximum }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_may_raise_its_limit_of_open_files() {
        for (most, expected) in [(Some(4096), Some(MOST_OPEN_FILES)), (None, None)] {
            let limit = open_files(Rlimit { current: Some(1), maximum: most });
            assert_eq!((limit.current, limit.maximum), (Some(OPEN_FILES), expected));
        }
    }
}
