//! `fireclaw doctor`: check this host.

pub(super) mod check;
mod prove;

use std::time::Duration;

use fireclaw_image::{Artifact, Home, Manifest};
use fireclaw_vm::probe::{self, Cache, Prober, Verdict};
use fireclaw_vm::{Backend, Disk, Error as VmError, MachineSpec};
use serde::Serialize;

use super::{print, print_json};
use crate::error::Result;
use crate::machine::Host;
use crate::runtime::runtime;
use check::{Check, Grade, fail, ok, warn};

/// Check this host and explain what is missing
///
/// Exits 0 if `fireclaw run` works on this host, 1 if not.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fireclaw doctor
  fireclaw doctor --json | jq '.checks[] | select(.verdict != \"ok\")'
  fireclaw doctor --reprobe              probe KVM again
  fireclaw doctor --prove                clock, randomness, identity, disks, memory and
                                         leaks of clones, as measured here and now")]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,

    /// Probe KVM again instead of using the cached result
    #[arg(long)]
    reprobe: bool,

    /// Start clones of one snapshot and prove that they share nothing
    #[arg(long)]
    prove: bool,

    #[command(flatten)]
    host: Host,
}

#[derive(Debug, Serialize)]
struct Report {
    /// Whether `fireclaw run` can work here.
    ready: bool,
    checks: Vec<Check>,
    /// What `--prove` found out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    proved: Vec<Check>,
}

/// Runs every check.
pub fn execute(args: &Args) -> Result<u8> {
    let home = Home::from_environment();
    let mut checks = vec![
        processor(),
        memory(),
        home_check(&home),
        space(&home),
        left_over(&home),
        state(&home),
    ];
    checks.extend(prepared(&home));
    checks.push(namespaces());
    checks.extend(tools());
    checks.extend(runtime()?.block_on(vmms(&home, args.reprobe)));
    let passed = |checks: &[Check]| checks.iter().all(|c| c.verdict != Grade::Fail);
    let ready = passed(&checks);
    let proved = match ready && args.prove {
        true => prove::prove(&home, &args.host)?,
        false => Vec::new(),
    };
    let report = Report { ready, checks, proved };
    if args.json {
        print_json(&report)?;
    } else {
        let verdict = if ready { "ready: fireclaw run works here" } else { "not ready" };
        print(&format!("{}\n{verdict}", check::table(&report.checks)))?;
        if args.prove && ready {
            print(&format!("\nclones of one snapshot:\n{}", check::table(&report.proved)))?;
        }
    }
    Ok(u8::from(!ready || !passed(&report.proved)))
}

fn processor() -> Check {
    match std::env::consts::ARCH {
        "x86_64" => ok("processor", "x86-64"),
        other => fail("processor", other, "Fireclaw runs on x86-64 only, so far"),
    }
}

fn memory() -> Check {
    let available = fireclaw_sandbox::memory_mib("MemAvailable:").unwrap_or(0);
    let found = format!("{available} MiB free");
    if available >= 512 {
        ok("memory", found)
    } else {
        warn("memory", found, "a run takes 256 MiB by default; see --memory")
    }
}

fn home_check(home: &Home) -> Check {
    let root = home.root();
    // No file is made to try it: a killed doctor would leave it.
    let may = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    let written = match home.make_private() {
        Ok(()) => rustix::fs::access(root, may).map_err(|e| std::io::Error::from(e).to_string()),
        Err(e) => Err(e.to_string()),
    };
    match written {
        Ok(()) => ok("home", root.display().to_string()),
        Err(e) => fail(
            "home",
            format!("{}: {e}", root.display()),
            "set FIRECLAW_HOME to a directory that you may write to",
        ),
    }
}

