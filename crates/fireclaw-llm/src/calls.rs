//! Reads the tool calls that a model writes into its text.
//!
//! Small models know that a call is JSON, but not where it belongs: it comes bare, in a
//! code fence or between tags, with one brace too many or too few.

use serde_json::{Deserializer, Map, Value};

use crate::ToolCall;

/// The most places of a text that are tried, and the most calls of one reply.
pub const MAX_CALLS: usize = 16;

/// The most closing braces that are added to what ends too early.
const MAX_BRACES: usize = 3;

/// What comes before a call, by models that were taught so.
const TAGS: [&str; 2] = ["<tool_call>", "[TOOL_CALLS]"];

/// What a text is.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// Words for people.
    Text,
    /// Calls, whether of tools that exist or not.
    Calls(Vec<ToolCall>),
    /// What was meant as a call and cannot be read.
    Broken,
}

/// Tells what a text is.
pub fn read(text: &str) -> Content {
    let mut calls = Vec::new();
    let mut end = 0;
    for start in places(text).take(MAX_CALLS) {
        // Inside what was read already.
        if start < end {
            continue;
        }
        let before = calls.len();
        if let Some((value, length)) = value(&text[start..]) {
            gather(&value, &mut calls);
            if calls.len() > before {
                end = start + length;
            }
        }
    }
    calls.truncate(MAX_CALLS);
    if !calls.is_empty() {
        Content::Calls(calls)
    } else if TAGS.iter().any(|tag| text.contains(tag)) {
        Content::Broken
    } else {
        Content::Text
    }
}

/// Whether a text that begins like this may still become a call.
pub fn may_be_call(beginning: &str) -> bool {
    matches!(beginning.trim_start().chars().next(), None | Some('{' | '[' | '`' | '<'))
}

/// A name for a call that has none. Nine letters and digits suit every server.
pub fn new_id() -> String {
    std::iter::repeat_with(fastrand::alphanumeric).take(9).collect()
}

/// Where a value may begin: at the start of a line, after a tag or after a fence.
fn places(text: &str) -> impl Iterator<Item = usize> {
    let mut offset = 0;
    text.split_inclusive('\n').filter_map(move |line| {
        let line_end = offset + line.len();
        offset = line_end;
        let mut rest = line;
        for tag in TAGS {
            rest = rest.split_once(tag).map_or(rest, |(_, after)| after);
        }
        if let Some(inside) = rest.trim_start().strip_prefix("```") {
            rest = inside.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '_');
        }
        rest = rest.trim_start();
        rest.starts_with(['{', '[']).then_some(line_end - rest.len())
    })
}

/// The JSON value at the beginning of `text` and its length in bytes.
fn value(text: &str) -> Option<(Value, usize)> {
    let mut stream = Deserializer::from_str(text).into_iter::<Value>();
    if let Some(Ok(value)) = stream.next() {
        return Some((value, stream.byte_offset()));
    }
    let end = ["</tool_call>", "```"].iter().filter_map(|end| text.find(end)).min();
    let inside = text[..end.unwrap_or(text.len())].trim_end();
    (1..=MAX_BRACES).find_map(|braces| {
        let mended = format!("{inside}{}", "}".repeat(braces));
        serde_json::from_str(&mended).ok().map(|value| (value, inside.len()))
    })
}

fn gather(value: &Value, calls: &mut Vec<ToolCall>) {
    match value {
        Value::Array(all) => all.iter().take(MAX_CALLS).for_each(|one| gather(one, calls)),
        Value::Object(object) => {
            if let Some(Value::Array(all)) = object.get("tool_calls") {
                all.iter().take(MAX_CALLS).for_each(|one| gather(one, calls));
            } else if let Some(Value::Object(function)) = object.get("function") {
                calls.extend(call(function));
            } else {
                calls.extend(call(object));
            }
        }
        _ => {}
    }
}

/// An object with a name and arguments. With less it is an answer that happens to be JSON.
fn call(object: &Map<String, Value>) -> Option<ToolCall> {
    let name = ["name", "function", "tool"].iter().find_map(|key| object.get(*key)?.as_str())?;
    let arguments =
        ["arguments", "parameters", "args", "input"].iter().find_map(|key| object.get(*key))?;
    Some(ToolCall { id: new_id(), name: name.to_owned(), arguments: arguments_of(arguments) })
}

