//! Agents when things go wrong around them: real parts are killed, filled and flooded.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{alone, cpu_ticks, finish, shared_home, timeout, wait_until};
use crate::overseer::Overseer;

/// The calls by which the overseer makes and frees what is outside of it. Its own state
/// is written between them.
const CALLS: [&str; 9] = [
    "mkdir",
    "ftruncate",
    "rename",
    "clone3",
    "connect",
    "kill",
    "pidfd_send_signal",
    "unlink",
    "unlinkat",
];

#[test]
fn killed_at_any_step_of_a_start_or_a_stop_it_finds_its_way() {
    let _alone = alone();
    let mut overseer = Overseer::start(&[]);
    // Once, so that no snapshot has to be made on the way.
    overseer.fireclaw(&["agent", "start", "puppet", "--name", "first"]).exits(0);
    overseer.ready("first");
    overseer.fireclaw(&["agent", "stop", "first"]).exits(0);
    let mut kills = 0;
    for call in CALLS {
        for step in 1.. {
            let name = format!("{call}{step}");
            let killer = overseer.kill_at(call, step);
            overseer.fireclaw(&["agent", "start", "puppet", "--name", &name]);
            wait_until("the agent to be ready, or the overseer to be dead", || {
                !overseer.runs() || overseer.is_ready(&name)
            });
            let mut spared = overseer.runs();
            if spared {
                let stopped = overseer.fireclaw(&["agent", "stop", &name]).code() == 0;
                spared = stopped && overseer.fireclaw(&["agent", "ls"]).code() == 0;
            }
            if !spared {
                // Killed as it answered, it takes a moment to be dead.
                wait_until("the overseer to be dead", || !overseer.runs());
            }
            drop(killer);
            if spared {
                println!("{call}: {} steps", step - 1);
                break;
            }
            kills += 1;
            overseer.again();
            // Whether it was wanted or unwanted is known, and holds.
            let machines = overseer.home.path().join("machines");
            let left = || fs::read_dir(&machines).map_or(0, Iterator::count);
            wait_until("the agent to be ready, or gone", || {
                overseer.is_ready(&name) || (overseer.agents().is_empty() && left() == 0)
            });
            if !overseer.agents().is_empty() {
                overseer.fireclaw(&["agent", "stop", &name]).exits(0);
            }
            assert_eq!(left(), 0, "killed at {call} {step}");
        }
    }
    // Each thread counts its own.
    assert!(kills >= 15, "only {kills} steps were found");
    overseer.end();
}

#[test]
fn a_model_that_dies_amid_an_answer_is_told_and_comes_back() {
    let _alone = alone();
    let overseer = Overseer::start(&["--local-model", "--model-server", "http://127.0.0.1:9"]);
    let mut ann = overseer.person_with("ann", "quick");
    ann.say("quick", "Write a very, very long story about a lighthouse, in many chapters.");
    wait_until("it to work", || overseer.agents()[0]["condition"] == "busy");
    let server = overseer.children("llama-server")[0];
    let before = cpu_ticks(server);
    wait_until("the model to compute", || cpu_ticks(server) > before + 30);
    kill_process(Pid::from_raw(server).unwrap(), Signal::KILL).unwrap();
    ann.hears("quick", "me", "model");
    wait_until("another server", || {
        overseer.children("llama-server").iter().any(|pid| *pid != server)
    });
    // It answers again, whatever it says.
    wait_until("an answer", || {
        ann.say("quick", "Say hello.");
        !ann.hears("quick", "me", "").contains("does not answer")
    });
    overseer.end();
}

