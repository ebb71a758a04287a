//! What is there while a VM lives, and that nothing is left whatever ends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::HashSet;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use common::{Machine, PROGRAM, STATE, request, runtime, without_nft};
use fireclaw_net::{Cleaned, Error, NetworkMode, ProcessStamp, Request, clean, list};
use fireclaw_netlab::{enter, run};
use fireclaw_policy::HostConfig;
use fireclaw_vm::{AttachmentKind, TapAttachment};
use rustix::process::{Pid, Signal, kill_process};

/// Rules and a device of somebody else, which nothing of ours may change.
fn strangers() -> (String, String) {
    run("nft", &["add", "table", "inet", "stranger"]);
    run(
        "nft",
        &["add", "chain", "inet", "stranger", "c", "{ type filter hook forward priority 0; }"],
    );
    run("nft", &["add", "rule", "inet", "stranger", "c", "tcp dport 1 drop"]);
    run("ip", &["link", "add", "fc-stranger", "type", "bridge"]);
    host()
}

/// All rules, devices and settings of the host.
fn host() -> (String, String) {
    let links: Vec<String> = run("ip", &["-o", "link"])
        .lines()
        .filter_map(|line| line.split(": ").nth(1).map(str::to_owned))
        .collect();
    let forwarding = std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap();
    (run("nft", &["list", "ruleset"]), links.join(" ") + &forwarding)
}

fn kill(process: ProcessStamp) {
    match kill_process(Pid::from_raw(process.pid).unwrap(), Signal::KILL) {
        // It ended because another was killed.
        Err(rustix::io::Errno::SRCH) => {}
        killed => killed.unwrap(),
    }
}

/// A process that stands for a VMM.
struct Vmm(std::process::Child);

impl Vmm {
    fn start() -> Self {
        Self(Command::new("sleep").arg("600").spawn().unwrap())
    }

    fn stamp(&self) -> ProcessStamp {
        ProcessStamp::of(i32::try_from(self.0.id()).unwrap()).unwrap()
    }
}

