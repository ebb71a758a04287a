//! Whole templates: what is said about their mistakes, and what becomes of those without.

use std::path::PathBuf;
use std::time::Duration;

use fireclaw_protocol::agent::{Rule, Verdict};
use fireclaw_template::{Dns, Format, Network, Parsed, Source, Trigger, limits, parse};

fn read(name: &str, text: &str, format: Format) -> Parsed {
    let file = match format {
        Format::Toml => format!("{name}.toml"),
        Format::Json => format!("{name}.json"),
    };
    parse(&Source { name, file: &file, text: text.as_bytes(), format, directory: None })
}

fn toml(text: &str) -> Parsed {
    read("worker", text, Format::Toml)
}

/// All mistakes as they are shown.
fn shown(parsed: &Parsed) -> String {
    let mistakes = parsed.template.as_ref().err().into_iter().flatten();
    mistakes.map(|mistake| format!("{mistake}\n\n")).collect()
}

#[test]
fn many_mistakes_at_once() {
    let text = r#"nick = "7up"
modle = "qwen2.5:7b"
trigger = "mentoin"
tools = "yes"
memory = "64M"
cpus = 64
network = { allow = ["a.org:70000"] }
schedule = "0 25 * * *"

[[rules]]
pattern = "rm (-rf"
verdict = "ask"
"#;
    insta::assert_snapshot!(shown(&toml(text)));
}

#[test]
fn mistakes_of_every_other_kind() {
    let text = r#"name = "other"
description = 5
model = ["a"]
trigger = true
persona = 1979-05-27
tools = true
skills = ["a", "./a", "/etc", "../b", ""]
network = "fulll"
memory = "lots"
cpus = 0
disk = 1.5
workspace = -1
schedule = "@daily"
schedule_timeout = "1y"
command = "python3 agent.py"
max_rounds = 9999999999
command_seconds = "60"
context_tokens = 5
max_lines = {}

[[rules]]
tool = "run command"
verdict = "maybe"

[[rules]]
pattern = '^ls'
verdict = "allow"

[[rules]]
pattern = '^ls'
verdict = "deny"

[[rules]]
pattern = ""
colour = "red"
"#;
    insta::assert_snapshot!(shown(&toml(text)));
}

#[test]
fn the_rest_of_broken_toml_is_read() {
    let text = "model = qwen\nnick = \"a b\"\nnick = \"c\"\ntools = \ncpus = 99\nmemory = 512 M\n[[rules]\n";
    insta::assert_snapshot!(shown(&toml(text)));
}

#[test]
fn mistakes_in_json() {
    let text = "{\n  \"nick\": \"overseer\",\n  \"model\": \"a\",\n  \"maxRounds\": 0,\n  \"mem\": 1,\n  \"memory\": 512\n}\n";
    insta::assert_snapshot!(shown(&read("old", text, Format::Json)));
    let broken = read("old", "{\n  \"nick\": \"a\",\n  \"model\" \"b\"\n}", Format::Json);
    insta::assert_snapshot!(shown(&broken));
    insta::assert_snapshot!(shown(&read("old", "[1]", Format::Json)));
}

#[test]
fn texts_that_are_no_template() {
    insta::assert_snapshot!(shown(&toml("")));
    let source = Source {
        name: "worker",
        file: "worker.toml",
        text: b"model = \"a\"\nnick = \"\xff\"\n",
        format: Format::Toml,
        directory: None,
    };
    insta::assert_snapshot!(shown(&parse(&source)));
    let large = "#".repeat(300 * 1024);
    insta::assert_snapshot!(shown(&toml(&large)));
}

#[test]
fn names_that_cannot_be() {
    let model = "model = \"a\"";
    insta::assert_snapshot!(shown(&read("7up", model, Format::Toml)));
    insta::assert_snapshot!(shown(&read("my agent", model, Format::Toml)));
    let scheduled = "model = \"a\"\nschedule = \"0 9 * * *\"";
    insta::assert_snapshot!(shown(&read(&"a".repeat(26), scheduled, Format::Toml)));
    assert!(read(&"a".repeat(25), scheduled, Format::Toml).template.is_ok());
}

