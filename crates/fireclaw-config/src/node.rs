//! What TOML and JSON have in common, with the place of everything.

use std::ops::Range;

/// How deep tables and lists may lie in each other. A template needs three levels; the
/// bound keeps the recursion that reads them short.
pub const MAX_DEPTH: usize = 8;

/// A place in the text, in bytes.
pub type Span = Range<usize>;

/// A value and where it is.
#[derive(Debug)]
pub struct Node {
    /// Where it is.
    pub span: Span,
    /// What it is.
    pub value: Value,
}

/// A value.
#[derive(Debug)]
pub enum Value {
    /// A text.
    Text(String),
    /// A whole number.
    Whole(i64),
    /// True or false.
    Flag(bool),
    /// A list.
    List(Vec<Node>),
    /// A table.
    Table(Vec<Field>),
    /// What no field takes, as its name with an article: "a date".
    Other(&'static str),
}

/// A named value of a table, in the order of the file.
#[derive(Debug)]
pub struct Field {
    /// Its name.
    pub key: String,
    /// Where the name is.
    pub key_span: Span,
    /// Its value.
    pub node: Node,
}

impl Node {
    /// What kind of value this is, with an article.
    pub fn kind(&self) -> &'static str {
        match self.value {
            Value::Text(_) => "text",
            Value::Whole(_) => "a number",
            Value::Flag(_) => "true or false",
            Value::List(_) => "a list",
            Value::Table(_) => "a table",
            Value::Other(kind) => kind,
        }
    }
}