impl Drop for Vmm {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn wait_for_end(process: ProcessStamp) {
    while process.lives() {
        std::thread::yield_now();
    }
}

/// Waits until nothing of the VMs is left but for what `clean` is for.
fn nothing_left(before: &(String, String)) {
    while list(Path::new(STATE)).unwrap().iter().any(|machine| machine.helper.lives()) {
        std::thread::yield_now();
    }
    clean(NetworkMode::Host, Path::new(STATE)).unwrap();
    assert_eq!(list(Path::new(STATE)).unwrap(), []);
    assert_eq!(&host(), before);
}

#[test]
fn everything_goes_with_the_machine() {
    let Some(_lab) = enter("everything_goes_with_the_machine") else { return };
    let before = strangers();
    let first = Machine::start(NetworkMode::Host, "local", "first");
    let second = Machine::start(NetworkMode::Host, "full", "second");
    assert_eq!(first.interface.address, Ipv4Addr::new(172, 16, 0, 2));
    assert_eq!(second.interface.mac.to_string(), "02:fc:ac:10:00:03");
    let owners: Vec<String> =
        list(Path::new(STATE)).unwrap().into_iter().map(|machine| machine.owner).collect();
    assert_eq!(owners, ["first", "second"]);
    assert_eq!(std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap(), "1\n");
    second.end();
    // Nobody leaves any more.
    assert_eq!(std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap(), "0\n");
    assert_eq!(first.way("service"), "open", "the other is not disturbed");
    first.end();
    assert_eq!(host(), before);
    assert_eq!(list(Path::new(STATE)).unwrap(), []);
}

#[test]
fn a_gateway_lives_as_long_as_the_monitor() {
    let Some(_lab) = enter("a_gateway_lives_as_long_as_the_monitor") else { return };
    for mode in [NetworkMode::Host, NetworkMode::Namespace] {
        let before = strangers_once();
        let vmm = Vmm::start();
        let stamp = vmm.stamp();
        let mut machine = Machine::start(mode, "local", "kept");
        let gateway = machine.gateway.take().unwrap();
        let (client, process) = (gateway.client().clone(), gateway.process());
        machine.runtime.block_on(gateway.belongs_to(stamp)).unwrap();
        let status = machine.runtime.block_on(client.status()).unwrap();
        assert_eq!(status.owner, "kept");
        assert_eq!(machine.way("service"), "open");
        let other = ProcessStamp { start_time: stamp.start_time + 1, ..stamp };
        assert!(machine.runtime.block_on(client.belongs_to(other)).is_err());
        drop(vmm);
        wait_for_end(process);
        assert_eq!(host(), before);
        assert_eq!(list(Path::new(STATE)).unwrap(), []);
    }
}

fn strangers_once() -> (String, String) {
    if run("nft", &["list", "ruleset"]).is_empty() { strangers() } else { host() }
}

#[test]
fn whoever_is_killed_nothing_stays() {
    let Some(_lab) = enter("whoever_is_killed_nothing_stays") else { return };
    let before = strangers();
    for mode in [NetworkMode::Host, NetworkMode::Namespace] {
        // The starter goes: everything goes.
        let mut machine = Machine::start(mode, "full", "starter");
        let gateway = machine.gateway.take().unwrap();
        let process = gateway.process();
        drop(gateway);
        wait_for_end(process);
        assert_eq!(host(), before);

        // The gateway is killed: its helper removes everything.
        let machine = Machine::start(mode, "full", "gateway");
        let gateway = machine.gateway.as_ref().unwrap();
        let helper = gateway.machine().helper;
        kill(gateway.process());
        wait_for_end(helper);
        assert_eq!(host(), before);
        assert_eq!(list(Path::new(STATE)).unwrap(), []);

        // The helper is killed: the gateway ends, and what stays is found.
        let machine = Machine::start(mode, "full", "helper");
        let gateway = machine.gateway.as_ref().unwrap();
        kill(gateway.machine().helper);
        wait_for_end(gateway.process());
        let cleaned = clean(mode, Path::new(STATE)).unwrap();
        assert_eq!(cleaned.machines.len(), 1);
        assert_eq!(host(), before);
        assert_eq!(clean(mode, Path::new(STATE)).unwrap(), Cleaned::default());

        // Both: the next VM finds it too.
        let machine = Machine::start(mode, "full", "both");
        let gateway = machine.gateway.as_ref().unwrap();
        let helper = gateway.machine().helper;
        kill(helper);
        kill(gateway.process());
        wait_for_end(helper);
        wait_for_end(gateway.process());
        let next = Machine::start(mode, "full", "next");
        assert_eq!(next.interface, machine.interface, "the address was freed");
        next.end();
        assert_eq!(host(), before);
        assert_eq!(list(Path::new(STATE)).unwrap(), []);
    }
}

#[test]
fn a_way_out_that_ends_comes_back() {
    let Some(_lab) = enter("a_way_out_that_ends_comes_back") else { return };
    let machine = Machine::start(NetworkMode::Namespace, "full", "machine");
    assert_eq!(machine.way("udp"), "open");
    let gateway = machine.gateway.as_ref().unwrap().process().pid.to_string();
    run("pkill", &["-KILL", "-P", &gateway, "slirp4netns"]);
    // No answer for a second, then as before.
    while machine.way("udp") != "open" {}
    let all = run("pgrep", &["-P", &gateway, "slirp4netns"]);
    assert_eq!(all.lines().count(), 1);
    machine.end();
}

#[test]
fn killed_at_each_step_nothing_stays() {
    let Some(_lab) = enter("killed_at_each_step_nothing_stays") else { return };
    let before = strangers();
    // What changes something: of the kernel over netlink, of a tap, of the state, of others.
    for call in ["sendto", "ioctl", "pwrite64", "unlink", "flock", "bind", "execve"] {
        for step in 1.. {
            let directory = tempfile::tempdir().unwrap();
            let inject = format!("inject={call}:signal=KILL:when={step}");
            let trace = format!("trace={call}");
            let log = directory.path().join("strace");
            let log = log.to_str().unwrap();
            let arguments = ["-f", "-q", "-A", "-o", log, "-e", &trace, "-e", &inject, PROGRAM];
            let request = request(NetworkMode::Host, "full", directory.path());
            runtime().block_on(async {
                // Killed, it fails, or the end does.
                if let Ok(gateway) =
                    fireclaw_net::open(Path::new("strace"), &arguments, request).await
                {
                    let _ = gateway.close().await;
                }
            });
            nothing_left(&before);
            let killed = std::fs::read_to_string(log).unwrap().contains("killed by SIGKILL");
            if !killed {
                assert!(step > 1, "{call} is never called");
                break;
            }
        }
    }
}

#[test]
fn addresses_are_given_once() {
    let Some(_lab) = enter("addresses_are_given_once") else { return };
    let before = strangers();
    for mode in [NetworkMode::Host, NetworkMode::Namespace] {
        given_once(mode);
    }
    assert_eq!(list(Path::new(STATE)).unwrap(), []);
    assert_eq!(host(), before);
}

/// 200 are taken and given back, by eight at once.
fn given_once(mode: NetworkMode) {
    let used = Mutex::new(HashSet::new());
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let used = &used;
            scope.spawn(move || {
                let runtime = runtime();
                let mut held = Vec::new();
                for cycle in 0..25 {
                    let directory = tempfile::tempdir().unwrap();
                    let request = request(mode, "local", directory.path());
                    let open = fireclaw_net::open(Path::new(PROGRAM), &[], request);
                    let gateway = runtime.block_on(open).unwrap();
                    let address = gateway.interface().address;
                    assert!(used.lock().unwrap().insert(address), "{address} was given twice");
                    held.push((gateway, directory));
                    // Some live longer than others.
                    while held.len() > (thread + cycle) % 3 {
                        let (gateway, _directory) = held.swap_remove(cycle % held.len());
                        used.lock().unwrap().remove(&gateway.interface().address);
                        runtime.block_on(gateway.close()).unwrap();
                    }
                }
                for (gateway, _directory) in held {
                    used.lock().unwrap().remove(&gateway.interface().address);
                    runtime.block_on(gateway.close()).unwrap();
                }
            });
        }
    });
}

