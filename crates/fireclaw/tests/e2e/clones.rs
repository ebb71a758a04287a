//! Many VMs at once, and VMs that wait.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;

use crate::harness::{
    Home, alone, finish, finish_child, is_alive, processes_of, signal, timeout, vmm_of, wait,
    wait_until,
};

fn start(mut command: Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

#[test]
fn each_clone_reads_all_of_standard_input() {
    let _alone = alone();
    let home = Home::new();
    // Also one whose turn comes late.
    let input: Vec<u8> = (0..5_000_000u32).map(|n| (n % 251) as u8).collect();
    let run = home.fireclaw(["run", "--parallel", "5", "cksum"]);
    let sums = finish(run, input, timeout()).exits(0).stdout();
    let mut sums: Vec<_> = sums.lines().map(|line| line.split_once("] ").unwrap().1).collect();
    assert_eq!(sums.len(), 5);
    sums.dedup();
    assert!(sums.len() == 1 && sums[0].ends_with(" 5000000"), "{sums:?}");
    // Who has read enough does not wait for its end.
    let mut run = home.fireclaw(["run", "--parallel", "2", "head -c 3; echo"]);
    run.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut run = run.spawn().unwrap();
    let mut stdin = run.stdin.take().unwrap();
    stdin.write_all(b"abcdef").unwrap();
    let mut lines: Vec<_> =
        finish_child(run, timeout()).exits(0).stdout().lines().map(str::to_owned).collect();
    drop(stdin);
    lines.sort();
    assert_eq!(lines, ["[1] abc", "[2] abc"]);
    let run = home.fireclaw(["run", "-n", "--parallel", "2", "wc -c"]);
    let none = finish(run, b"abc".to_vec(), timeout()).exits(0).stdout();
    assert!(none.lines().all(|line| line.ends_with("] 0")), "{none}");
    home.is_clean();
}

#[test]
fn parallel_runs_are_labelled_and_the_worst_status_counts() {
    let _alone = alone();
    let home = Home::new();
    let script = "echo clone $FIRECLAW_CLONE; echo wrong >&2; exit $((FIRECLAW_CLONE % 3))";
    let done = home.run(["--parallel", "4", script]).exits(2);
    let mut lines: Vec<_> = done.stdout().lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["[1] clone 1", "[2] clone 2", "[3] clone 3", "[4] clone 4"]);
    assert!(done.stderr().contains("[3] wrong"), "{}", done.stderr());
    // A line without an end, and one that is too long for any buffer.
    let long = home.run(["--parallel", "1", "printf end; head -c 200000 /dev/zero | tr '\\0' x"]);
    let stdout = long.exits(0).stdout();
    assert!(stdout.lines().all(|line| line.starts_with("[1] ")), "every piece has its label");
    assert_eq!(stdout.matches('x').count(), 200_000);
    // A clone that runs out of time does not take the others with it.
    let late = home.run(["-t", "20", "--parallel", "2", "test $FIRECLAW_CLONE = 1 || sleep 600"]);
    late.exits(124).says(&["[2] fireclaw: timed out after 20 s; VM destroyed"]);
    for wrong in ["0", "-1", "1025", "x"] {
        home.run(["--parallel", wrong, "true"]).exits(2).says(&["1 to 1024"]);
    }
    home.is_clean();
}

#[test]
fn more_clones_than_fit_wait_their_turn() {
    let _alone = alone();
    let home = Home::new();
    let done = home.run(["--parallel", "64", "echo $FIRECLAW_CLONE"]).exits(0);
    assert_eq!(done.stdout().lines().count(), 64);
    let processors = std::thread::available_parallelism().unwrap().get();
    if processors <= 2 {
        assert!(done.stderr().contains("at a time ("), "{}", done.stderr());
    }
    home.is_clean();
}

#[test]
fn interrupted_clones_all_end() {
    let _alone = alone();
    let home = Home::new();
    let mut child = start(home.fireclaw(["run", "--parallel", "3", "echo up; sleep 600"]));
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for _ in 0..3 {
        lines.next().unwrap().unwrap();
    }
    signal(&child, Signal::INT);
    finish_child(child, timeout()).exits(130);
    home.is_clean();
}

