//! The whole way with a real Firecracker: `--ignored`, and what it needs in
//! the environment. The guest need not get far, so any host with `/dev/kvm` will do.
//!
//! - `FIRECLAW_FIRECRACKER`: the program.
//! - `FIRECLAW_TEST_KERNEL`: a kernel that it takes.
//! - `FIRECLAW_JAILER`: Firecracker's jailer, for the test that needs root.

#![allow(clippy::disallowed_macros, reason = "the test harness collects what these print")]
// Helpers of tests, which the tests' own exemption does not reach.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use fireclaw_host::SocketDir;
use fireclaw_vm::firecracker::api::Api;
use fireclaw_vm::firecracker::types::{
    BackendType, LogLevel, Logger, MemoryBackend, Request, SnapshotCreateParams,
    SnapshotLoadParams, SnapshotType, Vm, VmState, VsockOverride,
};
use fireclaw_vm::firecracker::{Firecracker, Jail};
use fireclaw_vm::{
    Backend, Console, Disk, Error, Launch, Machine, MachineSpec, Memory, Namespace, Result, RunDir,
    TapAttachment, VmmProcess,
};
use tokio::io::AsyncReadExt;
use tokio::time::{sleep, timeout};

fn variable(name: &str) -> PathBuf {
    env::var_os(name).unwrap_or_else(|| panic!("{name} is not set")).into()
}

fn installed() -> Firecracker {
    let program = variable("FIRECLAW_FIRECRACKER");
    let version = Firecracker::ask_version(&program).unwrap();
    Firecracker::new(program, version).unwrap()
}

struct Home {
    dir: tempfile::TempDir,
    run_dir: RunDir,
    spec: MachineSpec,
}

impl Home {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, size| {
            let path = dir.path().join(name);
            std::fs::File::create(&path).unwrap().set_len(size).unwrap();
            path
        };
        let spec = MachineSpec {
            kernel: variable("FIRECLAW_TEST_KERNEL"),
            initramfs: file("initramfs", 4096),
            cpus: 1,
            memory_mib: 128,
            disks: vec![
                Disk { path: file("base", 1 << 20), read_only: true },
                Disk { path: file("overlay", 1 << 20), read_only: false },
            ],
            interface: false,
            kernel_args: Vec::new(),
        };
        // Deeper than a socket address is long.
        let run_dir = RunDir::create(&dir.path().join("r".repeat(100))).unwrap();
        Self { dir, run_dir, spec }
    }

    async fn launch(&self, firecracker: &Firecracker) -> Result<Machine> {
        self.launch_with(firecracker, None).await
    }

    async fn launch_with(
        &self,
        firecracker: &Firecracker,
        attachment: Option<&TapAttachment>,
    ) -> Result<Machine> {
        let memory = Memory::Fresh;
        let launch = Launch { spec: &self.spec, run_dir: &self.run_dir, memory, attachment };
        timeout(Duration::from_secs(30), firecracker.launch(launch)).await.unwrap()
    }
}

/// A network of a sleeping process's own, with a tap in it.
struct Network {
    owner: Child,
    flags: &'static [&'static str],
}

impl Network {
    /// `flags` are those of nsenter(1), which name the same namespaces; the tap
    /// is this user's.
    fn new(unshare: &str, flags: &'static [&'static str], tap: &str, user: u32) -> Self {
        let owner = Command::new("unshare").args([unshare, "sleep", "600"]).spawn().unwrap();
        let comm = format!("/proc/{}/comm", owner.id());
        while std::fs::read_to_string(&comm).unwrap() != "sleep\n" {
            std::thread::yield_now();
        }
        let network = Self { owner, flags };
        network.ip(&format!("tuntap add dev {tap} mode tap vnet_hdr user {user}"));
        network.ip(&format!("link set dev {tap} up"));
        assert!(!network.is_plugged_in(tap));
        network
    }

    fn attachment(&self, tap: &str, with_user: bool) -> TapAttachment {
        let open = |name: &str| {
            let path = format!("/proc/{}/ns/{name}", self.owner.id());
            std::fs::File::open(path).unwrap().into()
        };
        let namespace = Namespace { user: with_user.then(|| open("user")), net: open("net") };
        TapAttachment::Named { name: tap.into(), namespace: Some(namespace) }
    }

    fn ip(&self, arguments: &str) -> String {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.owner.id().to_string()]).args(self.flags).arg("ip");
        let output = command.args(arguments.split(' ')).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// A tap has a carrier while somebody has it open.
    fn is_plugged_in(&self, tap: &str) -> bool {
        self.ip(&format!("link show dev {tap}")).contains("LOWER_UP")
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = self.owner.kill();
        let _ = self.owner.wait();
    }
}

