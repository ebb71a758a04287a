//! From events to whole lines.

use std::sync::Arc;
use std::{fmt, io};

use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::{self, DefaultFields};
use tracing_subscriber::fmt::{FormatFields, MakeWriter};

/// The fields of a span, kept apart for each layer: layers that share a format would each add
/// to the same text.
#[derive(Debug)]
pub struct Fields<const LAYER: usize>(DefaultFields);

impl<const LAYER: usize> Fields<LAYER> {
    /// Those of one layer.
    pub fn new() -> Self {
        Self(DefaultFields::new())
    }
}

impl<const LAYER: usize> FormatFields<'_> for Fields<LAYER> {
    fn format_fields<R: RecordFields>(&self, to: format::Writer<'_>, fields: R) -> fmt::Result {
        self.0.format_fields(to, fields)
    }
}

/// Hands each event on as one line with its end.
#[derive(Clone)]
pub struct Writer(Arc<dyn Fn(&str) + Send + Sync>);

impl Writer {
    /// One that calls `write` for each.
    pub fn new(write: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(write))
    }
}

impl MakeWriter<'_> for Writer {
    type Writer = Event;

    fn make_writer(&self) -> Event {
        Event { text: Vec::new(), writer: self.clone() }
    }
}

/// An event that is being written.
pub struct Event {
    text: Vec<u8>,
    writer: Writer,
}

impl io::Write for Event {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if !self.text.is_empty() {
            (self.writer.0)(&String::from_utf8_lossy(&self.text));
        }
    }
}

/// A line with its end in which nothing is obeyed by a terminal and nothing hides.
pub fn harmless(line: &str) -> String {
    harmless_line(line.strip_suffix('\n').unwrap_or(line)) + "\n"
}

/// The same without its end.
pub fn harmless_line(line: &str) -> String {
    let mut safe = String::with_capacity(line.len() + 1);
    for c in line.chars() {
        match c {
            '\t' => safe.push(' '),
            c if c.is_control() || fireclaw_host::is_hidden(c) => safe.extend(c.escape_unicode()),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whatever_is_logged_is_one_harmless_line(text in "(\\PC|[\\x00-\\x1f\u{202e}\u{e0041}\n]){0,60}") {
            let line = harmless(&text);
            prop_assert!(line.ends_with('\n'));
            let line = &line[..line.len() - 1];
            prop_assert!(line.chars().all(|c| !c.is_control() && !fireclaw_host::is_hidden(c)));
        }
    }
}
