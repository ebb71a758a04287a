//! A small internet in network namespaces: a host with an uplink, an internet with
//! resolver, HTTP, TLS and other servers, and guests at taps.
//!
//! A test calls [`enter`] first, which runs it once more as root of namespaces of its own:
//!
//! ```no_run
//! fn a_test() {
//!     let Some(lab) = fireclaw_netlab::enter("a_test") else { return };
//! }
//! ```
//!
//! Nothing leaves these namespaces, and everything in them ends with the test.

mod guest;
mod internet;
pub mod matrix;
mod namespace;
mod wire;

use std::path::Path;
use std::process::{Command, Stdio};

pub use guest::TapGuest;
pub use internet::{HOST, Internet};
pub use namespace::{Namespace, ip};
pub use wire::Wire;

/// Set in the process that is in the lab.
const INSIDE: &str = "FIRECLAW_NETLAB";

/// What the host's owner decided, in the lab.
pub const CONFIG: &str = r#"
ranges = ["192.168.77.0/24"]

[[service]]
name = "named"
address = "127.0.0.1:11434"
"#;

/// A host with an uplink to an internet.
#[derive(Debug)]
pub struct Lab {
    /// What is beyond the uplink.
    pub internet: Internet,
}

/// Enters the lab: runs the calling test once more in it. None in the outer process, after
/// the inner one has passed.
///
/// # Panics
/// If the lab can't be made, or the inner test failed.
#[allow(clippy::expect_used, clippy::panic)]
pub fn enter(test: &str) -> Option<Lab> {
    if std::env::var_os(INSIDE).is_none() {
        let program = std::env::current_exe().expect("a test has a program");
        let status = inside(&program)
            .args(["--exact", test, "--include-ignored", "--nocapture", "--test-threads=1"])
            .env(INSIDE, "1")
            .stdin(Stdio::null())
            .status()
            .expect("unshare is installed");
        assert!(status.success(), "{test} failed in the lab");
        return None;
    }
    Some(build())
}

/// Runs a program as root of namespaces of its own, where it calls [`build`].
pub fn inside(program: &Path) -> Command {
    let mut unshare = Command::new("unshare");
    // Root of the VM stays that, so that it is tested what root gives up.
    if !rustix::process::geteuid().is_root() {
        unshare.args(["--user", "--map-root-user"]);
    }
    unshare.args(["--net", "--mount", "--kill-child", "--fork"]).arg(program);
    unshare
}

/// Makes the lab in namespaces that this process has for itself, as [`inside`] starts it.
///
/// # Panics
/// If that is not possible.
pub fn build() -> Lab {
    namespace::ip("link set lo up");
    run("mount", &["-t", "tmpfs", "tmpfs", "/run"]);
    write("/run/resolv.conf", &format!("nameserver {}\n", internet::DNS));
    run("mount", &["--bind", "/run/resolv.conf", "/etc/resolv.conf"]);
    // What distributions allow: echo requests by users.
    write("/proc/sys/net/ipv4/ping_group_range", "0 0");
    Lab { internet: Internet::start() }
}

#[allow(clippy::expect_used)]
fn write(path: &str, text: &str) {
    std::fs::write(path, text).expect("a lab can write its files");
}

/// Runs a program that has to succeed.
///
/// # Panics
/// If it does not.
#[allow(clippy::expect_used)]
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect("it is installed");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
