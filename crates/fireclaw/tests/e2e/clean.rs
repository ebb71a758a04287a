//! Nothing is left behind, however a run ends, and many can run at once.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::harness::{Home, alone, finish, is_alive, signal, timeout, vmm_of, wait, wait_until};

/// What could leak: processes, mounts, and every file, socket or directory
/// below the home and the home's own temporary directory.
#[derive(Debug, PartialEq, Eq)]
struct Leaks {
    processes: Vec<String>,
    mounts: usize,
    entries: Vec<PathBuf>,
}

fn leaks(home: &Home) -> Leaks {
    let mut entries = Vec::new();
    let mut directories = vec![home.path().to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap().flatten() {
            entries.push(entry.path());
            if entry.file_type().unwrap().is_dir() {
                directories.push(entry.path());
            }
        }
    }
    entries.sort();
    Leaks {
        processes: crate::harness::processes_mentioning(&home.path().to_string_lossy()),
        mounts: fs::read_to_string("/proc/self/mounts").unwrap().lines().count(),
        entries,
    }
}

#[test]
fn a_hundred_runs_leave_nothing() {
    let _alone = alone();
    let home = Home::new();
    fs::create_dir(home.path().join("tmp")).unwrap();
    home.run(["true"]).exits(0);
    let before = leaks(&home);
    let runs = std::env::var("FIRECLAW_TEST_RUNS").ok().and_then(|n| n.parse().ok()).unwrap_or(100);
    for n in 0..runs {
        let done = home.run([format!("echo {n}")]).exits(0);
        assert_eq!(done.stdout(), format!("{n}\n"));
    }
    assert_eq!(leaks(&home), before);
    home.is_clean();
}

#[test]
fn eight_at_once() {
    let _alone = alone();
    let home = Home::new();
    let children: Vec<_> = (0..8)
        .map(|n| {
            home.fireclaw(["run".into(), format!("echo {n}; cat /etc/machine-id")])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let mut ids = std::collections::HashSet::new();
    for (n, child) in children.into_iter().enumerate() {
        let done = crate::harness::finish_child(child, timeout()).exits(0);
        let stdout = done.stdout();
        let mut lines = stdout.lines();
        assert_eq!(lines.next(), Some(n.to_string().as_str()));
        ids.insert(lines.next().unwrap().to_owned());
    }
    assert_eq!(ids.len(), 8, "every machine has an identity of its own");
    home.is_clean();
}

#[test]
fn a_killed_run_takes_its_vmm_along_and_the_next_one_sweeps() {
    let home = Home::new();
    let mut child = home.fireclaw(["run", "sleep 600"]).spawn().unwrap();
    let vmm = vmm_of(&child);
    signal(&child, Signal::KILL);
    wait(&mut child, timeout());
    wait_until("the VMM to die with its owner", || !is_alive(vmm));
    let left = fs::read_dir(home.path().join("run")).unwrap().count();
    assert_eq!(left, 2, "a directory and its lock are left for the sweep");
    home.run(["true"]).exits(0);
    home.is_clean();
}

#[test]
fn doctor_sweeps_and_says_so() {
    let home = Home::new();
    let run = home.path().join("run");
    fs::create_dir_all(run.join("fireclaw-00000000deadbeef")).unwrap();
    fs::write(run.join("fireclaw-00000000deadbeef.lock"), "").unwrap();
    // A VMM whose owner died before it could be told to die with it.
    let mut orphan = Command::new("sh")
        .args(["-c", "read never", "fireclaw-00000000deadbeef"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    // Its command line shows only once its exec is through.
    wait_until("the orphan to be there", || {
        !crate::harness::processes_mentioning("fireclaw-00000000deadbeef").is_empty()
    });
    let done = finish(home.fireclaw(["doctor", "--json"]), Vec::new(), timeout()).exits(0);
    assert!(done.stdout().contains("removed 1 orphaned VM"), "{}", done.stdout());
    assert!(!wait(&mut orphan, timeout()).success());
    home.is_clean();
}
