//! Calls against the tools that were offered.

use serde_json::{Map, Value, json};

use crate::{Tool, ToolCall};

/// The call as its tool needs it; nothing if there is no such tool or an argument is
/// missing.
pub fn fit(tools: &[Tool], mut call: ToolCall) -> Option<ToolCall> {
    let tool = tools.iter().find(|tool| tool.name == call.name.trim())?;
    if let (Value::String(text), Some(name)) = (&call.arguments, sole_text(tool)) {
        call.arguments = json!({name: text});
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