#[test]
fn what_is_in_use_is_not_taken() {
    let Some(_lab) = enter("what_is_in_use_is_not_taken") else { return };
    let refused = || {
        let directory = tempfile::tempdir().unwrap();
        let request = request(NetworkMode::Host, "local", directory.path());
        let open = fireclaw_net::open(Path::new(PROGRAM), &[], request);
        runtime().block_on(open).unwrap_err()
    };
    run("ip", &["link", "add", "lan", "type", "bridge"]);
    run("ip", &["addr", "add", "172.16.0.77/20", "dev", "lan"]);
    run("ip", &["link", "set", "lan", "up"]);
    let error = refused();
    assert!(matches!(&error, Error::Conflict { with, .. } if with.contains("lan")), "{error}");
    assert!(error.hint().unwrap().contains("subnet"));
    run("ip", &["link", "del", "lan"]);
    run("ip", &["route", "add", "172.16.0.128/25", "via", "192.0.2.1"]);
    assert!(matches!(refused(), Error::Conflict { .. }));
    run("ip", &["route", "del", "172.16.0.128/25"]);
    run("ip", &["tuntap", "add", "fcbr0", "mode", "tap"]);
    assert!(matches!(refused(), Error::Conflict { .. }));
    run("ip", &["link", "del", "fcbr0"]);
    // Half of a default route is none.
    run("ip", &["route", "add", "128.0.0.0/1", "via", "192.0.2.1"]);
    // A bridge of somebody else is used, and left as it was.
    run("ip", &["link", "add", "fcbr0", "type", "bridge"]);
    run("ip", &["addr", "add", "10.77.0.1/24", "dev", "fcbr0"]);
    run("ip", &["link", "set", "fcbr0", "up"]);
    let settings = || {
        ["ipv6", "ipv4"].map(|family| {
            run("sysctl", &["-a", "-r", &format!("^net\\.{family}\\.conf\\.fcbr0\\.")])
        })
    };
    run("ip", &["addr", "add", "fd00:77::1/64", "dev", "fcbr0", "nodad"]);
    let addresses = || run("ip", &["-o", "addr", "show", "fcbr0", "scope", "global"]);
    let before = (settings(), addresses());
    let machine = Machine::start(NetworkMode::Host, "local", "guest");
    assert_ne!((settings(), addresses()), before);
    assert_eq!(machine.way("service"), "open");
    machine.end();
    assert_eq!((settings(), addresses()), before);
    assert_eq!(list(Path::new(STATE)).unwrap(), []);
}

