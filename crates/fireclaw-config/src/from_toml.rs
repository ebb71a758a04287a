//! TOML as a tree of nodes.

use toml::de::{DeArray, DeTable, DeValue};
use toml_parser::lexer::TokenKind;

use crate::node::{Field, MAX_DEPTH, Node, Value};
use crate::notes::Notes;

/// The most dots outside text and comments. Each makes a table within a table, and the
/// parser bounds the dots of one key and the depth of brackets, but not both together: its
/// recursion would overflow the stack. A template needs no such dot.
const MAX_DOTS: usize = 200;

/// Reads TOML. What is not valid is noted, every place of it, and the rest is read.
pub fn read(text: &str, notes: &mut Notes<'_>) -> Vec<Field> {
    let tokens = toml_parser::Source::new(text).lex();
    if let Some(dot) = tokens.filter(|token| token.kind() == TokenKind::Dot).nth(MAX_DOTS) {
        let span = dot.span().start()..dot.span().end();
        notes.syntax(&span, format!("more than {MAX_DOTS} dots outside text"), None);
        return Vec::new();
    }
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        let (message, hint) = explain(text, &error);
        notes.syntax(&span, format!("not valid TOML: {message}"), hint);
    }
    fields(document.get_ref(), MAX_DEPTH)
}

/// The parser's words, and ours for the mistakes that are made most often.
fn explain(text: &str, error: &toml::de::Error) -> (String, Option<String>) {
    let message = error.message();
    if message.contains("string values must be quoted") {
        let word = error.span().and_then(|span| text.get(span)).unwrap_or_default().trim();
        return match word {
            "" => ("the value is missing".into(), None),
            word => (
                "text must be in quotes".into(),
                Some(format!("write it as \"{}\"", crate::mistake::quoted(word))),
            ),
        };
    }
    let twice = message.contains("duplicate key");
    (message.to_owned(), twice.then(|| "remove one of them".to_owned()))
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
