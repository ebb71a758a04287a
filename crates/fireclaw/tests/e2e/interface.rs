//! A VM with a network interface, on taps in a network of the test's own.
//!
//! The tests start this very program again in fresh user and network
//! namespaces, where whoever runs them is root.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;

use fireclaw_image::Manifest;
use fireclaw_protocol::hello::Interface;
use fireclaw_protocol::message::{ExecEvent, ExecRequest, ExitStatus};
use fireclaw_vm::pool::Pool;
use fireclaw_vm::probe::{Cache, Choice, Prober};
use fireclaw_vm::snapshot::{Recipe, Snapshot, Store};
use fireclaw_vm::{
    AttachmentKind, BLANK_MAC, Disk, Guest, Launch, Launcher, MachineSpec, Memory, RunDir,
    TapAttachment, Waiting,
};
use tokio::io::AsyncReadExt;

use crate::harness::{alone, finish, shared_home, timeout};

/// The network's end on the host, and where the guests are told to ask for names.
const HOST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

/// What a guest knows of its interface, one fact a line.
const FACTS: &str = "cat /sys/class/net/eth0/address
ip -4 -o address show dev eth0 | awk '{print $4}'
ip -6 -o address show dev eth0
ip route
cat /etc/resolv.conf
test -L /etc/resolv.conf && echo a link
true";