#[test]
fn all_that_run_are_in_one_network() {
    let Some(_lab) = enter("all_that_run_are_in_one_network") else { return };
    let before = host();
    let machine = Machine::start(NetworkMode::Host, "local", "first");
    let other = |change: fn(&mut HostConfig)| {
        let directory = tempfile::tempdir().unwrap();
        let mut request = request(NetworkMode::Host, "local", directory.path());
        change(&mut request.config);
        let runtime = runtime();
        let gateway = runtime.block_on(fireclaw_net::open(Path::new(PROGRAM), &[], request))?;
        runtime.block_on(gateway.close())
    };
    let subnet = |config: &mut HostConfig| config.subnet = "10.99.0.0/24".parse().unwrap();
    let both = |config: &mut HostConfig| {
        config.subnet = "10.99.0.0/24".parse().unwrap();
        config.bridge = "fcbr1".into();
    };
    for change in [subnet, both] {
        let error = other(change).unwrap_err();
        assert!(matches!(error, Error::Elsewhere { .. }), "{error}");
        assert!(error.hint().unwrap().contains("net ls"));
    }
    assert_eq!(machine.way("service"), "open");
    assert_eq!(machine.way("host"), "refused");
    machine.end();
    // Once none runs, it is as the configuration has it.
    other(both).unwrap();
    assert_eq!(host(), before);
}

#[test]
fn rules_that_somebody_removes_are_set_again() {
    let Some(lab) = enter("rules_that_somebody_removes_are_set_again") else { return };
    let machine = Machine::start(NetworkMode::Host, "full", "machine");
    let other = Machine::start(NetworkMode::Host, "local", "other");
    // Without what was counted and noted.
    let rules = || run("nft", &["-s", "-t", "list", "ruleset"]);
    let before = rules();
    for removal in
        ["flush ruleset", "delete table inet fireclaw", "delete table netdev fc-ac100002"]
    {
        run("nft", &removal.split(' ').collect::<Vec<_>>());
        while sorted(&rules()) != sorted(&before) {
            std::thread::yield_now();
        }
        // Their interfaces are back once the rules are.
        while other.way("service") != "open" || machine.way("raw") != "open" {}
        assert_eq!(other.way("host"), "refused", "{removal}");
        for probe in ["host", "private", "metadata"] {
            assert_eq!(machine.way(probe), "refused", "{removal}");
        }
        machine.way("spoof");
        assert!(!lab.internet.wire.saw("way-spoof"), "{removal}");
        assert_eq!(machine.way("service"), "open");
    }
    other.end();
    machine.end();
    assert_eq!(rules(), "");
}

/// The lines, whatever order things were made in.
fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

/// A guest that goes on, whoever is killed.
#[test]
fn nothing_passes_while_it_ends() {
    let Some(_lab) = enter("nothing_passes_while_it_ends") else { return };
    for last in [true, false] {
        let other = (!last).then(|| Machine::start(NetworkMode::Host, "local", "other"));
        let machine = Machine::start(NetworkMode::Host, "local", "machine");
        assert_eq!(machine.way("service"), "open");
        let service = UdpSocket::bind("0.0.0.0:7777").unwrap();
        service.set_nonblocking(true).unwrap();
        let gateway = machine.gateway.as_ref().unwrap();
        let (process, helper) = (gateway.process(), gateway.machine().helper);
        std::thread::scope(|scope| {
            let guest = scope.spawn(|| {
                machine.guest.namespace.run(|| {
                    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
                    let mut sent = 0;
                    while helper.lives() {
                        // By any address of the host, refused or not.
                        for address in ["172.16.0.1:7777", "192.0.2.2:7777"] {
                            sent += usize::from(socket.send_to(b"in", address).is_ok());
                        }
                    }
                    sent
                })
            });
            kill(process);
            wait_for_end(helper);
            assert!(guest.join().unwrap() > 0);
        });
        assert_eq!(
            service.recv(&mut [0; 9]).unwrap_err().kind(),
            std::io::ErrorKind::WouldBlock,
            "{last}"
        );
        drop(machine);
        if let Some(other) = other {
            other.end();
        }
    }
}

