//! One thing that is wrong in a file, shown with its place.

use std::fmt;

/// How many characters of a line are shown; of a longer one, those around the mistake.
const MAX_SHOWN: usize = 90;

/// One thing that is wrong with a template, and where.
///
/// Its `Display` takes several lines: file, line and column with the message, the line
/// itself with carets under what is meant, and the hint. What the file says is shown
/// with its control characters replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The file, as it was named.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// How many characters are meant, from 1; never beyond the line's end.
    pub length: usize,
    /// The text of the line.
    pub source: String,
    /// What is wrong.
    pub message: String,
    /// What would be right, if that can be said.
    pub hint: Option<String>,
}

impl Mistake {
    /// The line as it is shown, and where the carets begin, in characters from 0.
    fn shown(&self) -> (String, usize) {
        let at = self.column - 1;
        let total = self.source.chars().count();
        let start = if total <= MAX_SHOWN { 0 } else { at.saturating_sub(MAX_SHOWN / 3) };
        let mut line: String =
            self.source.chars().skip(start).take(MAX_SHOWN).map(printable).collect();
        if start + MAX_SHOWN < total {
            line.push('…');
        }
        let before = if start > 0 { "…" } else { "" };
        (format!("{before}{line}"), at - start + before.chars().count())
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, at) = self.shown();
        let margin = self.line.to_string().len();
        let carets = self.length.clamp(1, line.chars().count().saturating_sub(at).max(1));
        writeln!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)?;
        writeln!(f, "{:margin$} |", "")?;
        writeln!(f, "{} | {}", self.line, line.trim_end())?;
        write!(f, "{:margin$} | {:at$}{}", "", "", "^".repeat(carets))?;
        if let Some(hint) = &self.hint {
            write!(f, "\n{:margin$} = {hint}", "")?;
        }
        Ok(())
    }
}

/// A character of the file on a terminal: one column, and no command.
pub fn printable(c: char) -> char {
    match c {
        '\t' => ' ',
        c if c.is_control() || fireclaw_host::is_hidden(c) => '\u{fffd}',
        c => c,
    }
}

/// A word of the file as a message quotes it: short, and no command to a terminal.
pub fn quoted(text: &str) -> String {
    const MAX: usize = 60;
    let mut short: String = text.chars().take(MAX).map(printable).collect();
    if text.chars().nth(MAX).is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistake(source: &str, column: usize, length: usize) -> Mistake {
        Mistake {
            file: "a.toml".into(),
            line: 12,
            column,
            length,
            source: source.into(),
            message: "it is wrong".into(),
            hint: None,
        }
    }

    #[test]
    fn control_characters_do_not_reach_a_terminal() {
        let text = mistake("a\t\x1b[31m = \u{202e}\x07", 1, 3).to_string();
        assert!(text.chars().all(|c| c == '\n' || printable(c) == c), "{text:?}");
        assert_eq!(quoted("a\x1b]b"), "a\u{fffd}]b");
    }

    #[test]
    fn of_a_long_line_the_part_that_matters_is_shown() {
        let text = mistake(&format!("{}bad{}", "x".repeat(500), "y".repeat(500)), 501, 3);
        let text = text.to_string();
        let mut lines = text.lines().skip(2);
        let (source, carets) = (lines.next().unwrap(), lines.next().unwrap());
        assert!(source.chars().count() < 110, "{text}");
        let from = carets.chars().position(|c| c == '^').unwrap();
        assert_eq!(source.chars().skip(from).take(3).collect::<String>(), "bad");
        assert!(carets.ends_with(" ^^^"));
    }
}
