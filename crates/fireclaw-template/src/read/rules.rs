//! The approval rules of a template.

use fireclaw_config::values::{line, list, text, wrong_kind};
use fireclaw_config::{Fields, Format, Node, Notes, Value, quoted};
use fireclaw_protocol::agent::{Rule, Verdict};

use crate::limits;

const VERDICTS: [&str; 3] = ["allow", "ask", "deny"];

/// Reads the list of rules. Those that are wrong are left out.
pub(super) fn read(format: Format, node: Node, notes: &mut Notes<'_>) -> Option<Vec<Rule>> {
    list("rules", &node, limits::RULES, notes)?;
    let Value::List(items) = node.value else { return None };
    let mut rules: Vec<Rule> = Vec::new();
    for item in items {
        let span = item.span.clone();
        let Some(rule) = rule(format, item, notes) else { continue };
        let same = |other: &Rule| other.tool == rule.tool && other.pattern == rule.pattern;
        if rules.iter().any(same) {
            let message = "there is a rule for this tool and pattern already";
            notes.hinted(&span, message, "the first that fits counts: remove this one");
        } else {
            rules.push(rule);
        }
    }
    Some(rules)
}

fn rule(format: Format, node: Node, notes: &mut Notes<'_>) -> Option<Rule> {
    let Node { span, value: Value::Table(fields) } = node else {
        let hint = "begin each with [[rules]] on a line of its own";
        return wrong_kind("rules", "a list of tables", hint, &node, notes);
    };
    let mut fields = Fields::new(format, fields);
    let tool = fields.take("tool", &[], notes);
    let pattern = fields.take("pattern", &[], notes);
    let verdict = fields.take("verdict", &[], notes);
    fields.finish("a rule", &["tool", "pattern", "verdict"], notes);
    let before = notes.count();
    let tool = tool.and_then(|tool| self::tool(&tool, notes));
    let pattern = pattern.and_then(|pattern| self::pattern(&pattern, notes));
    let verdict = match verdict {
        Some(verdict) => self::verdict(&verdict, notes),
        None => {
            let hint =
                format!("add verdict = \"ask\"; it can be {}", fireclaw_config::one_of(&VERDICTS));
            notes.hinted(&span, "this rule has no `verdict`", hint);
            None
        }
    };
    // A rule without the pattern that was wrong would fit anything.
    if notes.count() > before {
        return None;
    }
    Some(Rule { tool, pattern, verdict: verdict? })
}

fn tool(node: &Node, notes: &mut Notes<'_>) -> Option<String> {
    let name = line("tool", node, limits::TOOL, notes)?;
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if name.is_empty() || !name.chars().all(valid) {
        let message = format!("`tool` is \"{}\", which is no name of a tool", quoted(&name));
        notes.hinted(&node.span, message, "such as \"run_command\"; leave it out for any tool");
        return None;
    }
    Some(name)
}

/// A regular expression of the kind that the agent has: one without classes of Unicode.
fn pattern(node: &Node, notes: &mut Notes<'_>) -> Option<String> {
    let pattern = text("pattern", node, notes)?;
    if pattern.is_empty() {
        let hint = "leave `pattern` out for a rule that fits anything";
        notes.hinted(&node.span, "`pattern` is empty", hint);
        return None;
    }
    if pattern.len() > limits::PATTERN {
        let message = format!("`pattern` has more than {} bytes", limits::PATTERN);
        notes.mistake(&node.span, message);
        return None;
    }
    match regex_lite::Regex::new(pattern) {
        Ok(_) => Some(pattern.to_owned()),
        Err(error) => {
            let message = format!("`pattern` is not a valid regular expression: {error}");
            let hint = "write it in single quotes, so that \\ stays as it is; look-around and \
                        \\p are not known";
            notes.hinted(&node.span, quoted_message(&message), hint);
            None
        }
    }
}

/// The engine's words may contain characters of the pattern.
fn quoted_message(message: &str) -> String {
    message.chars().map(fireclaw_config::printable).collect()
}

fn verdict(node: &Node, notes: &mut Notes<'_>) -> Option<Verdict> {
    let word = text("verdict", node, notes)?;
    let verdict = match word {
        "allow" => Some(Verdict::Allow),
        "ask" => Some(Verdict::Ask),
        "deny" => Some(Verdict::Deny),
        _ => None,
    };
    if verdict.is_none() {
        let message = format!("there is no verdict \"{}\"", quoted(word));
        notes.hinted(&node.span, message, fireclaw_config::hint(word, &VERDICTS));
    }
    verdict
}