/// Sends a mebibyte there and back.
const ECHO: &str = "python3 -c '
import socket, sys
s = socket.create_connection((\"10.77.0.1\", int(sys.argv[1])))
sent = bytes(i % 251 for i in range(1 << 20))
s.sendall(sent); s.shutdown(socket.SHUT_WR)
got = b\"\"
while piece := s.recv(1 << 16): got += piece
assert got == sent, len(got)
' ";

#[test]
fn it_is_set_before_the_first_command_also_in_clones() {
    inside("interface::inside_cold_and_clones");
}

#[test]
fn a_card_and_a_tap_come_together_or_not_at_all() {
    inside("interface::inside_mistakes");
}

#[test]
fn it_outlives_its_host_and_follows_the_next_one() {
    inside("interface::inside_adopted");
}

/// Runs one of the tests below in namespaces of its own.
fn inside(test: &str) {
    let _alone = alone();
    let mut again = Command::new("unshare");
    again.arg("-Urn").arg(std::env::current_exe().unwrap());
    again.args(["--exact", test, "--ignored", "--nocapture", "--test-threads", "1"]);
    again.env("FIRECLAW_HOME", shared_home());
    let done = finish(again, Vec::new(), timeout() * 2).exits(0);
    assert!(done.stdout().contains("1 passed"), "{}", done.stdout());
}

#[test]
#[ignore = "runs in namespaces of its own, see above"]
fn inside_cold_and_clones() {
    let home = fireclaw_image::Home::new(shared_home().to_owned());
    for kernel in Manifest::read(&home).unwrap().kernels.keys() {
        let scratch = tempfile::tempdir().unwrap();
        runtime().block_on(cold_and_clones(kernel, scratch.path()));
    }
}

async fn cold_and_clones(kernel: &str, directory: &Path) {
    let launcher = launcher(kernel, directory).await;
    let kind = launcher.backend.capabilities().attachment;
    let bridge = Bridge::new();
    let port = echo();

    let tap = bridge.tap("cold", kind);
    let waiting = launcher.boot(Memory::Fresh, Some(&tap.0), || ()).await.unwrap();
    check(waiting, interface(2), port).await.kill().await.unwrap();

    let scratch = Tap::new("scratch", kind);
    let store = Store::new(directory.join("snapshots"));
    let recipe = recipe();
    let snapshot = launcher.snapshot(&store, &recipe, Some(&scratch.0), || ()).await.unwrap();
    assert!(store.find(&launcher.key(None).unwrap()).is_some());
    assert_eq!(sent_by_guest("scratch"), 0);

    let taps = [bridge.tap("one", kind), bridge.tap("two", kind)];
    let mut clones = Vec::new();
    for (tap, number) in taps.iter().zip(3..) {
        let memory = Memory::RestoredFrom(&snapshot.directory);
        let machine = launcher.launch(memory, Some(&tap.0)).await.unwrap();
        let waiting = Waiting::meet(machine, timeout()).await.unwrap();
        clones.push(check(waiting, interface(number), port).await);
    }
    // Both run now, and neither was ever seen under another address.
    let seen = bridge.seen();
    assert!(seen.contains(&mac(3)) && seen.contains(&mac(4)), "{seen}");
    assert!(!seen.contains(BLANK_MAC), "{seen}");
    let clone = clones.remove(0);
    let ping = "python3 -c 'import socket; socket.create_connection((\"10.77.0.4\", 9), 10)'";
    let (_, said) = run(&clone, ping).await;
    assert!(said.contains("ConnectionRefused"), "one clone reaches the other: {said}");
    clone.kill().await.unwrap();

    // One that is told of no interface has it, down and silent.
    let machine = launcher.launch(Memory::RestoredFrom(&snapshot.directory), Some(&taps[0].0));
    let waiting = Waiting::meet(machine.await.unwrap(), timeout()).await.unwrap();
    let guest = waiting.personalize("alone", None).await.unwrap();
    let (_, said) = run(&guest, "cat /sys/class/net/eth0/operstate; ip route").await;
    assert_eq!(said, "down\n");
    guest.kill().await.unwrap();
}

#[test]
#[ignore = "runs in namespaces of its own, see above"]
fn inside_adopted() {
    let directory = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let launcher = launcher(Manifest::DEBIAN_KERNEL, directory.path()).await;
        let (backend, spec) = (&launcher.backend, &launcher.spec);
        let (bridge, port) = (Bridge::new(), echo());
        let tap = bridge.tap("kept", backend.capabilities().attachment);
        let run_dir = RunDir::detached(directory.path(), "fireclaw-e2e-kept").unwrap();
        let attachment = Some(&tap.0);
        let launch = Launch { spec, run_dir: &run_dir, memory: Memory::Fresh, attachment };
        let machine = backend.launch(launch).await.unwrap();
        let waiting = Waiting::meet(machine, timeout()).await.unwrap();
        let guest = check(waiting, interface(2), port).await;
        let stamp = guest.stamp().unwrap();
        drop(guest);

        // The same interface is left as it is, down to what the guest made of it;
        // another is taken on, and nothing of the first stays.
        let adopt = async || {
            let machine = backend.adopt(&run_dir, stamp).await.unwrap();
            Waiting::meet(machine, timeout()).await.unwrap()
        };
        let guest = adopt().await.personalize("kept", Some(interface(2))).await.unwrap();
        let (status, said) = run(&guest, "ip address add 10.78.0.1/24 dev eth0").await;
        assert_eq!(status, ExitStatus::Code(0), "{said}");
        drop(guest);
        let guest = adopt().await.personalize("kept", Some(interface(2))).await.unwrap();
        let (_, said) = run(&guest, "ip -4 -o address show dev eth0 | wc -l").await;
        assert_eq!(said, "2\n");
        drop(guest);
        check(adopt().await, interface(5), port).await.kill().await.unwrap();
    });
}