fn space(home: &Home) -> Check {
    match rustix::fs::statvfs(home.root()) {
        Ok(stat) => {
            let mib = stat.f_bavail.saturating_mul(stat.f_frsize) >> 20;
            let found = format!("{mib} MiB free");
            if mib >= 1500 {
                ok("disk", found)
            } else {
                warn("disk", found, "set-up needs 1500 MiB; `fireclaw image prune` frees some")
            }
        }
        Err(e) => {
            fail("disk", e.to_string(), "set FIRECLAW_HOME to a directory that you may write to")
        }
    }
}

/// What the overseer keeps.
fn state(home: &Home) -> Check {
    match fireclaw_daemon::Daemon::check_state(home) {
        Ok(true) => ok("state", "state.db is whole"),
        Ok(false) => ok("state", "none yet"),
        Err(e) => {
            let told = crate::commands::overseer::daemon_error(e);
            warn("state", told.message().to_owned(), told.advice().unwrap_or_default())
        }
    }
}

fn left_over(home: &Home) -> Check {
    match fireclaw_vm::sweep(&home.run()) {
        Ok(swept) if !swept.stuck.is_empty() => warn(
            "left over",
            format!("{} cannot be removed", swept.stuck[0].display()),
            "remove it by hand, as the user who made it",
        ),
        Ok(swept) => match swept.directories.len() {
            0 => ok("left over", "nothing"),
            1 => ok("left over", "removed 1 orphaned VM"),
            n => ok("left over", format!("removed {n} orphaned VMs")),
        },
        Err(e) => warn("left over", e.to_string(), "remove it by hand"),
    }
}

/// Kernel and image, read in full and compared with their digests.
fn prepared(home: &Home) -> Vec<Check> {
    const HINT: &str = "run `fireclaw setup`";
    let manifest = match Manifest::read(home) {
        Ok(manifest) => manifest,
        Err(e) => return vec![fail("set-up", e.to_string(), HINT)],
    };
    let found = |name, artifacts: &[&Artifact], what: String| match artifacts
        .iter()
        .find_map(|artifact| artifact.verify(home).err())
    {
        None => ok(name, what),
        Some(e) => fail(name, e.to_string(), HINT),
    };
    let kernel = match manifest.kernel() {
        None => fail("kernel", "none", HINT),
        Some((name, kernel)) => {
            let artifacts: Vec<_> = [&kernel.image].into_iter().chain(&kernel.modules).collect();
            found("kernel", &artifacts, format!("{} ({name})", kernel.release))
        }
    };
    let image = match manifest.images.get(Manifest::BASE_IMAGE) {
        None => fail("base image", "none", HINT),
        Some(image) => {
            let what = format!("{}, {} MiB", image.origin, image.rootfs.bytes >> 20);
            found("base image", &[&image.rootfs], what)
        }
    };
    let others: Vec<_> = manifest.artifacts().collect();
    vec![kernel, image, found("all files", &others, format!("{} intact", others.len()))]
}

fn namespaces() -> Check {
    if rustix::process::geteuid().is_root() {
        return ok("set-up rights", "root");
    }
    // As mmdebstrap needs it: with a range of ids of one's own (subuid(5)).
    let output = std::process::Command::new("unshare")
        .args(["--user", "--map-auto", "--map-root-user", "true"])
        .output();
    match output {
        Ok(output) if output.status.success() => ok("set-up rights", "user namespaces"),
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr);
            warn(
                "set-up rights",
                text.lines().next().unwrap_or("user namespaces cannot be used"),
                "apt-get install uidmap, and a line for you in /etc/subuid and /etc/subgid; or run `fireclaw setup` as root once",
            )
        }
        Err(e) => warn("set-up rights", format!("unshare: {e}"), "apt-get install util-linux"),
    }
}

fn tools() -> Vec<Check> {
    [("mmdebstrap", "set-up builds the base image with it: apt-get install mmdebstrap")]
        .into_iter()
        .map(|(name, hint)| match fireclaw_host::find_program("", name) {
            Ok(path) => ok(name, path.display().to_string()),
            Err(_) => warn(name, "not installed", hint),
        })
        .collect()
}

