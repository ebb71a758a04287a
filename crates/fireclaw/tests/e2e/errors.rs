//! Wrong input: every mistake has its words and its hint.

use std::fs;

use crate::harness::{Done, Home, finish, timeout};

fn run_with(
    home: &Home,
    prepare: impl FnOnce(&mut std::process::Command),
    arguments: &[&str],
) -> Done {
    let mut command = home.fireclaw(["run"]);
    command.args(arguments);
    prepare(&mut command);
    finish(command, Vec::new(), timeout())
}

#[test]
fn values_out_of_range() {
    let home = Home::new();
    for (option, value, said) in [
        ("--memory", "0", "too little"),
        ("--memory", "1", "too little"),
        ("--memory", "lots", "MiB"),
        ("--cpus", "0", "from 1 to 32"),
        ("--cpus", "999", "from 1 to 32"),
        ("--timeout", "0", "more than 0"),
        ("--timeout", "-1", "more than 0"),
        ("--env", "NOEQUALS", "NAME=VALUE"),
        ("--env", "=x", "NAME=VALUE"),
        ("--vmm", "xen", "possible values"),
    ] {
        home.run([option, value, "true"]).exits(2).says(&[said]);
    }
    for user in ["4294967295", "99999999999"] {
        home.run(["--user", user, "true"]).exits(125).says(&[user, "0 to 4294967294", "hint:"]);
    }
    home.run(["--memory", "10T", "true"]).exits(125).says(&["this host has", "hint:"]);
}

#[test]
fn no_command_or_too_much_of_one() {
    let home = Home::new();
    let none: [&str; 0] = [];
    home.run(none).exits(2).says(&["no command", "hint:"]);
    home.run([""]).exits(2).says(&["empty"]);
    home.run(["--", ""]).exits(2).says(&["empty"]);
    home.run(["ls /", "/tmp"]).exits(2).says(&["quote it", "-- ls …"]);
    home.run(["alpine:3", "ls"]).exits(2).says(&["fireclaw run --image alpine:3 ls"]);
}

#[test]
fn a_small_stack_is_made_larger_or_told() {
    let home = Home::new();
    let mut shell = std::process::Command::new("bash");
    shell.args(["-c", "ulimit -S -s 64; exec \"$0\" run -n true"]).arg(crate::harness::binary());
    shell.env("FIRECLAW_HOME", home.path());
    finish(shell, Vec::new(), timeout()).exits(0);
    // What nobody but root may raise: here nobody may at all.
    let mut shell = std::process::Command::new("setpriv");
    shell.args(["--bounding-set", "-all", "--inh-caps", "-all", "bash", "-c"]);
    shell.args(["ulimit -s 64; exec \"$0\" --version"]).arg(crate::harness::binary());
    finish(shell, Vec::new(), timeout()).exits(125).says(&["64 KiB", "ulimit -s 8192"]);
}

#[test]
fn set_up_not_done() {
    let home = Home::empty();
    home.run(["true"]).exits(125).says(&["setup has not run", "fireclaw setup", "--yes"]);
}

#[test]
fn no_monitor_installed() {
    let home = Home::new();
    run_with(
        &home,
        |c| {
            c.env("PATH", "/nonexistent").env("FIRECLAW_VMM", "qemu");
        },
        &["true"],
    )
    .exits(125)
    .says(&["qemu-system-x86_64 is not installed", "apt-get install"]);
    run_with(
        &home,
        |c| {
            c.env("FIRECLAW_FIRECRACKER", "/nonexistent/fc");
        },
        &["--vmm", "firecracker", "true"],
    )
    .exits(125)
    .says(&["hint:"]);
    home.is_clean();
}

#[test]
fn unknown_image_and_bad_kernels() {
    let home = Home::new();
    home.run(["--image", "nope", "--pull", "never", "true"])
        .exits(125)
        .says(&["no image named", "there are: base"]);
    home.run(["--image", "../../etc", "true"]).exits(125).says(&["is not an image name"]);
    let kernel = home.path().join("kernel");
    let path = kernel.to_str().unwrap();
    home.run(["--kernel", path, "true"]).exits(125).says(&["cannot read", "No such file"]);
    fs::write(&kernel, "#!/bin/sh\n").unwrap();
    home.run(["--kernel", path, "true"]).exits(125).says(&["neither", "hint:"]);
    let mut arm = vec![0; 4096];
    arm[0x38..0x3c].copy_from_slice(b"ARM\x64");
    fs::write(&kernel, arm).unwrap();
    home.run(["--kernel", path, "true"]).exits(125).says(&["another architecture", "arm64"]);
    fs::write(
        &kernel,
        [b"\x7fELF\x02\x01\x01".as_slice(), &[0; 11], &[62, 0], &[0; 4000]].concat(),
    )
    .unwrap();
    // QEMU starts and gives up, Firecracker refuses to start.
    let said = home.run(["--kernel", path, "true"]).exits(125).says(&["hint:"]).stderr();
    assert!(said.contains("ended unexpectedly") || said.contains("refused"), "{said}");
    home.is_clean();
}

#[test]
fn a_damaged_file_is_noticed() {
    let home = Home::new();
    let manifest = home.path().join("manifest.json");
    let text = fs::read_to_string(&manifest).unwrap();
    // The image in the manifest is one byte longer than the file.
    let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let bytes = value["images"]["base"]["rootfs"]["bytes"].as_u64().unwrap();
    value["images"]["base"]["rootfs"]["bytes"] = (bytes + 1).into();
    fs::write(&manifest, value.to_string()).unwrap();
    home.run(["true"]).exits(125).says(&["damaged", "fireclaw setup"]);
    fs::write(&manifest, "{ half").unwrap();
    home.run(["true"]).exits(125).says(&["manifest.json is damaged"]);
}

#[test]
fn a_home_that_cannot_be_written() {
    let home = Home::new();
    // Nobody, not even root, can create files there.
    run_with(
        &home,
        |c| {
            c.env("FIRECLAW_HOME", "/proc/fireclaw");
        },
        &["--yes", "true"],
    )
    .exits(125)
    .says(&["cannot create /proc/fireclaw"]);
}
