//! Debian packages, fetched and unpacked by mmdebstrap.
//!
//! mmdebstrap lets apt verify every signature, needs no root where user
//! namespaces are allowed, and writes the result as a tar stream, which is
//! read here as it comes: nothing is unpacked on the host's disk by us.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use fireclaw_host::{PathError, die_with_owner, own_mounts};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::{Error, Home, Progress, Result};

const MMDEBSTRAP: &str = "mmdebstrap";

/// The release that kernel and base image are taken from.
pub const SUITE: &str = "bookworm";

/// The process group of the mmdebstrap that runs, or 0.
static RUNNING: AtomicI32 = AtomicI32::new(0);
static CANCELLED: AtomicBool = AtomicBool::new(false);

/// Makes the set-up in this process end soon, with [`Error::Cancelled`].
///
/// The whole group is told: mmdebstrap alone would first finish its step.
pub fn cancel() {
    CANCELLED.store(true, Ordering::SeqCst);
    if let Some(group) = Pid::from_raw(RUNNING.load(Ordering::SeqCst)) {
        let _ = kill_process_group(group, Signal::TERM);
    }
}

/// What mmdebstrap is asked for.
#[derive(Debug)]
pub struct Request<'a> {
    /// mmdebstrap's `--variant`.
    pub variant: &'a str,
    /// Packages besides those of the variant.
    pub packages: &'a [&'a str],
    /// Further options.
    pub options: &'a [&'a str],
    /// A mirror instead of the host's own.
    pub mirror: Option<&'a str>,
    /// Where mmdebstrap may put its temporary root.
    pub scratch: &'a Path,
}

/// Runs mmdebstrap and hands the tar stream to `consume`.
///
/// An error of mmdebstrap comes before one of `consume`, which most often only
/// follows from it. Nothing is left running or on disk afterwards.
pub fn fetch<T>(
    request: &Request,
    progress: &dyn Progress,
    consume: impl FnOnce(ChildStdout) -> Result<T>,
) -> Result<T> {
    make_scratch(request.scratch)?;
    let mut command = Command::new(MMDEBSTRAP);
    command
        .arg(format!("--variant={}", request.variant))
        .arg(format!("--include={}", request.packages.join(",")))
        .arg("--architectures=amd64")
        .args(request.options)
        .args([SUITE, "-"])
        .env("TMPDIR", request.scratch)
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    match request.mirror {
        Some(mirror) => drop(command.arg(mirror)),
        None => drop(command.args(host_sources())),
    }
    // SIGTERM lets it remove its temporary root. It then signals its whole process group,
    // which must not be ours, and is not.
    die_with_owner(&mut command, Signal::TERM);
    // As root it mounts the host's /proc and /sys below its temporary root, into which
    // whoever removes the data directory after a `kill -9` must not come.
    own_mounts(&mut command);
    if CANCELLED.load(Ordering::SeqCst) {
        return Err(Error::Cancelled);
    }
    let mut child = command.spawn().map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Error::ToolMissing { program: MMDEBSTRAP },
        _ => Error::ToolFailed { program: MMDEBSTRAP, problem: e.to_string() },
    })?;
    RUNNING.store(i32::try_from(child.id()).unwrap_or(0), Ordering::SeqCst);
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (consumed, last_words) = std::thread::scope(|scope| {
        let listener = scope.spawn(|| stderr.map(|e| listen(e, progress)).unwrap_or_default());
        let consumed = stdout.map(consume);
        (consumed, listener.join().unwrap_or_default())
    });
    let status = child
        .wait()
        .map_err(|e| Error::ToolFailed { program: MMDEBSTRAP, problem: e.to_string() })?;
    RUNNING.store(0, Ordering::SeqCst);
    match consumed {
        _ if CANCELLED.load(Ordering::SeqCst) => Err(Error::Cancelled),
        Some(Ok(result)) if status.success() => Ok(result),
        // Full disk and the like: mmdebstrap only saw its pipe close.
        Some(Err(e @ (Error::NoSpace { .. } | Error::File(_)))) => Err(e),
        Some(Err(e)) if status.success() => Err(e),
        _ => Err(Error::ToolFailed { program: MMDEBSTRAP, problem: last_words }),
    }
}

/// Follows mmdebstrap's messages; returns the last few lines.
fn listen(stderr: impl Read, progress: &dyn Progress) -> String {
    const KEEP: usize = 12;
    let mut last = VecDeque::new();
    for line in BufReader::new(stderr).split(b'\n').map_while(|line| line.ok()) {
        let line = String::from_utf8_lossy(&line);
        let line: String = line.trim_end().chars().filter(|c| !c.is_control()).take(300).collect();
        if let Some(message) = line.strip_prefix("I: ") {
            progress.detail(message.trim_end_matches("..."));
        }
        if !line.is_empty() {
            last.push_back(line);
            if last.len() > KEEP {
                last.pop_front();
            }
        }
    }
    Vec::from(last).join("\n")
}

