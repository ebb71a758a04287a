//! Reads files that people write, TOML or JSON, and explains every mistake in them.
//!
//! [`read`] turns a text into [`Fields`] and [`Notes`]. Whoever knows what the fields mean
//! takes one after the other, by the readers in [`values`]; what is wrong is noted with its
//! place and a hint, and reading goes on. What remains at the end is not known.

mod fields;
mod from_json;
mod from_toml;
mod mistake;
mod node;
mod notes;
mod suggest;
mod units;
pub mod values;

use std::path::Path;

pub use fields::Fields;
pub use mistake::{Mistake, printable, quoted};
pub use node::{Field, Node, Span, Value};
pub use notes::Notes;
pub use suggest::{all, hint, nearest, one_of};

/// The largest file that is read, in bytes.
pub const MAX_FILE: usize = 256 * 1024;

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// TOML. A field that is not known is a mistake.
    Toml,
    /// JSON as older set-ups have it: fields may be in camel case, and a field that is not
    /// known is a warning.
    Json,
}

impl Format {
    /// The format of a file, by the ending of its name.
    pub fn of(file: &Path) -> Option<Self> {
        match file.extension()?.to_str()? {
            "toml" => Some(Self::Toml),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// What reading found.
#[derive(Debug, Clone, PartialEq)]
pub struct Read<T> {
    /// What the file says, or all mistakes in the order of the file; never an empty list.
    pub value: Result<T, Vec<Mistake>>,
    /// What has no effect, in the order of the file.
    pub warnings: Vec<Mistake>,
}

/// Reads a file and finds all mistakes, up to 100. `file` is how mistakes name it; `take`
/// makes something of its fields, which is of no use if a mistake was noted.
///
/// Where the text is not valid TOML, the rest of it is still read; JSON ends at the first
/// such place.
pub fn read<T>(
    file: &str,
    bytes: &[u8],
    format: Format,
    take: impl FnOnce(Fields, &mut Notes<'_>) -> T,
) -> Read<T> {
    let text = match valid_text(bytes) {
        Ok(text) => text,
        Err((before, problem)) => {
            let mut notes = Notes::new(file, before);
            notes.syntax(&(before.len()..before.len() + 1), problem, None);
            let (mistakes, warnings) = notes.finish();
            return Read { value: Err(mistakes), warnings };
        }
    };
    let mut notes = Notes::new(file, text);
    let fields = match format {
        Format::Toml => from_toml::read(text, &mut notes),
        Format::Json => from_json::read(text, &mut notes),
    };
    let value = take(Fields::new(format, fields), &mut notes);
    let (mistakes, warnings) = notes.finish();
    Read { value: if mistakes.is_empty() { Ok(value) } else { Err(mistakes) }, warnings }
}

/// The content as text; else what is valid before the mistake, and the mistake.
fn valid_text(bytes: &[u8]) -> Result<&str, (&str, String)> {
    if bytes.len() > MAX_FILE {
        return Err(("", format!("the file has more than {} KiB", MAX_FILE / 1024)));
    }
    // What some editors put at the start of a file.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    std::str::from_utf8(bytes).map_err(|error| {
        let before = std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default();
        let byte = bytes.get(error.valid_up_to()).copied().unwrap_or_default();
        (before, format!("not UTF-8: the byte {byte:#04x} is no part of a character"))
    })
}
