//! A template from its fields.

use fireclaw_config::values::{duration, flag, line, list, mib, number, text, wrong_kind};
use fireclaw_config::{Fields, Format, Node, Notes, Span, Value, quoted};
use std::collections::HashSet;
use std::path::{Component, Path, PathBuf};

use crate::names::{self, SCHEDULED};
use crate::read::{Source, network, rules};
use crate::{Schedule, Template, Trigger, limits};

/// All fields, as the reference has them.
const FIELDS: [&str; 21] = [
    "description",
    "nick",
    "model",
    "trigger",
    "persona",
    "tools",
    "skills",
    "network",
    "memory",
    "cpus",
    "disk",
    "workspace",
    "rules",
    "schedule",
    "schedule_timeout",
    "task",
    "command",
    "max_rounds",
    "command_seconds",
    "context_tokens",
    "max_lines",
];

/// The start of the file: where it is said that something is missing.
const START: Span = 0..1;

/// Reads the fields. The template is of no use if a mistake was noted.
pub(super) fn read(source: &Source<'_>, fields: Fields, notes: &mut Notes<'_>) -> Template {
    let mut reader = Reader { fields, notes };
    own_name(source, &mut reader);
    let command = reader.get("command", &[], command).unwrap_or_default();
    let tools =
        reader.get("tools", &[], |node, notes| flag("tools", &node, notes)).unwrap_or(false);
    for field in ["skills", "rules", "max_rounds", "command_seconds"] {
        if !tools && command.is_empty() {
            reader.without_effect(field, "there is no `tools = true`");
        }
    }
    let scheduled = reader.fields.key_span("schedule");
    if scheduled.is_none() {
        for field in ["schedule_timeout", "task"] {
            reader.without_effect(field, "there is no `schedule`");
        }
    } else if source.name.len() + SCHEDULED.len() > names::MAX_NAME {
        let message = format!(
            "the name of a template with a `schedule` may have {} characters: \"{SCHEDULED}\" is \
             put after it",
            names::MAX_NAME - SCHEDULED.len()
        );
        reader.notes.mistake(&scheduled.unwrap_or(START), message);
    }
    let template = Template {
        name: source.name.to_owned(),
        description: reader.line("description", limits::DESCRIPTION).unwrap_or_default(),
        nick: nick(source.name, &mut reader),
        model: model(!command.is_empty(), &mut reader),
        trigger: reader.get("trigger", &[], trigger).unwrap_or_default(),
        persona: reader
            .get("persona", &[], |node, notes| long_text("persona", &node, limits::PERSONA, notes))
            .unwrap_or_default(),
        skills: reader
            .get("skills", &[], |node, notes| skills(&node, source.directory, notes))
            .unwrap_or_default(),
        network: reader
            .get("network", &[], |node, notes| network::read(source.format, node, notes))
            .unwrap_or_default(),
        memory_mib: reader
            .get("memory", &["mem"], |node, notes| mib("memory", &node, &limits::MEMORY_MIB, notes))
            .unwrap_or(limits::DEFAULT_MEMORY_MIB),
        cpus: reader
            .get("cpus", &["vcpus"], |node, notes| number("cpus", &node, &limits::CPUS, notes))
            .unwrap_or(limits::DEFAULT_CPUS),
        disk_mib: reader
            .get("disk", &[], |node, notes| mib("disk", &node, &limits::DISK_MIB, notes))
            .unwrap_or(limits::DEFAULT_DISK_MIB),
        workspace_mib: reader
            .get("workspace", &[], |node, notes| {
                mib("workspace", &node, &limits::WORKSPACE_MIB, notes)
            })
            .unwrap_or(limits::DEFAULT_WORKSPACE_MIB),
        rules: reader
            .get("rules", &[], |node, notes| rules::read(source.format, node, notes))
            .unwrap_or_default(),
        schedule: reader.get("schedule", &[], schedule),
        schedule_timeout: reader
            .get("schedule_timeout", &[], |node, notes| {
                duration("schedule_timeout", &node, &limits::SCHEDULE_TIMEOUT, notes)
            })
            .unwrap_or(limits::DEFAULT_SCHEDULE_TIMEOUT),
        task: reader
            .get("task", &[], |node, notes| long_text("task", &node, limits::TASK, notes))
            .unwrap_or_default(),
        max_rounds: reader
            .number("max_rounds", &limits::MAX_ROUNDS)
            .unwrap_or(limits::DEFAULT_MAX_ROUNDS),
        command_seconds: reader
            .number("command_seconds", &limits::COMMAND_SECONDS)
            .unwrap_or(limits::DEFAULT_COMMAND_SECONDS),
        context_tokens: reader
            .number("context_tokens", &limits::CONTEXT_TOKENS)
            .unwrap_or(limits::DEFAULT_CONTEXT_TOKENS),
        max_lines: reader
            .number("max_lines", &limits::MAX_LINES)
            .unwrap_or(limits::DEFAULT_MAX_LINES),
        tools,
        command,
    };
    let Reader { fields, notes } = reader;
    fields.finish("a template", &FIELDS, notes);
    template
}