/// Whether a process runs that has `id` on its command line.
fn running(id: &str) -> bool {
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        std::fs::read(entry.path().join("cmdline"))
            .is_ok_and(|line| line.split(|b| *b == 0).any(|word| word == id.as_bytes()))
    })
}

#[tokio::test]
#[ignore = "needs Firecracker and KVM"]
async fn a_machine_starts_pauses_and_ends() {
    let firecracker = installed();
    let home = Home::new();
    let mut machine = home.launch(&firecracker).await.unwrap();
    assert!(running(home.run_dir.id()));
    // Nothing has connected, so nothing can be read.
    timeout(Duration::from_millis(50), machine.stream.read(&mut [0])).await.unwrap_err();

    let dir = SocketDir::open(firecracker.home(&home.run_dir)).unwrap();
    let mut api = Api::connect(&dir).await.unwrap();
    api.send(&Request::Vm(Vm { state: VmState::Paused })).await.unwrap();
    api.send(&Request::SnapshotCreate(SnapshotCreateParams {
        snapshot_type: SnapshotType::Full,
        snapshot_path: "state".into(),
        mem_file_path: "memory".into(),
    }))
    .await
    .unwrap();
    assert_eq!(std::fs::metadata(dir.path().join("memory")).unwrap().len(), 128 << 20);
    api.send(&Request::Vm(Vm { state: VmState::Resumed })).await.unwrap();
    let again = Request::Logger(Logger { log_path: "log".into(), level: LogLevel::Info });
    let refused = api.send(&again).await.unwrap_err();
    assert!(matches!(refused, Error::Refused { .. }), "{refused:?}");
    println!("{refused}");

    machine.process.kill().await.unwrap();
    assert!(!running(home.run_dir.id()));
    restore(&home, &firecracker).await;
}

/// Loads the snapshot in a second VMM.
async fn restore(home: &Home, firecracker: &Firecracker) {
    let from = home.run_dir.path();
    let second = RunDir::create(&home.dir.path().join("second")).unwrap();
    // A snapshot names its own disks as they are called in every run directory.
    for (n, disk) in home.spec.disks.iter().enumerate().filter(|(_, disk)| !disk.read_only) {
        std::os::unix::fs::symlink(&disk.path, second.path().join(format!("disk{n}"))).unwrap();
    }
    let mut command = Command::new(firecracker.program());
    command.args(["--id", second.id(), "--api-sock", "api.sock"]).current_dir(second.path());
    let mut process = VmmProcess::start(command, Vec::new(), Console::Stdout, false).await.unwrap();
    let dir = SocketDir::open(second.path()).unwrap();
    let mut api = loop {
        match Api::connect(&dir).await {
            Ok(api) => break api,
            Err(_) => sleep(Duration::from_millis(2)).await,
        }
    };
    let load = Request::SnapshotLoad(SnapshotLoadParams {
        snapshot_path: from.join("state"),
        mem_backend: MemoryBackend {
            backend_type: BackendType::File,
            backend_path: from.join("memory"),
        },
        resume_vm: true,
        network_overrides: Vec::new(),
        vsock_override: Some(VsockOverride { uds_path: "other.sock".into() }),
    });
    api.send(&load).await.unwrap();
    assert!(second.path().join("other.sock").exists());
    process.kill().await.unwrap();
}