#[test]
fn strays_with_our_names_are_removed() {
    let Some(_lab) = enter("strays_with_our_names_are_removed") else { return };
    let before = strangers();
    run("ip", &["tuntap", "add", "fc-ac100009", "mode", "tap"]);
    run("nft", &["add", "table", "netdev", "fc-ac10000a"]);
    let cleaned = clean(NetworkMode::Host, Path::new(STATE)).unwrap();
    assert_eq!(cleaned.strays, [Ipv4Addr::new(172, 16, 0, 9), Ipv4Addr::new(172, 16, 0, 10)]);
    assert_eq!(host(), before);
}

#[test]
fn a_tap_by_name_is_opened_by_another() {
    let Some(_lab) = enter("a_tap_by_name_is_opened_by_another") else { return };
    for mode in [NetworkMode::Host, NetworkMode::Namespace] {
        let directory = tempfile::tempdir().unwrap();
        let attachment = AttachmentKind::Named;
        let request = Request { attachment, ..request(mode, "local", directory.path()) };
        let runtime = runtime();
        let open = fireclaw_net::open(Path::new(PROGRAM), &[], request);
        let gateway = runtime.block_on(open).unwrap();
        let TapAttachment::Named { name, namespace } = gateway.attachment() else {
            panic!("a tap")
        };
        assert_eq!(namespace.is_some(), mode == NetworkMode::Namespace);
        assert_eq!(name, "fc-ac100002");
        if mode == NetworkMode::Host {
            // Without an owner it would be everybody's who may make taps.
            let link = run("ip", &["-d", "link", "show", name]);
            assert!(link.contains(" user root ") || link.contains(" user 0 "), "{link}");
            drop(fireclaw_net::bare_tap(name).unwrap());
        }
        runtime.block_on(gateway.close()).unwrap();
    }
}

#[test]
fn one_that_ends_at_once_is_not_waited_for() {
    let Some(_lab) = enter("one_that_ends_at_once_is_not_waited_for") else { return };
    let before = host();
    // Neither starts; the gateway alone is killed as it waits for its helper.
    let error = refused_by("false", &[], NetworkMode::Host);
    assert!(error.to_string().contains("ended while it started"), "{error}");
    let words = r#"case $(head -c 14 | tail -c 10) in *Gateway*) echo its last words >&2; kill -9 $$;; esac
exec cat"#;
    let error = refused_by("sh", &["-c", words], NetworkMode::Host);
    assert!(error.to_string().ends_with("ended while it started: its last words"), "{error}");
    assert_eq!(host(), before);
}

/// How a VM is refused, of which nothing is left.
fn refused(mode: NetworkMode) -> Error {
    refused_by(PROGRAM, &[], mode)
}

fn refused_by(program: &str, arguments: &[&str], mode: NetworkMode) -> Error {
    let directory = tempfile::tempdir().unwrap();
    let request = request(mode, "full", directory.path());
    let open = fireclaw_net::open(Path::new(program), arguments, request);
    let error = runtime().block_on(open).unwrap_err();
    let left = run("ip", &["-o", "link"]);
    assert!(!left.contains("fcbr0") && !left.contains("fc-ac"), "{left}");
    assert_eq!(list(Path::new(STATE)).unwrap(), []);
    error
}

/// Puts a program before nft, as which it is started.
fn before_nft(script: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let (nft, before) = (directory.path().join("nft"), directory.path().join("before"));
    let there = ["/usr/sbin/nft", "/usr/bin/nft"].iter().find(|path| Path::new(path).exists());
    std::fs::copy(there.unwrap(), &nft).unwrap();
    let script = format!("#!/bin/sh\n{}\n", script.replace("NFT", nft.to_str().unwrap()));
    std::fs::write(&before, script).unwrap();
    run("chmod", &["755", before.to_str().unwrap(), directory.path().to_str().unwrap()]);
    run("mount", &["--bind", before.to_str().unwrap(), there.unwrap()]);
    directory
}

