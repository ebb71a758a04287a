//! From text to a template, with every mistake on the way.

mod fields;
mod network;
mod rules;
mod template;
mod values;

use std::path::Path;

use crate::notes::Notes;
use crate::{Mistake, Template, from_json, from_toml};

/// The largest file that is read, in bytes. The longest persona fits many times.
pub const MAX_FILE: usize = 256 * 1024;

/// How a template is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// TOML. A field that is not known is a mistake.
    Toml,
    /// JSON as older set-ups have it: fields may be in camel case, `mem` and `vcpus` are
    /// known, and a field that is not known is a warning.
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

/// A text to be read as a template.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// What the template will be called.
    pub name: &'a str,
    /// The file as mistakes name it.
    pub file: &'a str,
    /// Its content.
    pub text: &'a [u8],
    /// How it is written.
    pub format: Format,
    /// The directory that skills are relative to. If given, they have to be there.
    pub directory: Option<&'a Path>,
}

/// What [`parse`] found.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    /// The template, or all mistakes in the order of the file; never an empty list.
    pub template: std::result::Result<Template, Vec<Mistake>>,
    /// What has no effect, in the order of the file.
    pub warnings: Vec<Mistake>,
}

/// Reads a template and finds all mistakes, up to 100.
///
/// Where the text is not valid TOML, the rest of it is still read; JSON ends at the first
/// such place.
pub fn parse(source: &Source<'_>) -> Parsed {
    let text = match valid_text(source.text) {
        Ok(text) => text,
        Err((before, problem)) => {
            let mut notes = Notes::new(source.file, before);
            notes.syntax(&(before.len()..before.len() + 1), problem, None);
            let (mistakes, warnings) = notes.finish();
            return Parsed { template: Err(mistakes), warnings };
        }
    };
    let mut notes = Notes::new(source.file, text);
    let fields = match source.format {
        Format::Toml => from_toml::read(text, &mut notes),
        Format::Json => from_json::read(text, &mut notes),
    };
    let template = template::read(source, fields, &mut notes);
    let (mistakes, warnings) = notes.finish();
    Parsed { template: if mistakes.is_empty() { Ok(template) } else { Err(mistakes) }, warnings }
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