#[test]
#[ignore = "runs in namespaces of its own, see above"]
fn inside_mistakes() {
    let directory = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let with = launcher(Manifest::DEBIAN_KERNEL, directory.path()).await;
        let says = |result: fireclaw_vm::Result<_>, text: &str| {
            let error = result.map(|_: Waiting| ()).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        };
        says(with.boot(Memory::Fresh, None, || ()).await, "nowhere to be attached");
        let wrong = match with.backend.capabilities().attachment {
            AttachmentKind::Tap => TapAttachment::Named { name: "none".into(), namespace: None },
            AttachmentKind::Named => TapAttachment::Tap(File::open("/dev/null").unwrap().into()),
        };
        says(with.boot(Memory::Fresh, Some(&wrong), || ()).await, "this VMM takes");

        let spec = MachineSpec { interface: false, ..with.spec.clone() };
        let without = Launcher { spec, ..with };
        let tap = Tap::new("tap", without.backend.capabilities().attachment);
        says(without.boot(Memory::Fresh, Some(&tap.0), || ()).await, "the VM has none");
        let waiting = without.boot(Memory::Fresh, None, || ()).await.unwrap();
        let error = waiting.personalize("x", Some(interface(2))).await.unwrap_err().to_string();
        assert!(error.contains("finds no network interface"), "{error}");

        // A VM that waits in a pool cannot know on which tap.
        let with = launcher(Manifest::DEBIAN_KERNEL, directory.path()).await;
        let snapshot = Snapshot { id: "none".into(), directory: directory.path().into() };
        let error = Pool::new(with, snapshot, 1, directory.path().into()).unwrap_err();
        assert!(error.to_string().contains("in a pool has none"), "{error}");
    });
}

/// Settles a guest with an interface and asks it what it is.
async fn check(waiting: Waiting, interface: Interface, port: u16) -> Guest {
    let address = interface.address;
    let number = address.octets()[3];
    let guest = waiting.personalize("interface", Some(interface)).await.unwrap();
    let (status, said) = run(&guest, FACTS).await;
    let expected = format!(
        "{}\n{address}/24\ndefault via {HOST} dev eth0 \n\
         10.77.0.0/24 dev eth0 proto kernel scope link src {address} \nnameserver {HOST}\n",
        mac(number)
    );
    assert_eq!((said, status), (expected, ExitStatus::Code(0)));
    let (status, said) = run(&guest, &format!("{ECHO}{port}")).await;
    assert_eq!(status, ExitStatus::Code(0), "{said}");
    guest
}