#[tokio::test]
#[ignore = "needs Firecracker and KVM"]
async fn what_firecracker_refuses_is_told_and_nothing_stays() {
    let firecracker = installed();
    let mut home = Home::new();
    home.spec.disks[1].path = "/nowhere/disk".into();
    let error = home.launch(&firecracker).await.unwrap_err();
    println!("{error}");
    let Error::Refused { request, .. } = &error else { panic!("{error:?}") };
    assert_eq!(request, "PUT /drives/disk1");
    assert!(!running(home.run_dir.id()));

    // A program that ends at once is told by what it said last.
    let not_a_vmm = Firecracker::new("/bin/ls".into(), "1.17.0".into()).unwrap();
    let home = Home::new();
    let error = home.launch(&not_a_vmm).await.unwrap_err();
    println!("{error:?}");
    let Error::VmmDied { stderr, .. } = &error else { panic!("{error:?}") };
    assert!(stderr.contains("--id"), "{error:?}");
}

#[tokio::test]
#[ignore = "needs Firecracker and KVM"]
async fn a_card_is_plugged_in_in_another_network() {
    let network = Network::new("-Urn", &["-U", "--preserve-credentials", "-n"], "tap0", 0);
    let firecracker = installed();
    let mut home = Home::new();
    home.spec.interface = true;
    let missing = network.attachment("tap1/", true);
    let error = home.launch_with(&firecracker, Some(&missing)).await.unwrap_err();
    assert!(error.to_string().contains("PUT /network-interfaces/eth0"), "{error}");

    let home = Home { spec: home.spec, ..Home::new() };
    let machine = home.launch_with(&firecracker, Some(&network.attachment("tap0", true))).await;
    assert!(network.is_plugged_in("tap0"));
    machine.unwrap().process.kill().await.unwrap();
    assert!(!network.is_plugged_in("tap0"));
}

#[tokio::test]
#[ignore = "needs Firecracker, its jailer, KVM and root"]
async fn a_jailed_card_is_plugged_in_where_root_says() {
    let network = Network::new("-n", &["-n"], "tap0", 60_001);
    let jail = Jail { program: variable("FIRECLAW_JAILER"), uid: 60_001, gid: 60_001 };
    let firecracker = installed().jailed(jail).unwrap();
    let mut home = Home::new();
    home.spec.interface = true;
    let error = home.launch_with(&firecracker, Some(&network.attachment("tap0", true))).await;
    assert!(error.unwrap_err().to_string().contains("another user namespace"));
    let attachment = network.attachment("tap0", false);
    let mut machine = home.launch_with(&firecracker, Some(&attachment)).await.unwrap();
    assert!(network.is_plugged_in("tap0"));
    machine.process.kill().await.unwrap();
}

#[tokio::test]
#[ignore = "needs Firecracker, its jailer, KVM and root"]
async fn a_jailed_machine_starts_and_leaves_nothing() {
    let jail = Jail { program: variable("FIRECLAW_JAILER"), uid: 60_001, gid: 60_001 };
    let firecracker = installed().jailed(jail).unwrap();
    let home = Home::new();
    let mut machine = home.launch(&firecracker).await.unwrap();
    let pid = machine.process.pid().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains("Uid:\t60001\t60001\t60001\t60001"), "{status}");
    let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
    assert!(environ.is_empty());
    let dir = SocketDir::open(firecracker.home(&home.run_dir)).unwrap();
    let mut api = Api::connect(&dir).await.unwrap();
    api.send(&Request::Vm(Vm { state: VmState::Paused })).await.unwrap();
    machine.process.kill().await.unwrap();

    let Home { dir, run_dir, .. } = home;
    let path = run_dir.path().to_owned();
    drop(run_dir);
    assert!(!path.exists());
    assert!(Path::new(dir.path()).join("base").exists());
}
