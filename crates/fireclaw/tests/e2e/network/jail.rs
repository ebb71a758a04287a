//! Firecracker in its jail, with a network interface: what confines it does not cut it off.

use std::fs;

use rustix::process::Signal;

use super::{Who, on_a_host};
use crate::harness::{is_alive, signal, timeout, vmm_of, wait, wait_until};

/// The VMM's user and group.
const JAIL: [&str; 2] = ["--jail", "60001:60002"];

#[test]
#[ignore = "needs Firecracker, its jailer, KVM and root"]
fn a_jailed_machine_reaches_what_its_policy_says() {
    on_a_host("network::jail::a_jailed_machine_reaches_what_its_policy_says", |host| {
        let [jail, user] = JAIL;
        for policy in ["allow:allowed.example", "full"] {
            let done = host.run(Who::Root, policy, &[jail, user, "curl -s allowed.example"], "");
            assert_eq!(done.exits(0).stdout(), "internet says hello as allowed.example\n");
            let machine = host.start_with(Who::Root, policy, &JAIL, "echo up; exec sleep 170");
            let status = fs::read_to_string(format!("/proc/{}/status", vmm_of(&machine.child)));
            let status = status.unwrap();
            assert!(status.contains("Uid:\t60001\t60001\t60001\t60001"), "{status}");
            assert!(status.contains("CapEff:\t0000000000000000"), "{status}");
            machine.end();
            host.is_clean(Who::Root);
        }
        let refused = ["--parallel", "2", jail, user, "curl -sS allowed.example || echo refused"];
        let done = host.run(Who::Root, "local", &refused, "").exits(0);
        assert_eq!(done.stdout().matches("refused\n").count(), 2, "{}", done.stdout());
        host.is_clean(Who::Root);
    });
}

/// The kernel does not tell a VMM that changed its user of its owner's end. Firecracker
/// aborts when it then writes to its standard output, which nobody reads: what its guest
/// writes to the console, and that its tap is gone. So only a silent one without lives on.
#[test]
#[ignore = "needs Firecracker, its jailer, KVM and root"]
fn one_that_outlived_its_owner_has_no_network_and_is_swept() {
    on_a_host("network::jail::one_that_outlived_its_owner_has_no_network_and_is_swept", |host| {
        let line = "python3 -c 'import termios
console = open(\"/dev/ttyS0\", \"w\")
termios.tcflow(console, termios.TCOOFF)' && echo up; exec sleep 170";
        for policy in ["none", "full"] {
            let mut machine = host.start_with(Who::Root, policy, &JAIL, line);
            let vmm = vmm_of(&machine.child);
            signal(&machine.child, Signal::KILL);
            wait(&mut machine.child, timeout());
            wait_until("its network to go", || host.list(Who::Root).is_empty());
            assert!(!fireclaw_netlab::run("ip", &["-o", "link"]).contains("fc-"));
            assert!(policy != "none" || is_alive(vmm));
            host.run(Who::Root, "none", &["true"], "").exits(0);
            assert!(!is_alive(vmm));
            host.is_clean(Who::Root);
            let run = fs::read_dir(host.home.path().join("run")).unwrap();
            assert_eq!(run.count(), 0, "nothing is left of it");
        }
    });
}

#[test]
#[ignore = "needs Firecracker, its jailer, KVM and root"]
fn a_place_without_devices_is_told() {
    on_a_host("network::jail::a_place_without_devices_is_told", |host| {
        let run = host.home.path().join("run");
        fs::create_dir_all(&run).unwrap();
        let run = run.to_str().unwrap();
        fireclaw_netlab::run("mount", &["-t", "tmpfs", "-o", "nodev", "tmpfs", run]);
        let done = host.run(Who::Root, "none", &[JAIL[0], JAIL[1], "true"], "").exits(125);
        done.says(&["jailer", "on a file system mounted with nodev"]);
        fireclaw_netlab::run("umount", &[run]);
    });
}