/// The VMMs, and whether a guest boots on KVM.
async fn vmms(home: &Home, reprobe: bool) -> Vec<Check> {
    let mut cache = Cache::open(&home.host_cache());
    if reprobe {
        cache.forget_verdicts();
    }
    let bootable = fireclaw_image::resolve(home, Manifest::BASE_IMAGE, None).ok();
    let spec = bootable.map(|b| MachineSpec {
        kernel: b.kernel,
        initramfs: b.initramfs,
        cpus: 1,
        memory_mib: 256,
        disks: vec![Disk { path: b.rootfs, read_only: true }],
        interface: false,
        kernel_args: Vec::new(),
    });
    let empty = MachineSpec {
        kernel: "".into(),
        initramfs: "".into(),
        cpus: 1,
        memory_mib: 256,
        disks: Vec::new(),
        interface: false,
        kernel_args: Vec::new(),
    };
    let run = home.run();
    let mut prober = Prober { spec: spec.as_ref().unwrap_or(&empty), run: &run, cache };
    let firecracker = prober.firecracker();
    let qemu = prober.qemu(fireclaw_vm::qemu::Accelerator::Kvm);
    let mut checks = Vec::new();
    checks.push(match &qemu {
        Ok(qemu) => ok("QEMU", qemu.version()),
        Err(e) if firecracker.is_ok() => warn(
            "QEMU",
            e.to_string(),
            "needed where KVM does not work: apt-get install qemu-system-x86",
        ),
        Err(e) => fail("QEMU", e.to_string(), "apt-get install qemu-system-x86"),
    });
    checks.push(match &firecracker {
        Ok(firecracker) if firecracker.lacks_seccomp() => warn(
            "Firecracker",
            format!("{}, a build for glibc: it has no system-call policy", firecracker.version()),
            "install the release's own build, which is static (musl)",
        ),
        Ok(firecracker) => ok("Firecracker", firecracker.version()),
        Err(e @ VmError::VmmTooOld { .. }) => {
            warn("Firecracker", e.to_string(), "install a newer one")
        }
        Err(e) => warn("Firecracker", e.to_string(), "optional: the fastest VMM where KVM works"),
    });
    let backend: Option<Box<dyn Backend>> = match (firecracker, qemu) {
        (Ok(firecracker), _) => Some(Box::new(firecracker)),
        (_, Ok(qemu)) => Some(Box::new(qemu)),
        _ => None,
    };
    checks.push(kvm(&mut prober, backend.filter(|_| spec.is_some()).as_deref()).await);
    checks
}

async fn kvm(prober: &mut Prober<'_>, backend: Option<&dyn Backend>) -> Check {
    const EMULATED: &str =
        "runs are emulated, many times slower; use a host with (nested) virtualization";
    if let Err(reason) = probe::open_kvm() {
        let hint = if reason.contains("ermission") {
            "add yourself to group kvm: usermod -aG kvm $USER, then log in again"
        } else {
            EMULATED
        };
        return warn("KVM", reason, hint);
    }
    let Some(backend) = backend else {
        return warn(
            "KVM",
            "/dev/kvm opens, but nothing is there to boot on it yet",
            "run `fireclaw setup`",
        );
    };
    match prober.prove(backend).await {
        Verdict::Boots { milliseconds } => {
            ok("KVM", format!("a guest booted in {milliseconds} ms"))
        }
        Verdict::Hangs => warn(
            "KVM",
            format!(
                "/dev/kvm opens, but no guest booted on it within {} s",
                Duration::as_secs(&probe::BOOT_LIMIT)
            ),
            EMULATED,
        ),
        Verdict::Interprets { turn_ns } => {
            warn("KVM", format!("/dev/kvm opens, but {}", probe::interprets(turn_ns)), EMULATED)
        }
        Verdict::Fails { reason } => warn("KVM", reason, EMULATED),
    }
}