/// The Debian sources that the host itself uses for [`SUITE`], as arguments
/// for mmdebstrap; none if it has none, and mmdebstrap then uses its default.
fn host_sources() -> Vec<String> {
    let format = "$(REPO_URI) $(RELEASE) $(COMPONENT)";
    let output = Command::new("apt-get")
        .args(["indextargets", "--format", format, "Identifier: Packages"])
        .stdin(Stdio::null())
        .output();
    let Ok(output) = output else { return Vec::new() };
    sources(&String::from_utf8_lossy(&output.stdout))
}

fn sources(targets: &str) -> Vec<String> {
    let mut lines: Vec<String> = targets
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [uri, release, component] = fields[..] else { return None };
            let ours = release == SUITE || release.strip_prefix(SUITE)?.starts_with('-');
            (ours && component == "main").then(|| format!("deb {uri} {release} {component}"))
        })
        .collect();
    lines.sort();
    lines.dedup();
    // Updates alone are no distribution.
    let release = format!(" {SUITE} main");
    if lines.iter().any(|line| line.ends_with(&release)) { lines } else { Vec::new() }
}

/// Where mmdebstrap works: below the home for root. Without root it works as
/// other user ids, which cannot enter a home directory that is closed to all.
pub fn scratch(home: &Home) -> PathBuf {
    let user = rustix::process::geteuid();
    if user.is_root() {
        home.root().join("cache/scratch")
    } else {
        std::env::temp_dir().join(format!("fireclaw-setup-{}", user.as_raw()))
    }
}

/// Removes what a killed mmdebstrap left. Files of other user ids can be
/// removed only from inside a namespace that maps them.
pub fn clear_scratch(home: &Home) {
    let scratch = scratch(home);
    if !unmount_below(&scratch) {
        return;
    }
    if scratch.exists() && std::fs::remove_dir_all(&scratch).is_err() {
        let _ = Command::new("unshare")
            .args(["--user", "--map-auto", "--map-root-user", "rm", "-rf"])
            .arg(&scratch)
            .output();
    }
}

/// Unmounts what an mmdebstrap of an earlier version left mounted; whether nothing is left:
/// what is removed here must not be the host's own.
fn unmount_below(directory: &Path) -> bool {
    let Ok(directory) = directory.canonicalize() else { return true };
    let points = || {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        mount_points(&mounts).into_iter().filter(|point| point.starts_with(&directory)).collect()
    };
    let below: Vec<PathBuf> = points();
    for point in below.iter().rev() {
        let _ = rustix::mount::unmount(point, rustix::mount::UnmountFlags::DETACH);
    }
    below.is_empty() || points().is_empty()
}

/// The fifth field of each line of `mountinfo` (proc(5)), in which spaces and the like are
/// octal. Those mounted last come last.
fn mount_points(mounts: &str) -> Vec<PathBuf> {
    let fields = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    let plain = |field: &str| {
        let mut parts = field.split('\\');
        let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
        for part in parts {
            match part.get(..3).and_then(|octal| u8::from_str_radix(octal, 8).ok()) {
                Some(byte) => {
                    bytes.push(byte);
                    bytes.extend(&part.as_bytes()[3..]);
                }
                None => bytes.extend(part.as_bytes()),
            }
        }
        PathBuf::from(OsString::from_vec(bytes))
    };
    fields.map(plain).collect()
}

/// Makes the scratch directory, or takes it over if it is our own.
fn make_scratch(scratch: &Path) -> Result<()> {
    use std::os::unix::fs::{DirBuilderExt, MetadataExt};
    if let Some(parent) = scratch.parent() {
        std::fs::create_dir_all(parent).map_err(PathError::at("create", parent))?;
    }
    let made = std::fs::DirBuilder::new().mode(0o755).create(scratch);
    let ours = std::fs::symlink_metadata(scratch)
        .is_ok_and(|m| m.is_dir() && m.uid() == rustix::process::geteuid().as_raw());
    match made {
        Err(e) if !(e.kind() == std::io::ErrorKind::AlreadyExists && ours) => {
            Err(PathError::at("create", scratch)(e).into())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_as_they_are() {
        let mounts = "36 35 98:0 / /a\\040b\\134c rw - ext4 /dev/x rw\n\
                      37 35 0:4 / /proc rw - proc proc rw\n";
        assert_eq!(mount_points(mounts), [Path::new("/a b\\c"), Path::new("/proc")]);
    }

    #[test]
    fn only_the_sources_of_our_suite_are_taken() {
        let targets = "http://m/debian/ bookworm main\nhttp://m/debian/ bookworm-updates main\n\
                       http://m/debian/ bookworm non-free\nhttp://other/ nodistro main\n\
                       http://m/debian/ bookworm main\n";
        assert_eq!(
            sources(targets),
            ["deb http://m/debian/ bookworm main", "deb http://m/debian/ bookworm-updates main"]
        );
        assert!(sources("http://m/debian/ trixie main\n").is_empty());
        assert!(sources("http://m/debian/ bookworm-updates main\n").is_empty());
    }
}
