//! Agents when things go wrong around them: real parts are killed, filled and flooded.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{alone, cpu_ticks, wait_until};
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
                spared = stopped && overseer.fireclaw(&["agent", "list"]).code() == 0;
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
    let mut ann = overseer.person("ann");
    ann.command("!invoke quick", "boots");
    overseer.ready("quick");
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
fn fifty_messages_in_a_second_are_all_answered_in_order() {
    let _alone = alone();
    let overseer = Overseer::start(&[]);
    let mut ann = overseer.person("ann");
    ann.command("!invoke puppet", "boots");
    overseer.ready("puppet");
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
    let mut ann = overseer.person("ann");
    ann.command("!invoke puppet", "boots");
    overseer.ready("puppet");
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
