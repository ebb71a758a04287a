//! Other users of the same VM, and a state that is damaged or lost.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{alone, finish, is_alive, timeout, wait_until};
use crate::overseer::Overseer;

/// The user nobody, who has no group but its own.
const NOBODY: u32 = 65534;

fn open_to_all(path: &Path) {
    let mode = if path.is_dir() { 0o777 } else { 0o666 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// What nobody's program says and how it ends.
fn as_nobody(program: &str, arguments: &[&str], path: &Path) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).arg(path).uid(NOBODY).gid(NOBODY).current_dir("/");
    finish(command, Vec::new(), timeout()).status.success()
}

#[test]
fn what_an_overseer_keeps_is_its_owners_alone() {
    let _alone = alone();
    let mut overseer = Overseer::start(&[]);
    overseer.fireclaw(&["agent", "start", "puppet"]).exits(0);
    let pid = overseer.ready("puppet");
    overseer.stop();
    let root = overseer.home.path().to_owned();
    let below = |name: &str| root.join(name);
    let mut kept: Vec<PathBuf> =
        ["state.db", "daemon.lock", "agents", "machines"].map(below).to_vec();
    let agent = below("agents/puppet");
    kept.extend(fs::read_dir(&agent).unwrap().map(|entry| entry.unwrap().path()));
    kept.extend([agent.clone(), root.clone()]);
    assert!(
        kept.contains(&agent.join("workspace.ext4")) && kept.contains(&agent.join("agent.log"))
    );
    // As an earlier one left them, under a generous umask.
    kept.iter().for_each(|path| open_to_all(path));
    let is_root = rustix::process::geteuid().is_root();
    if is_root {
        assert!(as_nobody("head", &["-c1"], &below("state.db")), "the test itself does not work");
    }

    overseer.again();
    assert_eq!(overseer.ready("puppet"), pid);
    kept.extend(["state.db-wal", "state.db-shm", "daemon.sock"].map(below));
    for path in &kept {
        let mode = fs::symlink_metadata(path).unwrap().mode();
        assert_eq!(mode & 0o077, 0, "{}: {mode:o}", path.display());
    }
    if is_root {
        for path in kept.iter().filter(|path| path.is_file()) {
            // A lock needs no more than an open file, and a readable one can be opened.
            for (program, arguments) in
                [("head", &["-c1"][..]), ("flock", &["--shared", "--nonblock"])]
            {
                let mut command = Command::new(program);
                command.args(arguments).arg(path).uid(NOBODY).gid(NOBODY).current_dir("/");
                if program == "flock" {
                    command.arg("true");
                }
                let done = finish(command, Vec::new(), timeout());
                assert!(!done.status.success(), "{program} {}", path.display());
                assert!(done.stderr().contains("Permission denied"), "{}", done.stderr());
            }
        }
        assert!(!as_nobody("ls", &[], &root) && !as_nobody("ls", &[], &below("machines")));
        // Where the network of VMs is kept, if one ran here.
        let network = Path::new("/run/fireclaw");
        assert!(!network.exists() || !as_nobody("ls", &[], network));
    }
    overseer.end();
}

#[test]
fn a_damaged_state_is_kept_and_a_lost_one_ends_no_machine() {
    let _alone = alone();
    let mut overseer = Overseer::start(&[]);
    overseer.fireclaw(&["agent", "start", "puppet"]).exits(0);
    let pid = overseer.ready("puppet");
    overseer.stop();
    let state = overseer.home.path().join("state.db");
    let good = fs::read(&state).unwrap();
    let begin_with = |content: &[u8]| {
        for log in ["-wal", "-shm"] {
            let _ = fs::remove_file(format!("{}{log}", state.display()));
        }
        fs::write(&state, content).unwrap();
    };

    let damaged = [&[b'x'; 4096][..], &good[4096..]].concat();
    begin_with(&damaged);
    let port = overseer.port.to_string();
    let path = state.display().to_string();
    overseer.fireclaw(&["overseer", "--port", &port]).exits(1).says(&[
        &format!("{path}: file is not a database"),
        "hint: put a backup",
        "workspaces",
    ]);
    let doctor = overseer.fireclaw(&["doctor"]).stdout();
    assert!(doctor.contains("state") && doctor.contains("is not a database"), "{doctor}");
    assert!(fs::read(&state).unwrap() == damaged && is_alive(pid));

    // Emptied: what runs is left, also by the next start, which finds a state that is not
    // new any more; and what died is cleared away.
    begin_with(b"");
    let dead = overseer.home.path().join("machines/fireclaw-0000000000000000");
    for _ in 0..2 {
        fs::create_dir(&dead).unwrap();
        overseer.again();
        wait_until("what is nobody's to be cleared away", || !dead.exists());
        // Answered by the same thread, after it has cleared away all.
        assert!(overseer.agents().is_empty());
        assert!(is_alive(pid));
        overseer.stop();
    }

    begin_with(&good);
    overseer.again();
    assert_eq!(overseer.ready("puppet"), pid, "it is the same machine");
    overseer.end();
}
