//! The fields of one table: each is taken once, and what remains is not known.

use crate::Format;
use crate::mistake::quoted;
use crate::node::{Field, Node, Span, Value};
use crate::notes::Notes;
use crate::suggest;

/// A table whose fields are taken one by one.
#[derive(Debug)]
pub struct Fields {
    format: Format,
    fields: Vec<Field>,
}

impl Fields {
    /// In JSON, keys are put into snake case and `null` is as good as absent.
    pub fn new(format: Format, mut fields: Vec<Field>) -> Self {
        if format == Format::Json {
            fields.retain(|field| !matches!(field.node.value, Value::Other("null")));
            for field in &mut fields {
                field.key = snake_case(&field.key);
            }
        }
        Self { format, fields }
    }

    /// Takes the field of this name, or of one of its older names in JSON. If there are
    /// several, the first; the others are noted.
    pub fn take(&mut self, name: &str, older: &[&str], notes: &mut Notes<'_>) -> Option<Node> {
        let json = self.format == Format::Json;
        let is_it = |key: &str| key == name || (json && older.contains(&key));
        let at = self.fields.iter().position(|field| is_it(&field.key))?;
        let first = self.fields.remove(at);
        while let Some(at) = self.fields.iter().position(|field| is_it(&field.key)) {
            let other = self.fields.remove(at);
            notes.hinted(&other.key_span, format!("`{name}` is there twice"), "remove one of them");
        }
        Some(first.node)
    }

    /// Where the key of a field is, if it is there.
    pub fn key_span(&self, name: &str) -> Option<Span> {
        self.fields.iter().find(|field| field.key == name).map(|field| field.key_span.clone())
    }

    /// Whether a field that is not known may be meant for this one.
    pub fn has_like(&self, name: &str) -> bool {
        self.fields.iter().any(|field| suggest::nearest(&field.key, [name]).is_some())
    }

    /// Notes what was not taken. `what` is what has the field: "a template".
    pub fn finish(self, what: &str, known: &[&str], notes: &mut Notes<'_>) {
        for field in self.fields {
            let message = format!("{what} has no field `{}`", quoted(&field.key));
            let hint = match suggest::nearest(&field.key, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("it has {}", suggest::all(known)),
            };
            match self.format {
                Format::Toml => notes.hinted(&field.key_span, message, hint),
                Format::Json => {
                    notes.warning(&field.key_span, message + "; it is ignored", Some(hint));
                }
            }
        }
    }
}

/// `scheduleTimeout` as `schedule_timeout`.
fn snake_case(key: &str) -> String {
    let mut snake = String::with_capacity(key.len());
    for c in key.chars() {
        if c.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}
