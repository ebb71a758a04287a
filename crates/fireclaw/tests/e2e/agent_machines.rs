//! The VMs of agents: disks, skills and containers, from inside.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use crate::harness::{alone, wait_until};
use crate::overseer::Overseer;
use crate::person::Person;

/// What a shell line in an agent's VM says, as its user.
#[track_caller]
fn run(person: &mut Person, agent: &str, line: &str) -> String {
    person.say(agent, &format!("run {line}"));
    person.hears(agent, "me", ": ")
}

/// The one VM's directory.
fn machine(overseer: &Overseer) -> PathBuf {
    let mut machines = fs::read_dir(overseer.home.path().join("machines")).unwrap();
    machines.next().unwrap().unwrap().path()
}

#[test]
fn what_is_written_outside_the_workspace_goes_to_a_disk_of_its_own() {
    let _alone = alone();
    let overseer = Overseer::start(&[]);
    overseer.puppet("small", "disk = 64\n");
    let mut ann = overseer.person_with("ann", "small");
    let scratch = machine(&overseer).join("scratch.ext4");
    let before = fs::metadata(&scratch).unwrap();
    assert_eq!(before.len(), 64 << 20);
    assert!(before.blocks() * 512 < 4 << 20, "it is not sparse: {} blocks", before.blocks());
    // More than the VM's memory would hold beside all else, in several places.
    for place in ["/tmp", "/var/tmp", "~"] {
        let said = run(
            &mut ann,
            "small",
            &format!("head -c 12M /dev/urandom >{place}/x && sync && echo ok"),
        );
        assert_eq!(said, "0: ok");
    }
    assert!(fs::metadata(&scratch).unwrap().blocks() * 512 > 36 << 20);
    // It ends where it says, and the agent lives on.
    let full = run(&mut ann, "small", "head -c 64M /dev/zero >/tmp/y");
    assert!(full.contains("No space left"), "{full}");
    // Directories are as they were, and so is what is in them.
    let said = run(&mut ann, "small", "rm /tmp/y; ls /usr/bin/env && stat -c %a /root /tmp /etc");
    assert_eq!(said, "0: /usr/bin/env | 700 | 1777 | 755");
    // None of it outlives the VM.
    ann.command("!destroy small", "stopped");
    assert!(!scratch.exists());
    ann.command("!invoke small", "is starting");
    overseer.ready("small");
    assert_eq!(run(&mut ann, "small", "ls /tmp ~ /var/tmp | grep -c x"), "1: 0");
    overseer.end();
}

#[test]
fn a_workspace_grows_is_mended_and_may_be_full() {
    let _alone = alone();
    let overseer = Overseer::start(&[]);
    overseer.puppet("small", "workspace = 16\n");
    let mut ann = overseer.person_with("ann", "small");
    // Full: the agent says so, answers on, and loses nothing that it had.
    ann.say("small", "keep precious");
    ann.hears("small", "me", "kept");
    let full = run(&mut ann, "small", "head -c 32M /dev/zero >/workspace/filler");
    assert!(full.contains("No space left"), "{full}");
    assert_eq!(run(&mut ann, "small", "cat /workspace/kept"), "0: precious");
    // Larger at the next start, with all that was in it.
    overseer.puppet("small", "workspace = 48\n");
    ann.command("!destroy small", "stopped");
    ann.command("!invoke small", "is starting");
    overseer.ready("small");
    assert_eq!(run(&mut ann, "small", "cat /workspace/kept"), "0: precious");
    let more =
        run(&mut ann, "small", "head -c 16M /dev/zero >/workspace/more && sync && echo fits");
    assert_eq!(more, "0: fits");
    // Damaged: mended before it is mounted, and kept as it was.
    ann.command("!destroy small", "stopped");
    let disk = overseer.home.path().join("agents/small/workspace.ext4");
    spoil_super_block(&disk);
    ann.command("!invoke small", "is starting");
    ann.hears("overseer", "#control", "workspace.damaged");
    overseer.ready("small");
    assert_eq!(run(&mut ann, "small", "cat /workspace/kept"), "0: precious");
    assert_eq!(fs::metadata(disk.with_extension("damaged")).unwrap().len(), 48 << 20);
    // Spoilt for good: said, not formatted anew.
    ann.command("!destroy small", "stopped");
    fs::write(&disk, vec![0x55; 48 << 20]).unwrap();
    ann.command("!invoke small", "is starting");
    ann.hears("overseer", "#control", "small is down: the workspace: it cannot be mounted");
    ann.command("!destroy small", "stopped");
    assert!(fs::read(&disk).unwrap().iter().all(|byte| *byte == 0x55));
    overseer.end();
}