/// Arguments as an object where they are one, also if they came as a string of JSON.
pub fn arguments_of(value: &Value) -> Value {
    match value {
        Value::String(text) if text.trim().is_empty() => Value::Object(Map::new()),
        Value::String(text) => match self::value(text.trim()) {
            Some((object @ Value::Object(_), _)) => object,
            _ => value.clone(),
        },
        Value::Null => Value::Object(Map::new()),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn one(text: &str) -> (String, Value) {
        match read(text) {
            Content::Calls(calls) => {
                assert_eq!(calls.len(), 1, "{text}");
                (calls[0].name.clone(), calls[0].arguments.clone())
            }
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn calls_as_small_models_write_them() {
        let expected = ("run_command".to_owned(), json!({"command": "uptime"}));
        for text in [
            // One brace too many: Qwen2.5-Coder 0.5B.
            r#"{"name": "run_command", "arguments": {"command": "uptime"}}}"#,
            // One too few.
            r#"{"name": "run_command", "arguments": {"command": "uptime"}"#,
            "```json\n{\"name\": \"run_command\",\n \"arguments\": {\"command\": \"uptime\"}}\n```",
            "```\n{\"name\": \"run_command\", \"arguments\": {\"command\": \"uptime\"}}\n```\nDone.",
            "```json {\"name\": \"run_command\", \"arguments\": {\"command\": \"uptime\"}}```",
            "<tool_call>\n{\"name\": \"run_command\", \"arguments\": {\"command\": \"uptime\"}}\n</tool_call>",
            "<tool_call>{\"name\": \"run_command\", \"arguments\": \"{\\\"command\\\": \\\"uptime\\\"}\"}",
            "I will look.\n\n{\"name\": \"run_command\", \"parameters\": {\"command\": \"uptime\"}}",
            r#"[{"type": "function", "function": {"name": "run_command", "arguments": {"command": "uptime"}}}]"#,
            r#"{"tool_calls": [{"function": {"name": "run_command", "arguments": "{\"command\": \"uptime\"}"}}]}"#,
            r#"{"function": "run_command", "arguments": {"command": "uptime"}}"#,
            r#"[TOOL_CALLS] [{"name": "run_command", "arguments": {"command": "uptime"}}]"#,
        ] {
            assert_eq!(one(text), expected, "{text}");
        }
    }

    #[test]
    fn several_calls_keep_their_order() {
        let text = "<tool_call>\n{\"name\": \"a\", \"arguments\": {}}\n</tool_call>\n\
                    <tool_call>\n{\"name\": \"b\", \"arguments\": {}}\n</tool_call>";
        let Content::Calls(calls) = read(text) else { panic!() };
        let names: Vec<_> = calls.iter().map(|call| call.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_ne!(calls[0].id, calls[1].id);
    }

    #[test]
    fn answers_are_no_calls() {
        for text in [
            "",
            "It has been up for 3 minutes.",
            r#"{"uptime": "3 minutes"}"#,
            r#"{"name": "Ada", "age": 36}"#,
            "[1, 2, 3]",
            "```sh\nuptime\n```",
            "a { b",
        ] {
            assert_eq!(read(text), Content::Text, "{text}");
        }
    }

    #[test]
    fn what_was_meant_as_a_call_is_not_taken_for_words() {
        assert_eq!(read("<tool_call>\n{\"name\": run_command}\n</tool_call>"), Content::Broken);
        assert_eq!(read("<tool_call>{\"command\": \"uptime\"}</tool_call>"), Content::Broken);
    }

    #[test]
    fn reading_costs_no_more_for_each_byte_of_a_longer_text() {
        // As many places as are tried.
        let cost = |size: usize| {
            let text = "{\"a\": [\n".repeat(size / 9);
            let begun = std::time::Instant::now();
            for _ in 0..4 {
                let _ = read(&text);
            }
            begun.elapsed()
        };
        cost(8 * 1024);
        // A busy host may take its time once, but not each time.
        let fair = (0..10).any(|_| cost(256 * 1024) < cost(16 * 1024) * 16 * 8);
        assert!(fair, "256 KiB cost more than 128 times what 16 KiB do");
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "\\PC{0,80}|[\\[\\]{}\"`:,<>/a-z_ \n]{0,200}") {
            let _ = read(&text);
            let _ = may_be_call(&text);
        }

        #[test]
        fn a_call_is_found_whatever_its_arguments_and_dress(
            name in "[a-z_]{1,20}",
            key in "[a-z_]{1,10}",
            argument in "\\PC{0,60}",
            stringly in any::<bool>(),
            dress in 0usize..5,
        ) {
            let arguments = json!({key: argument});
            let written = if stringly { json!(arguments.to_string()) } else { arguments.clone() };
            let call = json!({"name": name, "arguments": written});
            let text = match dress {
                0 => call.to_string(),
                1 => format!("```json\n{call:#}\n```"),
                2 => format!("<tool_call>\n{call}\n</tool_call>"),
                3 => format!("Let me see.\n{call}}}"),
                _ => format!("<tool_call>{call}</tool_call>"),
            };
            prop_assert_eq!(one(&text), (name, arguments));
        }

        #[test]
        fn calls_are_bounded(many in 0usize..200) {
            let text = "{\"name\": \"a\", \"arguments\": {}}\n".repeat(many);
            match read(&text) {
                Content::Calls(calls) => prop_assert!(calls.len() <= MAX_CALLS && many > 0),
                other => prop_assert!(many == 0 && other == Content::Text),
            }
        }
    }
}
