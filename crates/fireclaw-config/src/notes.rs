//! Collects what is wrong while a file is read.

use std::collections::BTreeSet;

use crate::mistake::Mistake;
use crate::node::Span;

/// The most mistakes of one file that are kept: a file that is no template at all would
/// otherwise fill the screen.
const MAX: usize = 100;

/// What is wrong with one file so far.
#[derive(Debug)]
pub struct Notes<'a> {
    file: &'a str,
    text: &'a str,
    mistakes: Vec<Mistake>,
    warnings: Vec<Mistake>,
    /// Lines that are not valid TOML or JSON, from 1.
    broken: BTreeSet<usize>,
}

impl<'a> Notes<'a> {
    /// Of a file of this name and text.
    pub fn new(file: &'a str, text: &'a str) -> Self {
        Self { file, text, mistakes: Vec::new(), warnings: Vec::new(), broken: BTreeSet::new() }
    }

    /// Notes that the text is not valid in its format. What else seems wrong on the same
    /// line follows from that, and is not noted.
    pub fn syntax(&mut self, span: &Span, message: impl Into<String>, hint: Option<String>) {
        if self.mistakes.len() >= MAX {
            return;
        }
        let found = self.at(span, message.into(), hint);
        if self.broken.insert(found.line) {
            self.mistakes.push(found);
        }
    }

    /// Whether any of the text is not valid in its format.
    pub fn is_broken(&self) -> bool {
        !self.broken.is_empty()
    }

    /// How many mistakes there are so far.
    pub fn count(&self) -> usize {
        self.mistakes.len()
    }

    /// Notes a mistake.
    pub fn mistake(&mut self, span: &Span, message: impl Into<String>) {
        self.note(span, message.into(), None);
    }

    /// Notes a mistake with what to do about it.
    pub fn hinted(&mut self, span: &Span, message: impl Into<String>, hint: impl Into<String>) {
        self.note(span, message.into(), Some(hint.into()));
    }

    /// Notes what has no effect.
    pub fn warning(&mut self, span: &Span, message: impl Into<String>, hint: Option<String>) {
        if self.warnings.len() >= MAX {
            return;
        }
        let found = self.at(span, message.into(), hint);
        if !self.broken.contains(&found.line) {
            self.warnings.push(found);
        }
    }

    /// In the order of the file.
    pub fn finish(mut self) -> (Vec<Mistake>, Vec<Mistake>) {
        self.mistakes.sort_by_key(|found| (found.line, found.column));
        self.warnings.sort_by_key(|found| (found.line, found.column));
        (self.mistakes, self.warnings)
    }

    fn note(&mut self, span: &Span, message: String, hint: Option<String>) {
        if self.mistakes.len() >= MAX {
            return;
        }
        let found = self.at(span, message, hint);
        if !self.broken.contains(&found.line) {
            self.mistakes.push(found);
        }
    }

    fn at(&self, span: &Span, message: String, hint: Option<String>) -> Mistake {
        let start = self.text.floor_char_boundary(span.start);
        let before = &self.text[..start];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let source = self.text[line_start..].lines().next().unwrap_or_default();
        let column = before[line_start..].chars().count() + 1;
        let end = self.text.floor_char_boundary(span.end.min(line_start + source.len()));
        let length = self.text.get(start..end).map_or(0, |meant| meant.chars().count());
        Mistake {
            file: self.file.to_owned(),
            line: before.matches('\n').count() + 1,
            column,
            length: length.max(1),
            source: source.to_owned(),
            message,
            hint,
        }
    }
}