/// A pool that is ready, in a home whose sockets are its own.
fn pool(home: &Home, size: &str) -> Child {
    let mut child = start(home.fireclaw(["pool", "--size", size]));
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let line = lines.next().expect("the pool ended").unwrap();
    assert!(line.contains("VMs ready"), "{line}");
    // Its later words are nobody's concern, but must not block it.
    std::thread::spawn(move || lines.for_each(drop));
    child
}

#[test]
fn a_run_takes_what_waits_and_another_takes_its_place() {
    let _alone = alone();
    let home = Home::new();
    let mut waiting = pool(&home, "2");
    let taken = || {
        let run = ["-v", "cat /etc/machine-id; hostname; cat > /root/x"];
        home.run(run).exits(0).says(&["fireclaw: from pool"]).stdout()
    };
    // Each is used once, and what one wrote no other sees.
    let (first, second) = (taken(), taken());
    assert_ne!(first, second);
    wait_until("the pool to be full again", || {
        let run = home.run(["-v", "test ! -e /root/x"]).exits(0);
        run.stderr().contains("fireclaw: from pool")
    });
    // One of another shape is not to be had from it.
    let other = home.run(["-v", "--memory", "192", "true"]).exits(0);
    assert!(!other.stderr().contains("from pool"));
    // There is one pool of a kind.
    let again = finish(home.fireclaw(["pool"]), Vec::new(), timeout());
    again.exits(1).says(&["already running"]);
    let large = finish(home.fireclaw(["pool", "--size", "257"]), Vec::new(), timeout());
    large.exits(2).says(&["1 to 256"]);

    signal(&waiting, Signal::TERM);
    assert!(wait(&mut waiting, timeout()).success());
    home.is_clean();
    let sockets = fs::read_dir(home.path().join("pool")).unwrap().count();
    assert_eq!(sockets, 0);
    home.run(["true"]).exits(0);
}

#[test]
fn a_pool_survives_its_takers_and_they_hear_of_its_end() {
    let _alone = alone();
    let home = Home::new();
    let mut waiting = pool(&home, "1");
    // A run that has the pool's VM, and the VM.
    let hold = || loop {
        wait_until("a machine", || processes_of(&waiting, "fireclaw-").len() == 1);
        let machine = vmm_of(&waiting);
        let mut child = start(home.fireclaw(["run", "echo up; sleep 600"]));
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "up");
        if processes_of(&child, "fireclaw-").is_empty() {
            break (child, machine);
        }
        // The pool had none ready yet, so this run started its own.
        signal(&child, Signal::KILL);
        wait(&mut child, timeout());
    };
    // Whoever took a VM and is killed leaves none behind.
    let (mut taker, machine) = hold();
    signal(&taker, Signal::KILL);
    wait(&mut taker, timeout());
    wait_until("the machine to be gone", || !is_alive(machine));
    // A VM that dies under its taker is told of, and replaced.
    let (taker, machine) = hold();
    let pid = rustix::process::Pid::from_raw(machine).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
    finish_child(taker, timeout()).exits(125).says(&["ended by signal 9"]);
    // The pool dies: its VMs go with it, and the runs that have them say so.
    let (taker, machine) = hold();
    signal(&waiting, Signal::KILL);
    wait(&mut waiting, timeout());
    finish_child(taker, timeout()).exits(125).says(&["its pool ended"]);
    wait_until("the machine to be gone", || !is_alive(machine));
    // What it left is swept, and the next run does without it.
    home.run(["-v", "true"]).exits(0).says(&["fireclaw: restore"]);
    home.is_clean();
}

#[test]
fn doctor_proves_that_clones_share_nothing() {
    let _alone = alone();
    let home = Home::new();
    let doctor = home.fireclaw(["doctor", "--prove", "--json"]);
    let done = finish(doctor, Vec::new(), timeout()).exits(0);
    let report: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    let proved = report["proved"].as_array().unwrap();
    for name in ["wall clock", "monotonic clock", "randomness", "identity", "disks", "leaks"] {
        let check = proved.iter().find(|check| check["name"] == name);
        assert_eq!(check.unwrap()["verdict"], "ok", "{}", done.stdout());
    }
    home.is_clean();
}
