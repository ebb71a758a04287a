//! JSON as a tree of nodes.
//!
//! `serde_json` has no places of values, but a [`RawValue`] is a piece of the text: where
//! it lies in the text is its place. So each level is parsed once more, which the bound on
//! the depth keeps cheap.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::node::{Field, MAX_DEPTH, Node, Span, Value};
use crate::notes::Notes;

/// Reads JSON. What is not valid is noted; nothing can be read then.
pub fn read(text: &str, notes: &mut Notes<'_>) -> Vec<Field> {
    match serde_json::from_str::<&RawValue>(text) {
        Ok(raw) => match node(text, raw.get(), MAX_DEPTH) {
            Node { value: Value::Table(fields), .. } => fields,
            other => {
                let message = format!("a template is an object, not {}", other.kind());
                notes.syntax(&other.span, message, Some("begin with {".into()));
                Vec::new()
            }
        },
        Err(error) => {
            let message = error.to_string();
            // The message ends in the place, which is shown anyway.
            let message = message.split(" at line ").next().unwrap_or_default();
            notes.syntax(&place(text, &error), format!("not valid JSON: {message}"), None);
            Vec::new()
        }
    }
}

/// Where an error is: `serde_json` counts columns in bytes, from 1, 0 for before the line.
fn place(text: &str, error: &serde_json::Error) -> Span {
    let before: usize =
        text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
    let at = (before + error.column().saturating_sub(1)).min(text.len());
    at..at + 1
}

/// Where a piece of the text is. A piece that is not of this text, which does not
/// happen, is at its start.
fn span_of(text: &str, piece: &str) -> Span {
    let at = (piece.as_ptr() as usize).checked_sub(text.as_ptr() as usize);
    let at = at.filter(|at| at + piece.len() <= text.len()).unwrap_or(0);
    at..at + piece.len()
}

fn node(text: &str, raw: &str, depth: usize) -> Node {
    Node { span: span_of(text, raw), value: value(text, raw, depth) }
}

fn value(text: &str, raw: &str, depth: usize) -> Value {
    match raw.bytes().next() {
        Some(b'{' | b'[') if depth == 0 => Value::Other("too deep a nesting"),
        Some(b'{') => serde_json::from_str::<Object<'_>>(raw).map_or(
            Value::Other("a broken object"),
            |object| {
                Value::Table(object.0.iter().map(|entry| field(text, entry, depth - 1)).collect())
            },
        ),
        Some(b'[') => serde_json::from_str::<Vec<&RawValue>>(raw).map_or(
            Value::Other("a broken list"),
            |items| {
                Value::List(items.iter().map(|item| node(text, item.get(), depth - 1)).collect())
            },
        ),
        Some(b'"') => serde_json::from_str(raw).map_or(Value::Other("broken text"), Value::Text),
        Some(b't' | b'f') => Value::Flag(raw == "true"),
        Some(b'n') => Value::Other("null"),
        _ => match raw.parse() {
            Ok(number) => Value::Whole(number),
            Err(_) if raw.contains(['.', 'e', 'E']) => Value::Other("a number with a fraction"),
            Err(_) => Value::Other("a number that is too large"),
        },
    }
}

fn field(text: &str, (key, raw): &(&RawValue, &RawValue), depth: usize) -> Field {
    let name: Cow<'_, str> = serde_json::from_str(key.get()).unwrap_or_default();
    Field {
        key: name.into_owned(),
        key_span: span_of(text, key.get()),
        node: node(text, raw.get(), depth),
    }
}

/// An object with the order of its keys, and with those that come twice.
struct Object<'a>(Vec<(&'a RawValue, &'a RawValue)>);

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(key) = map.next_key()? {
                    pairs.push((key, map.next_value().map_err(A::Error::custom)?));
                }
                Ok(Object(pairs))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}
