//! The command line itself: its reference, completions, manual, doctor.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::harness::{Home, finish, timeout};

/// docs/reference/cli.md is the help of every command, kept by this test.
/// `UPDATE_REFERENCE=1 cargo test reference` rewrites it.
#[test]
fn the_reference_is_up_to_date() {
    let home = Home::empty();
    let mut page = String::from(
        "# Command line reference\n\nThe help of every command, written by a test \
         (`UPDATE_REFERENCE=1 cargo test reference`).\n",
    );
    let mut commands = vec![String::new()];
    while let Some(command) = commands.pop() {
        let words = command.split_whitespace().chain(["--help"]);
        let mut help = home.fireclaw(words);
        help.env_remove("FIRECLAW_VMM")
            .env_remove("FIRECLAW_QUIET")
            .env_remove("FIRECLAW_MODEL_SERVER")
            .env("COLUMNS", "100");
        let done = finish(help, Vec::new(), timeout()).exits(0);
        let title = format!("fireclaw {command}");
        let _ = write!(page, "\n## `{}`\n\n```text\n{}```\n", title.trim(), done.stdout());
        // Its own commands come next, as they stand in its help.
        let help = done.stdout();
        let listed = help.split("Commands:\n").nth(1).unwrap_or_default();
        let names = listed.lines().take_while(|line| !line.is_empty()).filter_map(|line| {
            let name = line.strip_prefix("  ")?.split(' ').next()?;
            let is_own = !name.is_empty() && name != "help";
            is_own.then(|| format!("{command} {name}").trim().to_owned())
        });
        let names: Vec<String> = names.collect();
        commands.extend(names.into_iter().rev());
    }
    let page: String = page.lines().map(|line| line.trim_end().to_owned() + "\n").collect();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/cli.md");
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == page,
        "docs/reference/cli.md is out of date: UPDATE_REFERENCE=1 cargo test reference"
    );
}

#[test]
fn completions_and_manual_pages_are_written() {
    let home = Home::empty();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let done = finish(home.fireclaw(["completions", shell]), Vec::new(), timeout()).exits(0);
        assert!(done.stdout().contains("fireclaw") && done.stdout().contains("timeout"));
    }
    let pages = home.path().join("man");
    let man = home.fireclaw(["man".as_ref(), "--dir".as_ref(), pages.as_os_str()]);
    finish(man, Vec::new(), timeout()).exits(0);
    let run = fs::read_to_string(pages.join("fireclaw-run.1")).unwrap();
    assert!(run.contains(".TH") && run.contains("timeout"));
}

#[test]
fn doctor_tells_people_and_programs() {
    let home = Home::new();
    let text = finish(home.fireclaw(["doctor"]), Vec::new(), timeout()).exits(0).stdout();
    assert!(text.contains("ready: fireclaw run works here"), "{text}");
    let json = finish(home.fireclaw(["doctor", "--json"]), Vec::new(), timeout()).exits(0);
    let report: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(report["ready"], true);
    let names: Vec<_> = report["checks"].as_array().unwrap().iter().map(|c| &c["name"]).collect();
    for name in ["processor", "kernel", "base image", "QEMU", "Firecracker", "KVM"] {
        assert!(names.iter().any(|n| *n == name), "{names:?}");
    }
}

#[test]
fn doctor_fails_where_nothing_is_set_up() {
    let home = Home::empty();
    let done = finish(home.fireclaw(["doctor"]), Vec::new(), timeout()).exits(1);
    assert!(done.stdout().contains("FAIL") && done.stdout().contains("hint: run `fireclaw setup`"));
    assert!(done.stdout().contains("not ready"));
}

#[test]
fn the_emulation_is_said_in_one_line_unless_quiet() {
    let home = Home::new();
    let mut command = home.fireclaw(["run", "true"]);
    command.env_remove("FIRECLAW_QUIET").env_remove("FIRECLAW_MODEL_SERVER");
    let done = finish(command, Vec::new(), timeout()).exits(0);
    let lines = done.stderr().lines().count();
    assert!(lines <= 1, "{}", done.stderr());
    if lines == 1 {
        assert!(done.stderr().contains("software emulation"), "{}", done.stderr());
    }
}