#[test]
fn a_kernel_without_nf_tables_is_named() {
    let Some(_lab) = enter("a_kernel_without_nf_tables_is_named") else { return };
    // The first socket of nft is the one that it says its rules through.
    let inject = "inject=socket:error=EPROTONOSUPPORT";
    let script = format!("exec strace -qq -e trace=socket -e {inject} -o /dev/null NFT \"$@\"");
    let _before = before_nft(&script);
    for mode in [NetworkMode::Host, NetworkMode::Namespace] {
        let error = refused(mode);
        assert!(error.to_string().contains("lacks nf_tables"), "{error}");
        assert!(error.to_string().contains("Protocol not supported"), "{error}");
        assert!(error.hint().unwrap().contains("none works without it"), "{error}");
    }
}

/// What `fireclaw net check` says of the rules.
fn rules_checked() -> Result<String, Error> {
    let config = fireclaw_policy::HostConfig::parse("").unwrap();
    let checks = fireclaw_net::check(NetworkMode::Host, &config);
    checks.into_iter().find(|check| check.name == "rules").unwrap().result
}

#[test]
fn a_kernel_without_a_part_of_it_is_named() {
    let Some(_lab) = enter("a_kernel_without_a_part_of_it_is_named") else { return };
    let before = host();
    rules_checked().unwrap();
    assert_eq!(host(), before);
    for (word, part) in [
        (r#""netdev""#, "NF_TABLES_NETDEV"),
        (r#""ct count":"#, "nft_connlimit"),
        (r#""fib":"#, "nft_fib_inet"),
        (r#""dnat":"#, "nft_nat"),
        (r#""masquerade":"#, "nft_masq"),
        (r#""reject":"#, "nft_reject_inet"),
    ] {
        // What the kernel does not know it does not find.
        let script = format!(
            "words=$(cat)
case $words in *'{word}'*)
    echo 'Error: Could not process rule: No such file or directory' >&2; exit 1
esac
printf %s \"$words\" | NFT \"$@\""
        );
        let _before = before_nft(&script);
        for mode in [NetworkMode::Host, NetworkMode::Namespace] {
            let error = refused(mode).to_string();
            assert!(error.contains("this kernel lacks") && error.contains(part), "{error}");
            assert!(error.contains("No such file or directory"), "{error}");
        }
        assert!(rules_checked().unwrap_err().to_string().contains(part));
        run("umount", &["/usr/sbin/nft"]);
    }
}

#[test]
fn a_kernel_that_cannot_forget_connections_is_named() {
    let Some(_lab) = enter("a_kernel_that_cannot_forget_connections_is_named") else { return };
    // The helper's sockets for that, as it starts and as it gives up.
    let inject = "inject=socket:error=EPROTONOSUPPORT:when=7..9+2";
    let log = tempfile::NamedTempFile::new().unwrap();
    let arguments = ["-qq", "-f", "-o", log.path().to_str().unwrap(), "-e", "trace=socket"];
    let arguments = [&arguments[..], &["-e", inject, PROGRAM]].concat();
    let error = refused_by("strace", &arguments, NetworkMode::Host);
    assert!(error.to_string().contains("lacks nf_conntrack_netlink"), "{error}");
    let log = std::fs::read_to_string(log.path()).unwrap();
    let injected: Vec<&str> = log.lines().filter(|line| line.contains("INJECTED")).collect();
    assert!(injected.len() == 2 && injected.iter().all(|line| line.contains("NETFILTER")), "{log}");
}

#[test]
fn without_nft_it_is_said() {
    let Some(_lab) = enter("without_nft_it_is_said") else { return };
    without_nft();
    let error = refused(NetworkMode::Host);
    assert!(matches!(error, Error::Missing { .. } | Error::Rules { .. }), "{error}");
    assert!(error.hint().unwrap().contains("none works without it"), "{error}");
}
