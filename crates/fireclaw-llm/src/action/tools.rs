//! Calls against the tools that were offered.

use serde_json::{Map, Value, json};

use crate::{Tool, ToolCall};

/// The call as its tool needs it; nothing if there is no such tool or an argument is
/// missing.
pub fn fit(tools: &[Tool], mut call: ToolCall) -> Option<ToolCall> {
    let tool = tools.iter().find(|tool| tool.name == call.name.trim())?;
    if let (Value::String(text), Some(name)) = (&call.arguments, sole_text(tool)) {
        // A lone text is the argument, unless it is JSON: then what it has is meant, and
        // what cannot be read of it is never run.
        call.arguments = match serde_json::from_str::<Value>(text) {
            Ok(object @ Value::Object(_)) => object,
            _ if is_broken_object(text) => return None,
            _ => json!({name: text}),
        };
    }
    let given = call.arguments.as_object_mut()?;
    // Small models write pieces of the schema among the arguments.
    if let Some(known) = properties(tool) {
        given.retain(|name, _| known.contains_key(name));
    }
    let complete = required(tool).all(|name| given.contains_key(name));
    call.name.clone_from(&tool.name);
    complete.then_some(call)
}

/// A text that begins like an object. `{ ls; }` of a shell does not.
fn is_broken_object(text: &str) -> bool {
    let inside = text.trim_start().trim_start_matches("```json").trim_start().strip_prefix('{');
    inside.is_some_and(|inside| inside.trim_start().starts_with(['"', '\'', '}']))
}

/// The name of a tool's parameter if it has one only, and that is text.
pub fn sole_text(tool: &Tool) -> Option<&str> {
    let mut parameters = properties(tool)?.iter();
    let (name, schema) = parameters.next()?;
    (parameters.next().is_none() && schema.get("type")? == "string").then_some(name)
}

/// The parameters of a tool with their schemas.
pub fn properties(tool: &Tool) -> Option<&Map<String, Value>> {
    tool.parameters.get("properties")?.as_object()
}

fn required(tool: &Tool) -> impl Iterator<Item = &str> {
    let names = tool.parameters.get("required").and_then(Value::as_array);
    names.into_iter().flatten().filter_map(Value::as_str)
}
