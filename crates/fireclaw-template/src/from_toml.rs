//! TOML as a tree of nodes.

use toml::de::{DeArray, DeTable, DeValue};

use crate::node::{Field, MAX_DEPTH, Node, Value};
use crate::notes::Notes;

/// Reads TOML. What is not valid is noted, every place of it, and the rest is read.
pub(crate) fn read(text: &str, notes: &mut Notes<'_>) -> Vec<Field> {
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        notes.syntax(&span, format!("not valid TOML: {}", error.message()), hint(text, &error));
    }
    fields(document.get_ref(), MAX_DEPTH)
}

/// The mistake that is made most often: text without quotes.
fn hint(text: &str, error: &toml::de::Error) -> Option<String> {
    let message = error.message();
    if message.contains("string values must be quoted") {
        let word = text.get(error.span()?)?.trim();
        return Some(format!("write it as \"{}\"", crate::mistake::quoted(word)));
    }
    message.contains("duplicate key").then(|| "remove one of them".to_owned())
}

fn fields(table: &DeTable<'_>, depth: usize) -> Vec<Field> {
    let mut fields: Vec<Field> = table
        .iter()
        .map(|(key, value)| Field {
            key: key.get_ref().to_string(),
            key_span: key.span(),
            node: Node { span: value.span(), value: self::value(value.get_ref(), depth) },
        })
        .collect();
    fields.sort_by_key(|field| field.key_span.start);
    fields
}

fn list(array: &DeArray<'_>, depth: usize) -> Vec<Node> {
    array
        .iter()
        .map(|item| Node { span: item.span(), value: value(item.get_ref(), depth) })
        .collect()
}

fn value(value: &DeValue<'_>, depth: usize) -> Value {
    match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or(Value::Other("a number that is too large"), Value::Whole),
        DeValue::Float(_) => Value::Other("a number with a fraction"),
        DeValue::Boolean(flag) => Value::Flag(*flag),
        DeValue::Datetime(_) => Value::Other("a date"),
        DeValue::Array(_) | DeValue::Table(_) if depth == 0 => Value::Other("too deep a nesting"),
        DeValue::Array(array) => Value::List(list(array, depth - 1)),
        DeValue::Table(table) => Value::Table(fields(table, depth - 1)),
    }
}