#[test]
fn a_snapshot_that_cannot_be_restored_costs_an_agent_a_boot() {
    let _alone = alone();
    let overseer = Overseer::start(&[]);
    let mut ann = overseer.person_with("ann", "puppet one");
    crate::snapshots::spoil_unseen(&overseer.home);
    ann.command("!invoke puppet two", "is starting");
    ann.hears("overseer", "#control", "two: the snapshot could not be used, so it boots");
    ann.hears("overseer", "#control", "two is ready");
    assert_eq!(overseer.until("two", "ready")["restarts"], 0, "it was the same try");
    assert_eq!(run(&mut ann, "two", "echo fine"), "0: fine");
    overseer.end();
}

#[test]
fn a_workspace_that_cannot_be_written_is_not_called_ready() {
    let _alone = alone();
    let overseer = Overseer::start(&[]);
    let mut ann = overseer.person("ann");
    ann.command("!invoke puppet", "is starting");
    let before = overseer.ready("puppet");
    ann.say("puppet", "keep precious");
    ann.hears("puppet", "me", "kept");
    // As Linux leaves it after an error of the disk.
    let read_only = ["mount", "-o", "remount,ro", "/workspace"];
    let exec = ["agent", "exec", "puppet", "-n", "-u", "root", "--"];
    overseer.fireclaw(&[&exec[..], &read_only[..]].concat()).exits(0);
    ann.hears("overseer", "#control", "a disk error left its workspace read-only; restarting in");
    wait_until("another machine", || {
        overseer.is_ready("puppet") && overseer.ready("puppet") != before
    });
    assert_eq!(
        run(&mut ann, "puppet", "cat /workspace/kept && touch /workspace/new"),
        "0: precious"
    );
    overseer.end();
}

/// Overwrites the first super block (ext4: byte 1024); copies of it are elsewhere.
fn spoil_super_block(disk: &std::path::Path) {
    use std::os::unix::fs::FileExt;
    let file = fs::File::options().write(true).open(disk).unwrap();
    file.write_all_at(&[0; 1024], 1024).unwrap();
}

#[test]
fn a_templates_skills_are_in_the_machine() {
    let _alone = alone();
    let overseer = Overseer::start(&[]);
    let skill = overseer.home.path().join("templates/skills/dice");
    fs::create_dir_all(&skill).unwrap();
    fs::write(skill.join("SKILL.md"), "---\nname: dice\ndescription: Throws a die.\n---\n")
        .unwrap();
    fs::write(skill.join("run"), "#!/bin/sh\necho four\n").unwrap();
    fs::set_permissions(skill.join("run"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    overseer.puppet("player", "tools = true\nskills = [\"skills/dice\"]\n");
    let mut ann = overseer.person_with("ann", "player");
    assert_eq!(run(&mut ann, "player", "/run/fireclaw/skills/*dice/run"), "0: four");
    // They are the template's: the agent cannot change them.
    assert!(
        run(&mut ann, "player", "echo >/run/fireclaw/skills/00-dice/run")
            .contains("Permission denied")
    );
    // A change counts after !reload.
    fs::write(skill.join("run"), "#!/bin/sh\necho five\n").unwrap();
    ann.command("!reload", "templates reloaded");
    wait_until("the new skill", || {
        run(&mut ann, "player", "/run/fireclaw/skills/*dice/run") == "0: five"
    });
    overseer.end();
}

#[test]
fn containers_run_in_the_machine() {
    let _alone = alone();
    let overseer = Overseer::start(&[]);
    let mut ann = overseer.person_with("ann", "puppet docker");
    // An image made of the VM's own shell, kept in the workspace as a file.
    let make = "cd /workspace && mkdir -p r/bin r/lib64 r/lib/x86_64-linux-gnu && cp /bin/dash r/bin/sh && cp /lib/x86_64-linux-gnu/libc.so.6 r/lib/x86_64-linux-gnu/ && cp /lib64/ld-linux-x86-64.so.2 r/lib64/ && tar -C r -cf image.tar . && podman import -q image.tar tiny >/dev/null && echo made";
    assert_eq!(run(&mut ann, "docker", make), "0: made");
    let said = run(
        &mut ann,
        "docker",
        "podman run --rm tiny /bin/sh -c 'echo container $((6 * 7)); echo *'",
    );
    assert!(said.starts_with("0: container 42 | bin dev"), "{said}");
    overseer.end();
}

#[test]
fn an_agent_comes_and_goes_by_the_clock() {
    let overseer = Overseer::start(&[]);
    let mut ann = overseer.person("ann");
    // Due with the next minute; the template is found while the overseer runs.
    let lines =
        "schedule = \"* * * * *\"\nschedule_timeout = 600\ntask = \"run echo $((6 * 7)) it is\"\n";
    overseer.puppet("clock", lines);
    ann.hears("overseer", "#control", "clock-cron starts on schedule");
    ann.hears("clock-cron", "#agents", "42 it is");
    // Its task is done long before its time is up.
    let quit = ann.until(" QUIT ");
    assert!(quit.contains("its task is done"), "{quit}");
    fs::remove_file(overseer.home.path().join("templates/clock.toml")).unwrap();
    wait_until("it to be forgotten", || overseer.agents().is_empty());
    overseer.end();
}
