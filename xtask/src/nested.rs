//! `cargo xtask nested`: the end-to-end tests on a real Firecracker where the
//! host has no KVM.
//!
//! A VM is booted with our own QEMU backend. Software emulation offers
//! AMD's virtualization to its guest, so KVM works inside, doubly slow. The
//! VM gets this checkout's binaries, a prepared home and Firecracker on a
//! second disk, and runs the tests with `FIRECLAW_VMM=firecracker`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use fireclaw_image::{Home, Manifest, Options};
use fireclaw_protocol::message::{ExecEvent, ExecRequest, ExitStatus};
use fireclaw_say::say;
use fireclaw_vm::probe::{Cache, Prober};
use fireclaw_vm::qemu::Accelerator;
use fireclaw_vm::{Backend, Disk, Launch, MachineSpec, Memory, RunDir, Waiting};

/// The exit status that says "there is no Firecracker here to test with".
const NO_FIRECRACKER: u8 = 77;

/// What the outer kernel needs besides the usual: KVM, what taps and the lab's internet are
/// made of, and what our rules are made of.
const MODULES: &[&str] = &[
    "kvm_amd",
    "kvm_intel",
    "tun",
    "bridge",
    "veth",
    "nf_conntrack_netlink",
    "nf_tables",
    "nft_chain_nat",
    "nft_connlimit",
    "nft_ct",
    "nft_fib_inet",
    "nft_masq",
    "nft_nat",
    "nft_reject_inet",
];

/// What the tests run there besides the usual.
const PACKAGES: &[&str] =
    &["busybox-static", "inspircd", "ngircd", "nftables", "slirp4netns", "strace"];

/// Tests of what the VM does not have: a network, programs, another kernel.
const SKIPPED: &[&str] = &[
    "set_up_survives_being_killed_and_doubled",
    "an_interrupted_set_up_leaves_nothing",
    "a_mirror_that_does_not_answer_is_said",
    "too_little_space_is_said_before_anything_is_fetched",
    "the_reference_is_up_to_date",
    // The outer VM runs the kernel that the tests give to the inner ones.
    "the_kernel_is_the_guests",
];

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A static (musl) Firecracker binary, 1.16.1 or newer, with its jailer beside it
    #[arg(long, env = "FIRECLAW_FIRECRACKER")]
    firecracker: Option<PathBuf>,

    /// Memory of the outer VM in MiB
    #[arg(long, default_value_t = 4096)]
    memory: u64,

    /// Only tests whose names contain one of these
    filters: Vec<String>,

    /// Run as a user without any right instead of root
    #[arg(long)]
    user: bool,

    /// A shell line to run instead of the tests, to look around
    #[arg(long)]
    command: Option<String>,
}

/// Boots the VM and runs the tests in it.
pub fn run(args: &Args) -> Result<ExitCode> {
    let Some(firecracker) = args.firecracker.as_deref().filter(|path| path.is_file()) else {
        say!(
            "xtask nested: no Firecracker to test with; give one with --firecracker PATH \
             (exit status {NO_FIRECRACKER})"
        );
        return Ok(ExitCode::from(NO_FIRECRACKER));
    };
    let work = crate::root().join("target/nested");
    std::fs::create_dir_all(&work)?;
    let inner = Home::from_environment();
    fireclaw_image::setup(&inner, &Options::default(), &crate::Plain)?;
    let outer = Home::new(work.join("home"));
    // A home does not know what it was asked for.
    let (wanted, noted) = (format!("{MODULES:?} {PACKAGES:?}"), work.join("wanted"));
    let force = std::fs::read_to_string(&noted).ok().as_ref() != Some(&wanted);
    let options = Options { modules: MODULES, packages: PACKAGES, force, ..Options::default() };
    fireclaw_image::setup(&outer, &options, &crate::Plain)?;
    std::fs::write(noted, wanted)?;

    say!("building the tests");
    let payload = work.join("payload.ext4");
    write_payload(&payload, firecracker, &inner)?;
    let spec = outer_machine(&outer, payload, args.memory)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let code = runtime.block_on(in_machine(&outer, &spec, &script(args)))?;
    runtime.shutdown_background();
    Ok(ExitCode::from(code))
}

fn outer_machine(outer: &Home, payload: PathBuf, memory_mib: u64) -> Result<MachineSpec> {
    let boot = fireclaw_image::resolve(
        outer,
        Manifest::BASE_IMAGE,
        Some(Path::new(Manifest::DEBIAN_KERNEL)),
    )?;
    Ok(MachineSpec {
        kernel: boot.kernel,
        initramfs: boot.initramfs,
        // With two, the processors' clocks drift apart in emulation, and a
        // guest on the inner KVM hangs now and then.
        cpus: 1,
        memory_mib,
        disks: vec![
            Disk { path: boot.rootfs, read_only: true },
            Disk { path: payload, read_only: true },
        ],
        interface: false,
        kernel_args: Vec::new(),
    })
}

