//! Values of one kind and within their bounds. Each is absent after a mistake, which is
//! noted.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::mistake::quoted;
use crate::node::{Node, Span, Value};
use crate::notes::Notes;
use crate::units;

/// Text.
pub fn text<'n>(field: &str, node: &'n Node, notes: &mut Notes<'_>) -> Option<&'n str> {
    match &node.value {
        Value::Text(text) => Some(text),
        _ => wrong_kind(field, "text", "put it in quotes", node, notes),
    }
}

/// Text of at most `max` characters on one line; blanks around it do not count.
pub fn line(field: &str, node: &Node, max: usize, notes: &mut Notes<'_>) -> Option<String> {
    let text = text(field, node, notes)?.trim();
    if text.contains(char::is_control) {
        notes.mistake(&node.span, format!("`{field}` must be one line without control characters"));
        return None;
    }
    if text.chars().count() > max {
        notes.mistake(&node.span, format!("`{field}` has more than {max} characters"));
        return None;
    }
    Some(text.to_owned())
}

/// True or false.
pub fn flag(field: &str, node: &Node, notes: &mut Notes<'_>) -> Option<bool> {
    match node.value {
        Value::Flag(flag) => Some(flag),
        _ => wrong_kind(field, "true or false", "without quotes", node, notes),
    }
}

/// A number.
pub fn number(
    field: &str,
    node: &Node,
    range: &RangeInclusive<u32>,
    notes: &mut Notes<'_>,
) -> Option<u32> {
    match node.value {
        Value::Whole(number) => {
            let found = u32::try_from(number).ok();
            within(field, found, range, &node.span, notes)
        }
        _ => {
            let hint = format!("a whole number from {} to {}", range.start(), range.end());
            wrong_kind(field, "a number", &hint, node, notes)
        }
    }
}

/// An amount of memory or disk in MiB: a number, or text with a unit.
pub fn mib(
    field: &str,
    node: &Node,
    range: &RangeInclusive<u64>,
    notes: &mut Notes<'_>,
) -> Option<u64> {
    const HINT: &str = "a number of MiB such as 512, or text such as \"512M\" or \"2G\"";
    let found = match &node.value {
        Value::Whole(number) => u64::try_from(*number).ok(),
        Value::Text(text) => match units::mib(text) {
            None => {
                let message = format!("`{field}` is \"{}\", which is no size", quoted(text));
                notes.hinted(&node.span, message, HINT);
                return None;
            }
            size => size,
        },
        _ => return wrong_kind(field, "a size", HINT, node, notes),
    };
    match found {
        Some(size) if range.contains(&size) => found,
        _ => {
            let (low, high) = (units::size(*range.start()), units::size(*range.end()));
            notes.mistake(&node.span, format!("`{field}` must be from {low} to {high}"));
            None
        }
    }
}

/// A time: a number of seconds, or text with units.
pub fn duration(
    field: &str,
    node: &Node,
    range: &RangeInclusive<Duration>,
    notes: &mut Notes<'_>,
) -> Option<Duration> {
    const HINT: &str = "a number of seconds such as 600, or text such as \"10m\" or \"1h30m\"";
    let found = match &node.value {
        Value::Whole(number) => u64::try_from(*number).ok().map(Duration::from_secs),
        Value::Text(text) => match units::duration(text) {
            None => {
                let message = format!("`{field}` is \"{}\", which is no time", quoted(text));
                notes.hinted(&node.span, message, HINT);
                return None;
            }
            time => time,
        },
        _ => return wrong_kind(field, "a time", HINT, node, notes),
    };
    match found {
        Some(time) if range.contains(&time) => found,
        _ => {
            let (low, high) = (units::words(*range.start()), units::words(*range.end()));
            notes.mistake(&node.span, format!("`{field}` must be from {low} to {high}"));
            None
        }
    }
}

/// A list of at most `max` items.
pub fn list<'n>(
    field: &str,
    node: &'n Node,
    max: usize,
    notes: &mut Notes<'_>,
) -> Option<&'n [Node]> {
    match &node.value {
        Value::List(items) if items.len() <= max => Some(items),
        Value::List(items) => {
            let message = format!("`{field}` has {} items; at most {max} are taken", items.len());
            notes.mistake(&node.span, message);
            None
        }
        _ => wrong_kind(field, "a list", "put it in [ and ]", node, notes),
    }
}

/// Notes that a value is of another kind than it should be.
pub fn wrong_kind<T>(
    field: &str,
    wanted: &str,
    hint: &str,
    node: &Node,
    notes: &mut Notes<'_>,
) -> Option<T> {
    notes.hinted(&node.span, format!("`{field}` must be {wanted}, not {}", node.kind()), hint);
    None
}

fn within<T: PartialOrd + Display>(
    field: &str,
    found: Option<T>,
    range: &RangeInclusive<T>,
    span: &Span,
    notes: &mut Notes<'_>,
) -> Option<T> {
    if found.as_ref().is_some_and(|found| range.contains(found)) {
        return found;
    }
    notes.mistake(span, format!("`{field}` must be from {} to {}", range.start(), range.end()));
    None
}