#[test]
fn everything_at_once() {
    let text = r#"
description = "Does it all"
nick = "bee"
model = "qwen2.5:7b"
trigger = "always"
persona = """
  You are busy.
"""
tools = true
skills = ["skills/web", "./skills//pdf/"]
network = { allow = ["PyPI.example:443", "*.crates.example"], deny = ["x.crates.example"], dns = "pinned" }
memory = "2G"
cpus = 4
disk = 0x800
workspace = "1 GiB"
schedule = "*/5  9-17 * * mon-fri"
schedule_timeout = "1h30m"
task = "Look around."
command = ["/usr/bin/python3", "agent.py"]
max_rounds = 20
command_seconds = 300
context_tokens = 32_768
max_lines = 20

[[rules]]
tool = "run_command"
pattern = '^git push(\s|$)'
verdict = "deny"

[[rules]]
tool = "fetch_url"
verdict = "ask"
"#;
    let parsed = toml(text);
    assert_eq!(parsed.warnings, []);
    let template = parsed.template.unwrap();
    assert_eq!((&*template.name, &*template.nick), ("worker", "bee"));
    assert_eq!(template.trigger, Trigger::Always);
    assert_eq!(template.persona, "You are busy.");
    assert_eq!(template.skills, [PathBuf::from("skills/web"), PathBuf::from("skills/pdf")]);
    assert_eq!(
        template.network.to_string(),
        "allow:pypi.example:443,*.crates.example deny:x.crates.example"
    );
    assert!(matches!(template.network, Network::Allow { dns: Dns::Pinned, .. }));
    assert_eq!((template.memory_mib, template.cpus), (2048, 4));
    assert_eq!((template.disk_mib, template.workspace_mib), (2048, 1024));
    assert_eq!(template.schedule.as_ref().unwrap().as_str(), "*/5 9-17 * * mon-fri");
    assert_eq!(template.schedule_timeout, Duration::from_secs(5400));
    assert_eq!(template.task, "Look around.");
    assert_eq!(template.command, ["/usr/bin/python3", "agent.py"]);

    let fetch = Rule { tool: Some("fetch_url".into()), pattern: None, verdict: Verdict::Ask };
    assert_eq!(template.rules[1], fetch);
    let config = template.config("bee-2", "bee2");
    assert_eq!((&*config.name, &*config.nick, &*config.model), ("bee-2", "bee2", "qwen2.5:7b"));
    assert_eq!((config.max_rounds, config.command_seconds), (20, 300));
    assert_eq!((config.context_tokens, config.max_lines), (32768, 20));
    assert!(config.may_fetch && config.tools);
    // Its own rules come before those that everybody has.
    assert_eq!(config.rules.len(), 2 + 9);
    assert_eq!(config.rules[..2], template.rules);
}

#[test]
fn what_is_not_said_is_by_default() {
    let template = toml("model = \"a\"").template.unwrap();
    assert_eq!(template.nick, "worker");
    assert_eq!((template.trigger, template.network.clone()), (Trigger::Mention, Network::None));
    assert_eq!((template.memory_mib, template.cpus), (256, 1));
    assert_eq!((template.disk_mib, template.workspace_mib), (1024, 64));
    assert_eq!(template.schedule_timeout, limits::DEFAULT_SCHEDULE_TIMEOUT);
    assert!(!template.tools && template.effective_rules().is_empty());
    assert!(!template.config("a", "a").may_fetch);
    let own = toml("command = [\"/opt/agent\"]").template.unwrap();
    assert_eq!(own.model, None);
}

#[test]
fn older_json_is_read() {
    let text = r#"{
        "name": "old", "nick": "oldie", "model": "qwen2.5:7b", "trigger": "mention",
        "persona": "Line\nline \u00e4", "tools": true, "network": true, "mem": 512, "vcpus": 2,
        "schedule": "0 9 * * *", "scheduleTimeout": 300, "skills": null, "color": "red"
    }"#;
    let parsed = read("old", text, Format::Json);
    let template = parsed.template.unwrap();
    assert_eq!((&*template.nick, template.memory_mib, template.cpus), ("oldie", 512, 2));
    assert_eq!(template.network, Network::Full);
    assert_eq!(template.persona, "Line\nline ä");
    assert_eq!(template.schedule_timeout, Duration::from_secs(300));
    let warnings: Vec<&str> = parsed.warnings.iter().map(|found| &*found.message).collect();
    assert_eq!(warnings, ["a template has no field `color`; it is ignored"]);
}

#[test]
fn what_has_no_effect_is_said() {
    let parsed = toml("model = \"a\"\nschedule_timeout = 60\nmax_rounds = 5\n");
    let warnings: Vec<&str> = parsed.warnings.iter().map(|found| &*found.message).collect();
    assert_eq!(
        warnings,
        [
            "`schedule_timeout` has no effect: there is no `schedule`",
            "`max_rounds` has no effect: there is no `tools = true`",
        ]
    );
    assert!(parsed.template.is_ok());
}

#[test]
fn skills_have_to_be_there() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("web")).unwrap();
    let text = b"model = \"a\"\ntools = true\nskills = [\"web\", \"pdf\"]\n";
    let source = Source {
        name: "worker",
        file: "worker.toml",
        text,
        format: Format::Toml,
        directory: Some(directory.path()),
    };
    insta::assert_snapshot!(shown(&parse(&source)));
}
