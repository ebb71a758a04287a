//! Nothing of a VM's network is left, whoever is killed.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

use super::{BOTH, Host, Machine, Who, on_a_host};
use crate::harness::{is_alive, processes_of, signal, vmm_of, wait_until};

/// A table of somebody else.
const FOREIGN: &str = "add table inet other
add chain inet other input { type filter hook input priority 0; policy accept; }
add rule inet other input tcp dport 9 counter drop
add table ip fireclaw-not";

#[test]
fn whoever_is_killed_nothing_is_left() {
    on_a_host("network::clean::whoever_is_killed_nothing_is_left", |host| {
        let file = host.home.path().join("foreign.nft");
        fs::write(&file, FOREIGN).unwrap();
        fireclaw_netlab::run("nft", &["-f", file.to_str().unwrap()]);
        let before = foreign();
        for who in BOTH {
            for victim in [run, gateway, helper, vmm] {
                let mut machine = host.start(who, "full", "echo up; exec sleep 170");
                let all = [run, gateway, helper, vmm].map(|of| of(host, who, &machine));
                let victim = victim(host, who, &machine);
                kill_process(Pid::from_raw(victim).unwrap(), Signal::KILL).unwrap();
                // Ours is a child, dead until it is waited for.
                wait_until("its end", || {
                    let _ = machine.child.try_wait();
                    !is_alive(victim)
                });
                machine.end();
                wait_until("all to end", || !all.iter().any(|&process| is_alive(process)));
                // What a killed helper leaves with root is found by the next one.
                host.command(who, &["net", "prune"]).exits(0);
                host.is_clean(who);
                assert_eq!(foreign(), before);
            }
            let machine = host.start(who, "full", "echo up; exec sleep 170");
            let all = [gateway, helper, vmm].map(|of| of(host, who, &machine));
            signal(&machine.child, Signal::INT);
            machine.end();
            assert!(!all.iter().any(|&process| is_alive(process)), "it ends after all of them");
            host.is_clean(who);
        }
    });
}

fn foreign() -> String {
    fireclaw_netlab::run("nft", &["list", "ruleset"])
}

fn run(_: &Host, _: Who, machine: &Machine) -> i32 {
    i32::try_from(machine.child.id()).unwrap()
}

fn vmm(_: &Host, _: Who, machine: &Machine) -> i32 {
    vmm_of(&machine.child)
}

fn helper(host: &Host, who: Who, _: &Machine) -> i32 {
    i32::try_from(host.list(who)[0]["helper"]["pid"].as_i64().unwrap()).unwrap()
}

/// The other one that runs by the hidden command.
fn gateway(host: &Host, who: Who, machine: &Machine) -> i32 {
    let helper = helper(host, who, machine);
    let both = processes_of(&machine.child, "gateway");
    both.into_iter().find(|&process| process != helper).unwrap()
}