#[test]
fn a_question_that_kills_the_model_server_does_so_once_and_nothing_else() {
    use std::os::unix::fs::PermissionsExt;

    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("llama-server");
    fs::write(&program, include_str!("model_server.py")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let options = ["--local-model", "--model-server", "http://127.0.0.1:9"];
    let variables = [("FIRECLAW_LLAMA_SERVER", program.to_str().unwrap())];
    let mut overseer = Overseer::with(0, &options, &variables);
    overseer.puppet("thinker", "model = \"qwen2.5:7b\"\n");
    let mut ann = overseer.person("ann");
    ann.command("!invoke thinker", "is starting");
    let machine = overseer.ready("thinker");
    ann.say("thinker", "think of something");
    ann.hears("thinker", "me", "alive");
    let first = overseer.children("llama-server")[0];
    ann.say("thinker", "think and die");
    ann.hears("thinker", "me", "the model server");
    overseer.says("restarting the model server");
    overseer.says("the program was built for another processor than");
    wait_until("another server", || {
        overseer.children("llama-server").iter().any(|pid| *pid != first)
    });
    wait_until("an answer", || {
        ann.say("thinker", "think again");
        ann.hears("thinker", "me", "").contains("alive")
    });
    assert_eq!(fs::read_to_string(program.with_extension("deaths")).unwrap(), "and die\n");
    assert!(overseer.runs());
    assert_eq!(overseer.ready("thinker"), machine);
    overseer.end();
}

#[test]
fn fifty_messages_in_a_second_are_all_answered_in_order() {
    let _alone = alone();
    let overseer = Overseer::start(&[]);
    let mut ann = overseer.person_with("ann", "puppet");
    for n in 0..50 {
        ann.say("puppet", &format!("puppet: echo answer {n}."));
    }
    for n in 0..50 {
        assert_eq!(ann.hears("puppet", "me", ""), format!("answer {n}."));
    }
    overseer.end();
}

#[test]
fn a_hundred_kilobytes_flood_nobody() {
    let _alone = alone();
    let overseer = Overseer::start(&[]);
    let mut ann = overseer.person_with("ann", "puppet");
    // From the agent: a few lines come, and that there was more.
    ann.say("puppet", "big 100000");
    ann.hears("puppet", "me", "00000 ");
    ann.say("puppet", "echo end");
    let mut lines = 1;
    while ann.hears("puppet", "me", "") != "end" {
        lines += 1;
    }
    assert!((2..=17).contains(&lines), "{lines} lines");
    // To the agent: the server cuts a line, or whoever sends it; the agent goes on.
    let mut eve = overseer.person("eve");
    eve.say("puppet", &format!("echo {}", "y".repeat(100_000)));
    ann.say("puppet", "echo still here");
    ann.hears("puppet", "me", "still here");
    overseer.end();
}

/// Runs the test below where the host's disk is a small one of its own.
#[test]
fn a_full_disk_of_the_host_ends_no_command_in_silence() {
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    let mut again = std::process::Command::new("unshare");
    let script = "mount -t tmpfs -o size=768m disk \"$TMPDIR\" && exec \"$@\"";
    // Root stays what it is, to start an IRC server as another user.
    let namespaces: &[&str] = match rustix::process::geteuid().is_root() {
        true => &["-m"],
        false => &["-Um", "--map-current-user", "--keep-caps"],
    };
    again.args(namespaces).args(["sh", "-c", script, "sh"]).arg(std::env::current_exe().unwrap());
    again.args(["--exact", "agent_faults::inside_a_full_disk", "--ignored", "--nocapture"]);
    again.env("TMPDIR", directory.path()).env("FIRECLAW_HOME", shared_home());
    let done = finish(again, Vec::new(), timeout() * 2).exits(0);
    assert!(done.stdout().contains("1 passed"), "{}", done.stdout());
}

#[test]
#[ignore = "runs on a disk of its own, see above"]
fn inside_a_full_disk() {
    let overseer = Overseer::start(&[]);
    let mut ann = overseer.person_with("ann", "puppet");
    ann.say("puppet", "keep precious");
    ann.hears("puppet", "me", "kept");
    let exec = ["agent", "exec", "puppet", "--", "sh", "-c"];
    let filler = overseer.home.path().join("filler");
    // More than there is room for is told, and hangs nothing.
    let fill = "dd if=/dev/zero of=/var/tmp/big bs=1M count=200 conv=fsync";
    leave_free(&filler, 32 << 20);
    assert_ne!(overseer.fireclaw(&[&exec[..], &[fill]].concat()).code(), 0);
    // Once there is room it works again, in this VM or the next.
    fs::remove_file(&filler).unwrap();
    wait_until("it to write again", || {
        let write = "echo more > /var/tmp/more && sync && cat /workspace/kept";
        let done = overseer.fireclaw(&[&exec[..], &[write]].concat());
        done.code() == 0 && done.stdout().contains("precious")
    });
    // Not even the state can be written; still the agent ends, and makes room.
    leave_free(&filler, 0);
    overseer.fireclaw(&["agent", "stop", "puppet"]).exits(0);
    assert!(overseer.agents().is_empty());
    overseer.fireclaw(&["agent", "start", "puppet"]).exits(0);
    overseer.ready("puppet");
    ann.say("puppet", "kept");
    ann.hears("puppet", "me", "precious");
    fs::remove_file(&filler).unwrap();
    overseer.end();
}

/// Fills the disk of `filler` but for so many bytes.
fn leave_free(filler: &std::path::Path, bytes: u64) {
    let disk = rustix::fs::statvfs(filler.parent().unwrap()).unwrap();
    let rest = (disk.f_bavail * disk.f_frsize).saturating_sub(bytes);
    let file = fs::File::create(filler).unwrap();
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, rest).unwrap();
}
