//! What `fireclaw run` promises to the command it runs.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::time::Instant;

use crate::harness::Home;

#[test]
fn the_kernel_is_the_guests() {
    let home = Home::new();
    let guest = home.run(["uname -a"]).exits(0).stdout();
    let host = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert!(guest.starts_with("Linux fireclaw-"), "{guest}");
    assert!(!guest.contains(host.trim()), "{guest} on {host}");
    home.is_clean();
}

#[test]
fn exit_statuses_pass_through() {
    let home = Home::new();
    home.run(["exit 7"]).exits(7);
    home.run(["kill -9 $$"]).exits(128 + 9);
    home.run(["--", "no-such-program"]).exits(127).says(&["no-such-program"]);
    home.run(["--", "/etc/passwd"]).exits(126).says(&["/etc/passwd"]);
    home.run(["no-such-program"]).exits(127);
    home.is_clean();
}

#[test]
fn arguments_are_bytes_and_are_not_split() {
    let home = Home::new();
    let odd = OsString::from_vec(vec![b'a', b' ', 0xff, 0xfe, b'\n', b'"', b'$', b'b']);
    let line: [OsString; 4] = ["--".into(), "printf".into(), "[%s]".into(), odd];
    let done = home.run(line).exits(0);
    assert_eq!(done.stdout, b"[a \xff\xfe\n\"$b]");
    // Several words need no `--`.
    assert_eq!(home.run(["printf", "[%s]", "$HOME"]).exits(0).stdout(), "[$HOME]");
}

#[test]
fn user_directory_environment_and_size_are_as_asked() {
    let home = Home::new();
    let script = "echo $K; pwd; id -un; id -u; nproc; grep MemTotal /proc/meminfo; echo $HOME";
    let options = ["--env", "K=a=b c", "--workdir", "/tmp", "--user", "agent"];
    let size = ["--cpus", "2", "--memory", "512M", "--", "sh", "-c", script];
    let done = home.run(options.into_iter().chain(size)).exits(0);
    let stdout = done.stdout();
    let lines: Vec<&str> = stdout.lines().collect();
    assert_eq!(lines[..5], ["a=b c", "/tmp", "agent", "1000", "2"]);
    let kib: u64 = lines[5].split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!((440_000..524_288).contains(&kib), "{kib}");
    assert_eq!(lines[6], "/home/agent");
}

#[test]
fn an_unknown_user_or_directory_is_named() {
    let home = Home::new();
    home.run(["--user", "nobody-here", "true"]).exits(125).says(&["nobody-here"]);
    home.run(["--workdir", "/no/such", "true"]).exits(125).says(&["/no/such"]);
}

#[test]
fn a_guest_has_what_programs_expect() {
    let home = Home::new();
    let script = "set -e
        test -c /dev/null; test -d /dev/pts; test -w /dev/shm; test -w /tmp
        test -e /sys/fs/cgroup/cgroup.controllers; test -r /proc/self/fd/0
        echo x > /root/written; touch /etc/also-here
        ip link show lo | grep -q UP; getent hosts localhost >/dev/null
        hostname | grep -qx 'fireclaw-[0-9a-f]*'
        python3 -c 'import os, ssl, json; os.urandom(8)'
        python --version >/dev/null; touch /run/lock/x /var/lock/y
        test $(ulimit -Hn) -ge 524288; test $(ulimit -n) = 1024
        setpriv --reuid agent --clear-groups sh -c 'ulimit -n 8192; touch /var/lock/z'
        git --version; curl --version >/dev/null; bash -c 'ps aux' >/dev/null
        date +%s; cat /etc/machine-id";
    let before = unix_time();
    let done = home.run(["--memory", "384", script]).exits(0);
    let after = unix_time();
    let stdout = done.stdout();
    let clock: u64 = stdout.lines().nth(1).unwrap().parse().unwrap();
    assert!((before..=after).contains(&clock), "{clock} is not in {before}..={after}");
    assert_eq!(stdout.lines().nth(2).unwrap().len(), 32);
}

fn unix_time() -> u64 {
    let now = std::time::SystemTime::now();
    now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

#[test]
fn nothing_is_kept_and_nothing_is_shared() {
    let home = Home::new();
    let first = home.run(["cat /etc/machine-id; echo mine > /root/file; cat /root/file"]).exits(0);
    let second = home.run(["cat /etc/machine-id; cat /root/file"]).exits(1);
    assert!(first.stdout().contains("mine"));
    assert!(!second.stdout().contains("mine"));
    assert_ne!(first.stdout().lines().next(), second.stdout().lines().next());
}

#[test]
fn time_runs_out() {
    let home = Home::new();
    let start = Instant::now();
    // A child that left its session and ignores signals goes too.
    let script = "trap '' TERM INT; setsid sh -c \"trap '' TERM; sleep 600\" & sleep 600";
    home.run(["-t", "1", script]).exits(124).says(&["timed out after 1 s; VM destroyed"]);
    assert!(start.elapsed().as_secs() < 60);
    home.is_clean();
}

#[test]
fn memory_that_ran_out_is_told() {
    let home = Home::new();
    let hungry = "x = []\nwhile 1: x.append(b'a' * (1 << 20))";
    let done = home.run(["-n", "-m", "128", "--", "python3", "-c", hungry]).exits(137);
    done.says(&["ran out of memory", "--memory"]);
    // A part of a command may be what was killed; one that does without it succeeds.
    let line = format!("python3 -c \"{hungry}\" || python3 -c 'print(6*7)'");
    let done = home.run(["-n", "-m", "128", &line]).exits(0);
    assert_eq!(done.stdout(), "42\n");
    assert!(!done.stderr().contains("fireclaw:"), "{}", done.stderr());
    home.is_clean();
}

#[test]
fn what_the_command_leaves_running_goes_with_it() {
    let home = Home::new();
    let start = Instant::now();
    // The background process holds standard output open.
    let done = home.run(["setsid sleep 600 & echo started"]).exits(0);
    assert_eq!(done.stdout(), "started\n");
    assert!(start.elapsed().as_secs() < 60);
}

#[test]
fn orphans_are_reaped() {
    let home = Home::new();
    // Each sub-shell leaves its child to PID 1; none may stay a zombie.
    let script = "for i in $(seq 50); do (true & exec true) ; (sleep 0 & ) ; done
        for i in $(seq 100); do ps -eo stat= | grep -q Z || exit 0; sleep 0.05; done; ps -ef; exit 1";
    home.run([script]).exits(0);
}

#[test]
fn phases_are_shown() {
    let home = Home::new();
    let done = home.run(["-v", "--no-snapshot", "true"]).exits(0);
    done.says(&["prepare", "kernel", "init", "command", "total", "overhead", " ms"]);
}
