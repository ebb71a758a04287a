//! From text to a template, with every mistake on the way.

mod network;
mod rules;
mod template;

use std::path::Path;

use fireclaw_config::{Format, Mistake, Read};

use crate::Template;

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
    let Read { value, warnings } =
        fireclaw_config::read(source.file, source.text, source.format, |fields, notes| {
            template::read(source, fields, notes)
        });
    Parsed { template: value, warnings }
}
