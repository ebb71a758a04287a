//! Which JSON schemas a model server is given. It makes a grammar of each, in C++ and
//! without bounds of its own: deep ones have overflowed its stack, and repetitions are
//! written out.

use serde_json::Value;

use crate::error::escape;
use crate::{ChatRequest, Error, Result};

/// The most tools of one request: the built-in agent has fewer than ten.
const MAX_TOOLS: usize = 64;

/// The most characters of a tool's name, as OpenAI's API has it.
const MAX_TOOL_NAME: usize = 64;

/// The most bytes of one schema.
const MAX_BYTES: usize = 32 * 1024;

/// How deep a schema may be nested. Each level is a call of the server's converter.
const MAX_DEPTH: usize = 24;

/// The most values in all schemas of a request: each becomes a rule or a part of one.
const MAX_RULES: usize = 2048;

/// The largest repetition that a schema may bound, which the grammar writes out.
const MAX_REPEAT: u64 = 1024;

/// Keywords that bound a repetition.
const REPEATS: [&str; 6] =
    ["minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"];

/// Keywords whose value has names of somebody's own choice, each with a schema.
const NAMED: [&str; 5] =
    ["properties", "patternProperties", "$defs", "definitions", "dependentSchemas"];

/// Keywords whose value is data, in which words that look like keywords are none.
const DATA: [&str; 5] = ["const", "enum", "default", "examples", "example"];

/// Makes a request's schemas fit to be sent. Patterns of tools are left out: they are
/// advice to the model, and regular expressions are a language of their own.
pub fn bound(request: &mut ChatRequest) -> Result<()> {
    if request.tools.len() > MAX_TOOLS {
        let problem = format!("there are {} tools, {MAX_TOOLS} at most", request.tools.len());
        return Err(Error::BadSchema { what: "the request".into(), problem });
    }
    let mut rules = 0;
    let refused = |what: &str, problem| Error::BadSchema { what: escape(what), problem };
    for tool in &mut request.tools {
        if tool.name.chars().count() > MAX_TOOL_NAME {
            let problem = format!("its name is longer than {MAX_TOOL_NAME} characters");
            return Err(refused("a tool", problem));
        }
        check(&mut tool.parameters, true, &mut rules)
            .map_err(|problem| refused(&tool.name, problem))?;
    }
    match &mut request.schema {
        Some(schema) => check(schema, false, &mut rules).map_err(|p| refused("the reply", p)),
        None => Ok(()),
    }
}

fn check(
    schema: &mut Value,
    drop_patterns: bool,
    rules: &mut usize,
) -> std::result::Result<(), String> {
    walk(schema, 0, drop_patterns, rules)?;
    let bytes = schema.to_string().len();
    if bytes > MAX_BYTES {
        return Err(format!("it has {bytes} bytes, {MAX_BYTES} at most"));
    }
    Ok(())
}

fn count(depth: usize, rules: &mut usize) -> std::result::Result<(), String> {
    *rules += 1;
    if depth > MAX_DEPTH {
        return Err(format!("it is nested more than {MAX_DEPTH} deep"));
    }
    if *rules > MAX_RULES {
        return Err(format!("it has more than {MAX_RULES} parts"));
    }
    Ok(())
}

