//! The front matter of a `SKILL.md`.

use serde_json::{Value, json};

use super::Error;
use crate::cut;

/// The most of a description that is used, in bytes.
const MAX_DESCRIPTION: usize = 500;

/// The largest schema, in bytes.
const MAX_PARAMETERS: usize = 2048;

/// The longest name of a tool that model servers take.
const MAX_NAME: usize = 64;

/// What is used of the front matter. Other fields are left alone.
#[derive(Debug, PartialEq)]
pub struct Manifest {
    pub name: String,
    pub description: String,
    pub parameters: Value,
}

impl Manifest {
    /// Reads `key: value` lines between two lines `---`. A value goes on in lines that are
    /// indented, and may be in quotes, as in the simplest YAML.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let fields = fields(text).ok_or(Error::NoFrontMatter)?;
        let field = |name: &'static str| {
            let found = fields.iter().find(|(key, value)| key == name && !value.is_empty());
            found.map(|(_, value)| value.as_str()).ok_or(Error::Missing(name))
        };
        let name = field("name")?;
        let is_name = name.len() <= MAX_NAME
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
        if !is_name {
            return Err(Error::Name(cut::line(name, MAX_NAME)));
        }
        let parameters = match field("parameters") {
            Ok(text) => parameters(text)?,
            Err(_) => json!({"type": "object", "properties": {"input": {"type": "string"}}}),
        };
        let description = cut::line(field("description")?, MAX_DESCRIPTION);
        Ok(Self { name: name.to_owned(), description, parameters })
    }
}

fn fields(text: &str) -> Option<Vec<(String, String)>> {
    let mut lines = text.trim_start_matches('\u{feff}').lines();
    if lines.next()?.trim_end() != "---" {
        return None;
    }
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in lines {
        if line.trim_end() == "---" {
            for (_, value) in &mut fields {
                *value = plain(value);
            }
            return Some(fields);
        }
        if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = fields.last_mut() {
                value.push('\n');
                value.push_str(line.trim());
            }
        } else if let Some((key, value)) = line.split_once(':') {
            fields.push((key.trim().to_owned(), value.trim().to_owned()));
        }
    }
    None
}

/// A value without YAML's signs for several lines, and without quotes.
fn plain(value: &str) -> String {
    let value = match value.split_once('\n') {
        Some(("|" | ">" | "|-" | ">-" | "", rest)) => rest,
        _ => value,
    };
    let quoted = ['"', '\''].iter().find_map(|q| value.strip_prefix(*q)?.strip_suffix(*q));
    quoted.unwrap_or(value).trim().to_owned()
}

fn parameters(text: &str) -> Result<Value, Error> {
    if text.len() > MAX_PARAMETERS {
        return Err(Error::Parameters(format!("more than {MAX_PARAMETERS} bytes")));
    }
    let schema: Value = serde_json::from_str(text).map_err(|e| Error::Parameters(e.to_string()))?;
    if schema.get("type").and_then(Value::as_str) != Some("object") {
        return Err(Error::Parameters("its `type` is not `object`".into()));
    }
    if schema.get("properties").is_some_and(|p| !p.is_object()) {
        return Err(Error::Parameters("its `properties` are no object".into()));
    }
    Ok(schema)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn in_one_line_and_in_several() {
        let text = "---\nname: weather\nlicense: x\ndescription: >\n  Says what the\n  weather is.\nparameters:\n  {\"type\": \"object\",\n   \"properties\": {}}\n---\n# Weather\n";
        let manifest = Manifest::parse(text).unwrap();
        assert_eq!(manifest.name, "weather");
        assert_eq!(manifest.description, "Says what the weather is.");
        assert_eq!(manifest.parameters, json!({"type": "object", "properties": {}}));
        let text = "---\r\nname: 'w'\r\ndescription: \"a: b\"\r\n---";
        let manifest = Manifest::parse(text).unwrap();
        assert_eq!((manifest.name.as_str(), manifest.description.as_str()), ("w", "a: b"));
        assert_eq!(manifest.parameters["type"], "object");
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, problem) in [
            ("# Weather", "no front matter"),
            ("---\nname: a\n", "no front matter"),
            ("---\nname: a\n---\n", "no `description`"),
            ("---\nname:\ndescription: d\n---\n", "no `name`"),
            ("---\nname: ../a\ndescription: d\n---\n", "no name for a tool"),
            ("---\nname: a\ndescription: d\nparameters: {\n---\n", "no JSON schema"),
            (
                "---\nname: a\ndescription: d\nparameters: {\"type\":\"string\"}\n---\n",
                "not `object`",
            ),
        ] {
            let said = Manifest::parse(text).unwrap_err().to_string();
            assert!(said.contains(problem), "{said}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "(---\n)?(\\PC|\n|name: |: |\"){0,80}(\n---)?") {
            let _ = Manifest::parse(&text);
        }
    }
}