/// The fields that are left, and what is wrong with those that are not.
struct Reader<'r, 'n> {
    fields: Fields,
    notes: &'r mut Notes<'n>,
}

impl Reader<'_, '_> {
    fn get<T>(
        &mut self,
        name: &str,
        older: &[&str],
        read: impl FnOnce(Node, &mut Notes<'_>) -> Option<T>,
    ) -> Option<T> {
        self.fields.take(name, older, self.notes).and_then(|node| read(node, self.notes))
    }

    fn line(&mut self, name: &str, max: usize) -> Option<String> {
        self.get(name, &[], |node, notes| line(name, &node, max, notes))
    }

    fn number(&mut self, name: &str, range: &std::ops::RangeInclusive<u32>) -> Option<u32> {
        self.get(name, &[], |node, notes| number(name, &node, range, notes))
    }

    fn without_effect(&mut self, name: &str, why: &str) {
        if let Some(span) = self.fields.key_span(name) {
            self.notes.warning(&span, format!("`{name}` has no effect: {why}"), None);
        }
    }
}

/// The name is that of the file. JSON may repeat it, TOML has no such field.
fn own_name(source: &Source<'_>, reader: &mut Reader<'_, '_>) {
    if let Err(problem) = names::check_agent(source.name) {
        let message = format!("a template's name, \"{}\", {problem}", quoted(source.name));
        reader.notes.hinted(&START, message, "rename the file");
    }
    let span = reader.fields.key_span("name");
    let node = reader.fields.take("name", &[], reader.notes);
    let (Some(span), Some(node)) = (span, node) else { return };
    let same = matches!(&node.value, Value::Text(name) if name == source.name);
    let hint = "the name is that of the file";
    match source.format {
        Format::Toml => reader.notes.hinted(&span, "a template has no field `name`", hint),
        Format::Json if same => {}
        Format::Json => {
            let message = "`name` differs from the file's; it is ignored";
            reader.notes.warning(&node.span, message, Some(hint.into()));
        }
    }
}

fn nick(name: &str, reader: &mut Reader<'_, '_>) -> String {
    let given = reader.fields.key_span("nick").is_some();
    let nick = reader.get("nick", &[], |node, notes| {
        let nick = text("nick", &node, notes)?;
        if let Err(problem) = names::check_nick(nick) {
            notes.mistake(&node.span, format!("the nick \"{}\" {problem}", quoted(nick)));
        }
        Some(nick.to_owned())
    });
    // A name that is wrong itself has been noted.
    if !given
        && names::check_agent(name).is_ok()
        && let Err(problem) = names::check_nick(name)
    {
        let message = format!("there is no `nick`, and the name as a nick {problem}");
        reader.notes.hinted(&START, message, "add nick = \"…\"");
    }
    nick.unwrap_or_else(|| name.to_owned())
}

fn model(has_command: bool, reader: &mut Reader<'_, '_>) -> Option<String> {
    if reader.fields.key_span("model").is_none() {
        // Text that is not valid may be the model's line, and so may a field that is not known.
        if !has_command && !reader.notes.is_broken() && !reader.fields.has_like("model") {
            let hint = "add model = \"qwen2.5:7b\", or the `command` of an agent program";
            reader.notes.hinted(&START, "there is no `model`", hint);
        }
        return None;
    }
    reader.get("model", &[], |node, notes| {
        let model = line("model", &node, limits::MODEL, notes)?;
        if model.is_empty() || model.contains(char::is_whitespace) {
            let message = format!("`model` is \"{}\", which is no model's name", quoted(&model));
            notes.hinted(&node.span, message, "a name without blanks, such as \"qwen2.5:7b\"");
            return None;
        }
        Some(model)
    })
}

fn trigger(node: Node, notes: &mut Notes<'_>) -> Option<Trigger> {
    let word = text("trigger", &node, notes)?;
    let trigger = Trigger::named(word);
    if trigger.is_none() {
        let message = format!("there is no trigger \"{}\"", quoted(word));
        notes.hinted(&node.span, message, fireclaw_config::hint(word, &Trigger::WORDS));
    }
    trigger
}

/// Text of several lines that a model is to read.
fn long_text(field: &str, node: &Node, max: usize, notes: &mut Notes<'_>) -> Option<String> {
    let text = text(field, node, notes)?.trim();
    if text.len() > max {
        let message = format!("`{field}` has more than {} KiB", max / 1024);
        notes.hinted(&node.span, message, "it is part of a prompt: say less");
        return None;
    }
    if text.contains(|c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
        notes.mistake(&node.span, format!("`{field}` has control characters"));
        return None;
    }
    Some(text.to_owned())
}

/// Cron, with the field that is wrong.
fn schedule(node: Node, notes: &mut Notes<'_>) -> Option<Schedule> {
    let fields = match &node.value {
        Value::Text(text) => text,
        _ => {
            let hint = "such as \"0 9 * * MON-FRI\"";
            return wrong_kind("schedule", "text with five fields", hint, &node, notes);
        }
    };
    match Schedule::parse(fields) {
        Ok(schedule) => Some(schedule),
        Err(wrong) => {
            notes.hinted(&node.span, format!("`schedule` {}", wrong.message), wrong.hint);
            None
        }
    }
}

fn command(node: Node, notes: &mut Notes<'_>) -> Option<Vec<String>> {
    const HINT: &str = "the program and its arguments: [\"/usr/bin/python3\", \"/opt/agent.py\"]";
    if matches!(node.value, Value::Text(_)) {
        return wrong_kind("command", "a list of words", HINT, &node, notes);
    }
    let items = list("command", &node, limits::COMMAND, notes)?;
    let mut words = Vec::new();
    for item in items {
        let word = text("command", item, notes)?;
        if word.contains('\0') || word.len() > limits::COMMAND_WORD {
            let max = limits::COMMAND_WORD;
            let message = format!("a word of `command` has NUL or more than {max} bytes");
            notes.mistake(&item.span, message);
        }
        words.push(word.to_owned());
    }
    if words.first().is_none_or(String::is_empty) {
        notes.hinted(&node.span, "`command` names no program", HINT);
    }
    Some(words)
}

fn skills(node: &Node, directory: Option<&Path>, notes: &mut Notes<'_>) -> Option<Vec<PathBuf>> {
    let mut seen = HashSet::new();
    let mut skills = Vec::new();
    for item in list("skills", node, limits::SKILLS, notes)? {
        let Some(text) = text("skills", item, notes) else { continue };
        // The same directory, written in the same way: without `.` and double slashes.
        let path: PathBuf =
            Path::new(text).components().filter(|part| *part != Component::CurDir).collect();
        let inside = path.components().all(|part| matches!(part, Component::Normal(_)));
        let shown = quoted(text);
        if text.contains(char::is_control) || text.len() > limits::SKILL || text.is_empty() {
            notes.mistake(&item.span, format!("\"{shown}\" in `skills` is not a valid path"));
        } else if !inside {
            let message = format!("\"{shown}\" in `skills` leads out of the template's directory");
            notes.hinted(&item.span, message, "a path such as \"skills/web\", relative to it");
        } else if !seen.insert(path.clone()) {
            let message = format!("\"{shown}\" is in `skills` twice");
            notes.hinted(&item.span, message, "remove one of them");
        } else if directory.is_some_and(|directory| !directory.join(&path).is_dir()) {
            notes.mistake(&item.span, format!("there is no directory \"{shown}\""));
        } else {
            skills.push(path);
        }
    }
    Some(skills)
}
