//! What is said of an answer: all of it, or its beginning.

/// The longest answer that is said whole, in characters: three full lines of IRC.
const MAX_CHARS: usize = 1500;

/// An answer in the form in which it is said.
#[derive(Debug, PartialEq, Eq)]
pub enum Shape {
    /// It is short enough.
    Whole(String),
    /// It is too long; this is its beginning.
    Start(String),
}

/// Shapes an answer for at most `max_lines` lines, with one left for what is added to a
/// beginning.
pub fn shape(answer: &str, max_lines: u32) -> Shape {
    let max_lines = usize::try_from(max_lines).unwrap_or(usize::MAX).max(1);
    let answer = answer.trim();
    if answer.lines().count() <= max_lines && answer.chars().count() <= MAX_CHARS {
        return Shape::Whole(answer.to_owned());
    }
    let lines: Vec<&str> = answer.lines().take((max_lines - 1).max(1)).collect();
    let lines = lines.join("\n");
    let start = match lines.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => &lines[..lines[..end].rfind(char::is_whitespace).unwrap_or(end)],
        None => &lines,
    };
    Shape::Start(start.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn examples() {
        assert_eq!(shape(" a\nb \n", 2), Shape::Whole("a\nb".into()));
        assert_eq!(shape("a\nb\nc", 2), Shape::Start("a".into()));
        assert_eq!(shape("a\nb", 0), Shape::Start("a".into()));
        let words = "word ".repeat(1000);
        let Shape::Start(start) = shape(&words, 5) else { panic!() };
        assert!(start.len() > 1400 && start.ends_with("word"));
        assert!(matches!(shape(&"x".repeat(2000), 5), Shape::Start(s) if s.len() == MAX_CHARS));
    }

    proptest! {
        #[test]
        fn bounded(answer in "(\\PC|\n){0,3000}", max_lines in 0_u32..9) {
            let (Shape::Whole(text) | Shape::Start(text)) = shape(&answer, max_lines);
            prop_assert!(text.lines().count() <= max_lines.max(1) as usize);
            prop_assert!(text.chars().count() <= MAX_CHARS);
        }
    }
}
