//! Guests and VMMs that die, panic or say nothing.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Home, finish_child, timeout, vmm_of};

#[test]
fn a_kernel_panic_shows_the_console() {
    let home = Home::new();
    home.run(["echo c > /proc/sysrq-trigger; sleep 60"]).exits(125).says(&[
        "the guest's kernel panicked",
        "Kernel panic - not syncing",
        "hint:",
    ]);
    home.is_clean();
}

#[test]
fn a_killed_monitor_is_said_to_have_died() {
    let home = Home::new();
    let mut child = home
        .fireclaw(["run", "echo ready; sleep 600"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let vmm = vmm_of(&child);
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    kill_process(Pid::from_raw(vmm).unwrap(), Signal::KILL).unwrap();
    finish_child(child, timeout()).exits(125).says(&["ended unexpectedly", "signal 9"]);
    home.is_clean();
}

#[test]
fn a_guest_that_never_answers_is_bounded() {
    let home = Home::new();
    let mut command = home.fireclaw(["run", "--no-snapshot", "true"]);
    // No guest is up so soon: to the host it is one that never answers.
    command.env("FIRECLAW_BOOT_TIMEOUT", "0.1").stderr(Stdio::piped());
    finish_child(command.spawn().unwrap(), timeout())
        .exits(125)
        .says(&["did not answer within", "FIRECLAW_BOOT_TIMEOUT"]);
    home.is_clean();
}

#[test]
fn a_command_without_memory_is_killed_not_the_machine() {
    let home = Home::new();
    let hungry = "python3 -c 'x = bytearray(1 << 30)' || echo status $?";
    let done = home.run(["--memory", "192", hungry]).exits(0);
    assert!(done.stdout().contains("status"), "{}", done.stdout());
}

#[test]
fn a_full_disk_is_the_commands_error() {
    let home = Home::new();
    let done = home.run(["head -c 1G /dev/zero > /root/big; echo status $?"]).exits(0);
    assert_eq!(done.stdout(), "status 1\n");
    done.says(&["No space left on device"]);
}

#[test]
fn a_guest_cannot_change_the_image() {
    let home = Home::new();
    let image = crate::harness::base_image();
    let before = fs::metadata(&image).unwrap().modified().unwrap();
    let script =
        "dd if=/dev/zero of=/dev/vda bs=4096 count=1 conv=fsync 2>&1; blockdev --getro /dev/vda";
    let done = home.run([script]);
    assert!(
        done.stdout().contains("not permitted") || done.stdout().contains("rror"),
        "{}",
        done.stdout()
    );
    assert_eq!(fs::metadata(&image).unwrap().modified().unwrap(), before);
}

#[test]
fn terminal_sequences_of_a_guest_are_not_obeyed_in_our_messages() {
    let home = Home::new();
    let evil = "\u{1b}[2Jno-such\u{202e}";
    let done = home.run(["--", evil]).exits(127);
    assert!(
        !done.stderr().contains('\u{1b}') && !done.stderr().contains('\u{202e}'),
        "{:?}",
        done.stderr()
    );
}