/// A schema, or a list of them.
fn walk(
    value: &mut Value,
    depth: usize,
    drop: bool,
    rules: &mut usize,
) -> std::result::Result<(), String> {
    count(depth, rules)?;
    match value {
        Value::Array(all) => all.iter_mut().try_for_each(|one| walk(one, depth + 1, drop, rules)),
        Value::Object(object) => {
            if object.contains_key("$ref") || object.contains_key("$dynamicRef") {
                return Err("it refers to another ($ref)".into());
            }
            if object.contains_key("pattern") && !drop {
                return Err("it has a pattern".into());
            }
            object.remove("pattern");
            for (keyword, value) in object {
                let keyword = keyword.as_str();
                if REPEATS.contains(&keyword) {
                    if value.as_u64().is_none_or(|times| times > MAX_REPEAT) {
                        return Err(format!("{keyword} is not between 0 and {MAX_REPEAT}"));
                    }
                } else if DATA.contains(&keyword) {
                    data(value, depth + 1, rules)?;
                } else if NAMED.contains(&keyword) && value.is_object() {
                    let named = value.as_object_mut().into_iter().flatten();
                    for (_, schema) in named {
                        walk(schema, depth + 1, drop, rules)?;
                    }
                } else {
                    walk(value, depth + 1, drop, rules)?;
                }
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn data(value: &Value, depth: usize, rules: &mut usize) -> std::result::Result<(), String> {
    count(depth, rules)?;
    match value {
        Value::Array(all) => all.iter().try_for_each(|one| data(one, depth + 1, rules)),
        Value::Object(all) => all.values().try_for_each(|one| data(one, depth + 1, rules)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tool;
    use proptest::prelude::*;
    use serde_json::json;

    fn tool(parameters: Value) -> ChatRequest {
        let (name, description) = ("look".to_owned(), String::new());
        let tools = vec![Tool { name, description, parameters, examples: Vec::new() }];
        ChatRequest { tools, ..ChatRequest::default() }
    }

    fn problem(schema: Value) -> String {
        let mut request = ChatRequest { schema: Some(schema.clone()), ..ChatRequest::default() };
        let as_reply = bound(&mut request).unwrap_err().to_string();
        let as_tool = bound(&mut tool(schema)).unwrap_err().to_string();
        assert!(as_tool.starts_with("the JSON schema of look cannot be used: "), "{as_tool}");
        as_reply
    }

    fn deep(levels: usize) -> Value {
        (0..levels).fold(json!({"type": "string"}), |inner, _| json!({"items": inner}))
    }

    #[test]
    fn each_bound_of_a_schema_is_kept_and_named() {
        assert!(problem(deep(MAX_DEPTH + 1)).contains("24 deep"));
        assert!(problem(json!({"enum": vec![1; MAX_RULES]})).contains("2048 parts"));
        assert!(problem(json!({"const": "x".repeat(MAX_BYTES)})).contains("32768 at most"));
        assert!(problem(json!({"items": {"$ref": "#"}})).contains("$ref"));
        for times in [json!(MAX_REPEAT + 1), json!(-1), json!(1e30), json!("many")] {
            for keyword in REPEATS {
                let mut schema = json!({"type": "string"});
                schema[keyword] = times.clone();
                assert!(problem(json!({"properties": {"a": schema}})).contains(keyword));
            }
        }
        let mut many = tool(json!({}));
        many.tools = vec![many.tools[0].clone(); MAX_TOOLS + 1];
        assert!(bound(&mut many).unwrap_err().to_string().contains("65 tools"));
        many.tools.truncate(1);
        many.tools[0].name = "x".repeat(MAX_TOOL_NAME + 1);
        assert!(bound(&mut many).is_err());
    }

    #[test]
    fn what_agents_use_passes_as_it_is() {
        for schema in [
            json!({"type": "object", "properties": {"command": {"type": "string", "maxLength": 1000},
                "pattern": {"type": "string"}, "$ref": {"type": "string"}}, "required": ["pattern"]}),
            json!({"anyOf": [{"const": {"pattern": "x", "maxLength": -1}}, deep(MAX_DEPTH - 3)]}),
        ] {
            let mut request = ChatRequest { schema: Some(schema.clone()), ..tool(schema.clone()) };
            bound(&mut request).unwrap();
            assert_eq!(request.schema, Some(schema.clone()));
            assert_eq!(request.tools[0].parameters, schema);
        }
    }

    #[test]
    fn a_pattern_is_left_out_of_a_tool_and_refused_for_a_reply() {
        let schema = json!({"properties": {"a": {"type": "string", "pattern": "(((a*)*)*)*"}}});
        let mut request = tool(schema.clone());
        bound(&mut request).unwrap();
        assert_eq!(request.tools[0].parameters, json!({"properties": {"a": {"type": "string"}}}));
        let mut request = ChatRequest { schema: Some(schema), ..ChatRequest::default() };
        assert!(bound(&mut request).unwrap_err().to_string().contains("pattern"));
    }

    proptest! {
        #[test]
        fn what_passes_is_within_all_bounds(levels in 0usize..60, width in 1usize..60) {
            let schema = json!({"anyOf": vec![deep(levels); width]});
            let mut request = ChatRequest { schema: Some(schema), ..ChatRequest::default() };
            let passes = bound(&mut request).is_ok();
            prop_assert_eq!(passes, levels + 3 <= MAX_DEPTH && width * (levels + 2) + 2 <= MAX_RULES);
        }
    }
}