/// What runs inside: as root, or as the image's user `agent`, to whom the devices are given
/// that distributions give to users.
fn script(args: &Args) -> String {
    let words = |option: &str, words: &mut dyn Iterator<Item = &str>| -> String {
        words.map(|word| format!(" {option}'{}'", word.replace('\'', ""))).collect()
    };
    // Those that are ignored need what is here, but for those that others start.
    let tests = format!(
        "exec /payload/e2e --test-threads=1 --include-ignored --skip ::inside_{}{}{}",
        words("--skip ", &mut SKIPPED.iter().copied()),
        if args.user { " --skip network::jail::" } else { "" },
        words("", &mut args.filters.iter().map(String::as_str)),
    );
    let (home, program) = match args.user {
        true => ("/home/agent", "exec runuser -u agent -- "),
        false => ("/root", "exec "),
    };
    format!(
        "set -e
        mkdir /payload && mount -o ro /dev/vdb /payload
        cp -r /payload/home {home}/fireclaw
        if [ {home} != /root ]; then
            chown -R agent: {home}/fireclaw
            chmod 666 /dev/kvm /dev/net/tun
        fi
        ls -l /dev/kvm
        /payload/firecracker --version | head -1
        export HOME={home} FIRECLAW_HOME={home}/fireclaw FIRECLAW_BIN=/payload/fireclaw
        export FIRECLAW_FIRECRACKER=/payload/firecracker FIRECLAW_VMM=firecracker
        export FIRECLAW_JAILER=/payload/jailer
        # A jail has devices of its own, which /tmp does not let be any.
        mkdir -m 1777 {home}/tmp && export TMPDIR={home}/tmp
        export FIRECLAW_BOOT_TIMEOUT=120 FIRECLAW_TEST_SLOWDOWN=10 FIRECLAW_TEST_RUNS=3
        cd {home}
        {program}/bin/bash -c '{}'",
        args.command.clone().unwrap_or(tests).replace('\'', "'\\''")
    )
}

/// Packs everything that the VM needs into one image.
fn write_payload(image: &Path, firecracker: &Path, home: &Home) -> Result<()> {
    let (fireclaw, tests) = built()?;
    let tar = image.with_extension("tar");
    let mut archive = tar::Builder::new(File::create(&tar)?);
    // Holes would be written as an extension that not every reader knows.
    archive.sparse(false);
    archive.append_path_with_name(firecracker, "firecracker")?;
    // Of the same release, so beside it.
    archive.append_path_with_name(firecracker.with_file_name("jailer"), "jailer")?;
    archive.append_path_with_name(fireclaw, "fireclaw")?;
    archive.append_path_with_name(tests, "e2e")?;
    archive.append_path_with_name(home.root().join("manifest.json"), "home/manifest.json")?;
    let manifest = Manifest::read(home)?;
    let boot = fireclaw_image::resolve(home, Manifest::BASE_IMAGE, None)?;
    let files = manifest.artifacts().map(|artifact| artifact.path(home));
    for file in files.chain([boot.initramfs]) {
        let name = Path::new("home").join(file.strip_prefix(home.root())?);
        archive.append_path_with_name(&file, name)?;
    }
    archive.finish()?;
    let _ = std::fs::remove_file(image);
    fireclaw_image::write_image(File::open(&tar)?, image)?;
    std::fs::remove_file(tar)?;
    Ok(())
}

/// Builds the command and its end-to-end tests; returns where they are.
fn built() -> Result<(PathBuf, PathBuf)> {
    let output = Command::new(env!("CARGO"))
        .args(["test", "--no-run", "--package", "fireclaw", "--test", "e2e"])
        .args(["--message-format", "json"])
        .current_dir(crate::root())
        .stderr(std::process::Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "building the tests failed");
    let (mut fireclaw, mut tests) = (None, None);
    for line in String::from_utf8(output.stdout)?.lines() {
        let message: serde_json::Value = serde_json::from_str(line)?;
        let executable = message["executable"].as_str().map(PathBuf::from);
        match message["target"]["name"].as_str() {
            Some("fireclaw") => fireclaw = executable.or(fireclaw),
            Some("e2e") => tests = executable.or(tests),
            _ => {}
        }
    }
    match (fireclaw, tests) {
        (Some(fireclaw), Some(tests)) => Ok((fireclaw, tests)),
        _ => bail!("cargo did not say where it put the tests"),
    }
}

async fn in_machine(home: &Home, spec: &MachineSpec, script: &str) -> Result<u8> {
    let run = home.run();
    let mut prober = Prober { spec, run: &run, cache: Cache::open(&home.host_cache()) };
    let tsc_khz = prober.cache.tsc_khz();
    let qemu = prober.qemu(Accelerator::Tcg { tsc_khz })?;
    let run_dir = RunDir::create(&run)?;
    say!("booting the outer VM");
    let machine = qemu
        .launch(Launch { spec, run_dir: &run_dir, memory: Memory::Fresh, attachment: None })
        .await?;
    let waiting = Waiting::meet(machine, Duration::from_secs(180)).await?;
    let mut guest = waiting.personalize("nested", None).await?;
    let argv = ["/bin/bash", "-c", script].map(|word| word.as_bytes().to_vec().into());
    let mut exec =
        guest.commands().exec(ExecRequest { argv: argv.into(), ..ExecRequest::default() }).await?;
    let (mut stdout, mut stderr) = (tokio::io::stdout(), tokio::io::stderr());
    let relayed = async {
        tokio::try_join!(
            tokio::io::copy(&mut exec.stdout, &mut stdout),
            tokio::io::copy(&mut exec.stderr, &mut stderr)
        )?;
        loop {
            match exec.events.next().await? {
                ExecEvent::Started => {}
                ExecEvent::Exited(ExitStatus::Code(code), _) => return anyhow::Ok(code),
                other => bail!("the tests did not end by themselves: {other:?}"),
            }
        }
    };
    let code = tokio::select! {
        code = relayed => code?,
        death = guest.died() => return Err(death.into()),
    };
    guest.kill().await?;
    Ok(code)
}