/// What a shell line wrote, and how it ended.
async fn run(guest: &Guest, line: &str) -> (ExitStatus, String) {
    let argv = ["/bin/sh", "-c", &format!("exec 2>&1\n{line}")];
    let argv = argv.map(|word| word.as_bytes().to_vec().into()).into();
    let timeout_ms = u64::try_from(timeout().as_millis()).ok();
    let request = ExecRequest { argv, timeout_ms, ..ExecRequest::default() };
    let mut exec = guest.commands().exec(request).await.unwrap();
    let mut said = String::new();
    exec.stdout.read_to_string(&mut said).await.unwrap();
    loop {
        match exec.events.next().await.unwrap() {
            ExecEvent::Started => {}
            ExecEvent::Exited(status, _) => return (status, said),
            failed @ ExecEvent::Failed { .. } => panic!("{failed:?}"),
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn recipe() -> Recipe {
    let image = Manifest::BASE_IMAGE.to_owned();
    Recipe { image, kernel: None, cpus: 1, memory_mib: 256, interface: true, warm: None }
}

async fn launcher(kernel: &str, directory: &Path) -> Launcher {
    let home = fireclaw_image::Home::new(shared_home().to_owned());
    let kernel = Some(Path::new(kernel));
    let boot = fireclaw_image::resolve(&home, Manifest::BASE_IMAGE, kernel).unwrap();
    let spec = MachineSpec {
        kernel: boot.kernel,
        initramfs: boot.initramfs,
        cpus: 1,
        memory_mib: 256,
        disks: vec![Disk { path: boot.rootfs, read_only: true }],
        interface: true,
        kernel_args: Vec::new(),
    };
    let run = directory.join("run");
    let cache = Cache::open(&home.host_cache());
    let choice = match std::env::var("FIRECLAW_VMM").as_deref() {
        Ok("firecracker") => Choice::Firecracker,
        Ok("qemu") => Choice::Qemu,
        _ => Choice::Auto,
    };
    let backend = Prober { spec: &spec, run: &run, cache }.choose(choice).await.unwrap().backend;
    Launcher { backend: backend.into(), spec, run, timeout: timeout() }
}

/// The interface of the guest with this number.
fn interface(number: u8) -> Interface {
    Interface {
        mac: [2, 0x77, 0, 0, 0, number].into(),
        address: Ipv4Addr::new(10, 77, 0, number),
        prefix: 24,
        gateway: HOST,
        resolver: HOST,
    }
}

fn mac(number: u8) -> String {
    format!("02:77:00:00:00:{number:02x}")
}

/// A server that sends back what it gets; ends with the test.
fn echo() -> u16 {
    let listener = TcpListener::bind((HOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut got = Vec::new();
            stream.read_to_end(&mut got).unwrap();
            stream.write_all(&got).unwrap();
        }
    });
    port
}

/// A bridge that remembers which hardware addresses it has seen.
struct Bridge;

impl Bridge {
    fn new() -> Self {
        ip("link add bridge type bridge");
        ip(&format!("address add {HOST}/24 dev bridge"));
        ip("link set bridge up");
        Self
    }

    fn tap(&self, name: &str, kind: AttachmentKind) -> Tap {
        let tap = Tap::new(name, kind);
        ip(&format!("link set dev {name} master bridge"));
        tap
    }

    fn seen(&self) -> String {
        finish(command("bridge", "fdb show br bridge"), Vec::new(), timeout()).exits(0).stdout()
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        ip("link delete bridge");
    }
}

/// A tap that is up, in the way in which the VMM wants it.
struct Tap(TapAttachment);

impl Tap {
    fn new(name: &str, kind: AttachmentKind) -> Self {
        let attachment = match kind {
            AttachmentKind::Tap => TapAttachment::Tap(open_tap(name)),
            AttachmentKind::Named => {
                ip(&format!("tuntap add dev {name} mode tap vnet_hdr"));
                TapAttachment::Named { name: name.into(), namespace: None }
            }
        };
        ip(&format!("link set dev {name} up"));
        Self(attachment)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        // One that is open goes by itself.
        if let TapAttachment::Named { name, .. } = &self.0 {
            ip(&format!("link delete dev {name}"));
        }
    }
}

/// How many packets a guest has sent into a tap.
fn sent_by_guest(tap: &str) -> u64 {
    let show = command("ip", &format!("-s -j link show dev {tap}"));
    let shown = finish(show, Vec::new(), timeout()).exits(0);
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    shown[0]["stats64"]["rx"]["packets"].as_u64().unwrap()
}

fn ip(arguments: &str) {
    finish(command("ip", arguments), Vec::new(), timeout()).exits(0);
}

fn command(program: &str, arguments: &str) -> Command {
    let mut command = Command::new(program);
    command.args(arguments.split(' '));
    command
}

#[allow(unsafe_code)]
fn open_tap(name: &str) -> OwnedFd {
    use rustix::ioctl::{Updater, ioctl, opcode};
    // From <linux/if_tun.h>.
    const TUNSETIFF: rustix::ioctl::Opcode = opcode::write::<i32>(b'T', 202);
    const IFF_TAP: u16 = 0x0002;
    const IFF_NO_PI: u16 = 0x1000;
    const IFF_VNET_HDR: u16 = 0x4000;
    /// `struct ifreq` of <linux/if.h>.
    #[repr(C)]
    struct Request {
        name: [u8; 16],
        flags: u16,
        rest: [u8; 22],
    }
    let tap = File::options().read(true).write(true).open("/dev/net/tun").unwrap();
    let flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
    let mut request = Request { name: [0; 16], flags, rest: [0; 22] };
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: TUNSETIFF reads and writes a `struct ifreq`, which Request is.
    unsafe { ioctl(&tap, Updater::<TUNSETIFF, Request>::new(&mut request)).unwrap() };
    tap.into()
}
