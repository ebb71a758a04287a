//! Runs start from a snapshot, and nobody can tell but by the clock.

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use rustix::process::Signal;

use crate::harness::{
    Home, alone, finish, finish_child, signal, timeout, vmm_of, wait, wait_until,
};

/// A home whose snapshots are its own.
fn home() -> Home {
    let home = Home::new();
    let _ = fs::remove_file(home.path().join("snapshots"));
    home
}

#[track_caller]
fn names(home: &Home) -> Vec<String> {
    let done = finish(home.fireclaw(["snapshot", "ls", "--json"]), Vec::new(), timeout()).exits(0);
    let list: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    list.as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn it_is_made_on_first_use_and_used_from_then_on() {
    let home = home();
    let cold = home.run(["-v", "--no-snapshot", "true"]).exits(0);
    assert!(cold.stderr().contains("fireclaw: kernel") && names(&home).is_empty());
    home.run(["-v", "true"]).exits(0).says(&["fireclaw: restore"]);
    let made = names(&home);
    assert_eq!(made.len(), 1);
    home.run(["-v", "true"]).exits(0).says(&["fireclaw: restore"]);
    // Another size is another VM.
    home.run(["-v", "--memory", "192", "true"]).exits(0);
    assert_eq!(names(&home).len(), 2);

    let list = finish(home.fireclaw(["snapshot", "ls"]), Vec::new(), timeout()).exits(0);
    assert!(list.stdout().contains(&made[0]) && list.stdout().contains("256 MiB"));
    let remove =
        |name: &str| finish(home.fireclaw(["snapshot", "rm", name]), Vec::new(), timeout());
    remove(&made[0]).exits(0);
    remove(&made[0]).exits(1).says(&["no snapshot named", "there are:"]);
    remove("../images").exits(1);
    remove(&"x".repeat(300)).exits(1);
    remove("").exits(1);
    assert_eq!(names(&home).len(), 1);
    home.is_clean();
}

/// From the very first call, in 32 clones, eight at a time, of a VM that
/// had read all of it before it was saved.
#[test]
fn clones_have_nothing_random_in_common() {
    let _alone = alone();
    let home = Home::new();
    let warm = "cat /etc/machine-id /proc/sys/kernel/random/boot_id; uuidgen; \
        python3 -c 'import os, random, uuid; os.getrandom(8); random.random(); uuid.uuid4()'";
    let create = ["snapshot", "create", "--name", "read-it-all", "--warm", warm];
    finish(home.fireclaw(create), Vec::new(), timeout()).exits(0);
    let script = "head -c 8 /dev/urandom | od -An -tx1
        uuidgen
        hostname
        cat /etc/machine-id /proc/sys/kernel/random/boot_id /proc/sys/kernel/random/uuid
        python3 -c 'import os, random, uuid
print(os.getrandom(8).hex()); print(random.random()); print(uuid.uuid4())'";
    let mut seen = HashSet::new();
    // Eight at a time on one processor, itself emulated, take longer than the
    // minute that a command has if nothing else is said.
    let limit = timeout().as_secs().to_string();
    let rounds = 4;
    for _ in 0..rounds {
        let start = |_| {
            let mut run = home.fireclaw(["run", "-t", &limit, "--snapshot", "read-it-all", script]);
            run.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        };
        for child in (0..8).map(start).collect::<Vec<_>>() {
            let stdout = finish_child(child, timeout()).exits(0).stdout();
            assert_eq!(stdout.lines().count(), 9, "{stdout}");
            for line in stdout.lines() {
                assert!(seen.insert(line.to_owned()), "twice: {line}");
            }
        }
    }
    assert_eq!(seen.len(), rounds * 8 * 9);
    home.is_clean();
}

#[test]
fn the_clock_goes_on_from_now() {
    let home = home();
    let clock = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    home.run(["true"]).exits(0);
    let before = clock().as_millis();
    let stdout = home.run(["date +%s%3N; cut -d' ' -f1 /proc/uptime"]).exits(0).stdout();
    let after = clock().as_millis();
    let guest: u128 = stdout.lines().next().unwrap().parse().unwrap();
    assert!((before..=after).contains(&guest), "{guest} is not in {before}..={after}");
    let uptime: f64 = stdout.lines().nth(1).unwrap().parse().unwrap();
    assert!(uptime > 0.0, "the monotonic clock goes on from the snapshot");
}

/// What `-v` says of the clock is true: the guest is asked for its time, and of ten answers
/// the one that took the shortest says where its clock is, by half of what it took at most.
#[test]
fn the_clock_is_as_right_as_is_said() {
    const SCRIPT: &str = "python3 -c 'import sys, time\nprint(0, flush=True)\n\
                          for _ in sys.stdin: print(time.time_ns(), flush=True)'";
    let home = home();
    for snapshot in [true, false] {
        let mut run = home.fireclaw(["run", "-v"]);
        if !snapshot {
            run.arg("--no-snapshot");
        }
        run.arg(SCRIPT).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = run.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        lines.next().unwrap().unwrap();
        let start = std::time::Instant::now();
        let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let answers = (0..10).map(|_| {
            let asked = now().as_nanos();
            stdin.write_all(b"\n").unwrap();
            let guest: u128 = lines.next().unwrap().unwrap().parse().unwrap();
            let took = now().as_nanos() - asked;
            (took, guest.abs_diff(asked + took / 2))
        });
        let (took, off) = answers.min().unwrap();
        drop(stdin);
        let done = finish_child(child, timeout()).exits(0);
        let said = done.stderr();
        let within = said.lines().find_map(|line| line.strip_prefix("fireclaw: clock within"));
        let within: f64 = within.unwrap().trim().trim_end_matches(" ms").parse().unwrap();
        assert!(within < 1000.0, "{said}");
        // Clocks of one host drift too: by far less than a thousandth.
        let drift = 1.0 + start.elapsed().as_secs_f64();
        let (took, off) = (took as f64 / 1e6, off as f64 / 1e6);
        assert!(off <= within + took / 2.0 + drift, "{off} ms off, answered in {took} ms: {said}");
    }
    home.is_clean();
}

#[test]
fn a_spoilt_one_is_made_anew() {
    let home = home();
    home.run(["true"]).exits(0);
    let directory = home.path().join("snapshots").join(&names(&home)[0]);
    for file in ["memory", "state", "meta.json"] {
        let path = directory.join(file);
        let whole = fs::metadata(&path).unwrap().len();
        fs::File::options().write(true).open(&path).unwrap().set_len(whole / 2).unwrap();
        let done = home.run(["-v", "echo fine"]).exits(0);
        assert_eq!(done.stdout(), "fine\n");
        // The description is as long as the numbers in it.
        let now = fs::metadata(&path).unwrap().len();
        assert!(now.abs_diff(whole) <= 8, "{file} was not made anew: {now} of {whole} bytes");
        home.run(["-v", "true"]).exits(0).says(&["fireclaw: restore"]);
    }
    home.is_clean();
}

#[test]
fn a_clone_takes_no_huge_pages() {
    let home = home();
    home.run(["true"]).exits(0);
    let mut child = home
        .fireclaw(["run", "echo ready; sleep 600"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", vmm_of(&child))).unwrap();
    // Kernels before 5.0 do not tell.
    let huge = status.lines().find_map(|line| line.strip_prefix("THP_enabled:"));
    assert!(huge.is_none_or(|huge| huge.trim() == "0"), "{status}");
    signal(&child, Signal::TERM);
    wait(&mut child, timeout());
    home.is_clean();
}

/// Spoils the snapshots of a home so that they still look whole: what is wrong with them shows
/// when they are restored.
pub fn spoil_unseen(home: &Home) {
    use std::os::unix::fs::MetadataExt;
    for entry in fs::read_dir(home.path().join("snapshots")).unwrap().flatten() {
        let (state, meta) = (entry.path().join("state"), entry.path().join("meta.json"));
        let Ok(length) = fs::metadata(&state).map(|state| state.len()) else { continue };
        fs::write(&state, vec![0x55; usize::try_from(length).unwrap()]).unwrap();
        let now = fs::metadata(&state).unwrap();
        let mut told: serde_json::Value =
            serde_json::from_slice(&fs::read(&meta).unwrap()).unwrap();
        told["state"]["inode"] = now.ino().into();
        told["state"]["modified"] = [now.mtime(), now.mtime_nsec()].into();
        told["state"]["changed"] = [now.ctime(), now.ctime_nsec()].into();
        fs::write(meta, told.to_string()).unwrap();
    }
}

#[test]
fn one_that_cannot_be_restored_costs_a_boot_and_is_gone() {
    let home = home();
    home.run(["true"]).exits(0);
    spoil_unseen(&home);
    let done = home.run(["-v", "echo fine"]).exits(0);
    done.says(&["the snapshot could not be used, so it boots", "fireclaw: kernel"]);
    // The next one is made anew.
    home.run(["-v", "true"]).exits(0).says(&["fireclaw: restore"]);
    home.is_clean();
}

#[test]
fn a_named_one_that_cannot_be_restored_is_made_anew_in_the_same_run() {
    let home = home();
    let create = ["snapshot", "create", "--name", "warm", "--warm", "echo before > /root/it"];
    finish(home.fireclaw(create), Vec::new(), timeout()).exits(0);
    spoil_unseen(&home);
    let read = ["-v", "--snapshot", "warm", "cat /root/it"];
    let done = home.run(read).exits(0).says(&["the snapshot could not be used, so it is made"]);
    assert_eq!(done.stdout(), "before\n");
    let again = home.run(read).exits(0).says(&["fireclaw: restore"]);
    assert!(!again.stderr().contains("could not be used"), "{}", again.stderr());
    home.is_clean();
}

#[test]
fn a_killed_maker_leaves_nothing_that_is_used() {
    let home = home();
    let snapshots = home.path().join("snapshots");
    let half_done = || {
        fs::read_dir(&snapshots).is_ok_and(|entries| {
            entries.flatten().any(|entry| entry.path().join("memory").exists())
        })
    };
    for _ in 0..2 {
        let mut child = home.fireclaw(["run", "true"]).spawn().unwrap();
        wait_until("the snapshot to be begun", half_done);
        signal(&child, Signal::KILL);
        wait(&mut child, timeout());
        assert!(names(&home).is_empty(), "half a snapshot is listed");
    }
    home.run(["true"]).exits(0);
    assert_eq!(names(&home).len(), 1);
    let left: Vec<_> = fs::read_dir(&snapshots)
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".new"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    home.is_clean();
}

#[test]
fn removing_it_does_not_disturb_who_runs_from_it() {
    let home = home();
    home.run(["true"]).exits(0);
    let mut child = home
        .fireclaw(["run", "echo up; read line; python3 -c 'print(6 * 7)'"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(stdout.next().unwrap().unwrap(), "up");
    let name = &names(&home)[0];
    finish(home.fireclaw(["snapshot", "rm", name]), Vec::new(), timeout()).exits(0);
    // What it runs now was not in memory before.
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    assert_eq!(stdout.next().unwrap().unwrap(), "42");
    finish_child(child, timeout()).exits(0);
}

#[test]
fn a_named_one_has_run_its_command_before() {
    let home = home();
    let snapshot = |arguments: &[&str]| {
        let mut command = home.fireclaw(["snapshot"]);
        command.args(arguments);
        finish(command, Vec::new(), timeout())
    };
    let create =
        ["create", "--name", "warm", "--memory", "192", "--warm", "echo before > /root/it"];
    assert_eq!(snapshot(&create).exits(0).stdout(), "warm\n");
    // The same again is fine, another VM under that name is not.
    snapshot(&create).exits(0);
    snapshot(&["create", "--name", "warm"]).exits(1).says(&["stands for another VM"]);
    assert_eq!(names(&home), ["warm"]);
    let listed = snapshot(&["ls"]).exits(0).stdout();
    assert!(listed.contains("192 MiB") && listed.contains("echo before"), "{listed}");

    let read = ["-v", "--snapshot", "warm", "cat /root/it; free -m | grep -c 'Mem: *1[0-9][0-9] '"];
    let done = home.run(read).exits(0).says(&["fireclaw: restore"]);
    assert_eq!(done.stdout(), "before\n1\n");
    // An ordinary run has nothing of it.
    home.run(["test ! -e /root/it"]).exits(0);
    // Its files spoilt, it is made again from its recipe, command and all.
    let snapshots = home.path().join("snapshots");
    let memory = fs::read_dir(&snapshots)
        .unwrap()
        .flatten()
        .map(|entry| entry.path().join("memory"))
        .filter(|path| path.exists());
    for path in memory {
        fs::File::options().write(true).open(&path).unwrap().set_len(4096).unwrap();
    }
    assert_eq!(home.run(read).exits(0).stdout(), "before\n1\n");

    home.run(["--snapshot", "warm", "--memory", "512", "true"]).exits(2).says(&["--memory"]);
    home.run(["--snapshot", "nosuch", "true"]).exits(125).says(&["no snapshot named", "warm"]);
    snapshot(&["create", "--warm", "true"]).exits(2).says(&["--name"]);
    for wrong in ["a/b", "..", "auto-1", &"x".repeat(300)] {
        snapshot(&["create", "--name", wrong]).exits(1).says(&["cannot be the name"]);
    }
    snapshot(&["create", "--name", "bad", "--warm", "echo no such luck >&2; exit 3"])
        .exits(1)
        .says(&["exited with status 3", "no such luck"]);
    snapshot(&["rm", "warm"]).exits(0);
    home.run(["--snapshot", "warm", "true"]).exits(125);
    assert!(!names(&home).iter().any(|name| name == "warm" || name == "bad"));
    home.is_clean();
}

/// Wherever the maker is killed, the next run works, from a snapshot that is
/// whole, and nothing is left that nobody owns.
#[test]
fn a_maker_killed_at_each_step_leaves_the_old_or_the_new() {
    let home = home();
    let snapshots = home.path().join("snapshots");
    let trace = home.path().join("trace");
    // What changes the disk, in the order in which it does.
    let mut kills = 0;
    for call in ["mkdir", "fsync", "rename", "renameat2", "unlink", "unlinkat", "rmdir"] {
        for step in 1.. {
            // There is an old one, which is no longer valid: it is replaced.
            for entry in fs::read_dir(&snapshots).into_iter().flatten().flatten() {
                let state = entry.path().join("state");
                if state.exists() {
                    fs::write(state, "spoilt").unwrap();
                }
            }
            // All of its threads. (`--seccomp-bpf` would be faster, and loses signals.)
            let mut strace = std::process::Command::new("strace");
            strace.arg("-f").arg("-o").arg(&trace).arg("-e").arg(format!("trace={call}"));
            strace.arg("-e").arg(format!("inject={call}:signal=KILL:when={step}"));
            let run = home.fireclaw(["snapshot", "create"]);
            strace.arg(run.get_program()).args(run.get_args());
            for (name, value) in run.get_envs() {
                strace.env(name, value.unwrap_or_default());
            }
            let done = finish(strace, Vec::new(), timeout());
            if done.code() == 0 {
                break;
            }
            assert_eq!(done.code(), 137, "{}", done.stderr());
            kills += 1;
            let run = home.run(["-v", "echo fine"]).exits(0).says(&["fireclaw: restore"]);
            assert_eq!(run.stdout(), "fine\n", "killed at {call} {step}");
            assert_eq!(names(&home).len(), 1);
            let left: Vec<_> = fs::read_dir(&snapshots)
                .unwrap()
                .flatten()
                .map(|entry| entry.file_name().into_string().unwrap())
                .filter(|name| name.starts_with('.'))
                .collect();
            assert!(left.is_empty(), "killed at {call} {step}: {left:?}");
            home.is_clean();
        }
    }
    assert!(kills >= 10, "only {kills} steps were found");
}
