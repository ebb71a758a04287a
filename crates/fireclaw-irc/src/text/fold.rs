//! Fitting an answer of many lines into a chat.

use fireclaw_chat::Folded;

use super::scrub::{Formatting, scrub};
use super::split::split;

/// Fits `text` into at most `max_lines` lines of at most `budget` bytes.
///
/// Blank lines and the fences of Markdown code go. If that alone is not enough,
/// the lines of a paragraph are joined, as Markdown has it; code, lists,
/// headings, quotes and tables keep theirs. What is still too much is left out,
/// and [`Folded::rest`] says so.
pub fn fold(text: &str, budget: usize, max_lines: usize, formatting: Formatting) -> Folded {
    let paragraphs = paragraphs(text, formatting);
    let apart = paragraphs.iter().flatten().map(String::as_str);
    if let Some(lines) = fit(apart, budget, max_lines) {
        return Folded { lines, rest: false };
    }
    let joined: Vec<String> = paragraphs.iter().map(|lines| lines.join(" ")).collect();
    if let Some(lines) = fit(joined.iter().map(String::as_str), budget, max_lines) {
        return Folded { lines, rest: false };
    }
    let pieces = joined.iter().flat_map(|line| split(line, budget));
    Folded { lines: pieces.take(max_lines).map(str::to_owned).collect(), rest: true }
}

/// All of `text` as lines of at most `budget` bytes: scrubbed, split, without
/// blank ones, and otherwise as it is.
pub fn lines(text: &str, budget: usize, formatting: Formatting) -> Vec<String> {
    breaks(text)
        .map(|line| scrub(line, formatting))
        .flat_map(|line| split(&line, budget).into_iter().map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

fn fit<'a>(
    lines: impl Iterator<Item = &'a str>,
    budget: usize,
    max_lines: usize,
) -> Option<Vec<String>> {
    let mut pieces = lines.flat_map(|line| split(line, budget));
    let fitting = pieces.by_ref().take(max_lines).map(str::to_owned).collect();
    pieces.next().is_none().then_some(fitting)
}

/// Lines at every kind of line break (Unicode UAX #14, class BK, CR, LF, NL).
fn breaks(text: &str) -> impl Iterator<Item = &str> {
    text.split(['\n', '\r', '\x0b', '\x0c', '\u{85}', '\u{2028}', '\u{2029}'])
}

/// The lines that may be joined, together; every other line for itself.
fn paragraphs(text: &str, formatting: Formatting) -> Vec<Vec<String>> {
    let mut paragraphs: Vec<Vec<String>> = Vec::new();
    let mut fence = None;
    let mut open = false;
    for line in breaks(text) {
        let line = scrub(line, formatting);
        match (fence, fence_of(&line)) {
            (None, Some(mark)) => {
                fence = Some(mark);
                open = false;
                continue;
            }
            (Some(mark), Some(end)) if mark == end && is_closing(&line) => {
                fence = None;
                open = false;
                continue;
            }
            _ => {}
        }
        let blank = line.trim().is_empty();
        let prose = fence.is_none() && is_prose(&line);
        match paragraphs.last_mut() {
            _ if blank => {}
            Some(last) if open && prose => last.push(line.trim_start().to_owned()),
            _ => paragraphs.push(vec![line]),
        }
        open = prose && !blank;
    }
    paragraphs
}

/// The mark of a fence (CommonMark 4.5): three backticks or tildes, with at most
/// a word or two about the code after them.
fn fence_of(line: &str) -> Option<char> {
    let line = line.trim_start();
    let mark = line.chars().next().filter(|c| matches!(c, '`' | '~'))?;
    let info = line.trim_start_matches(mark);
    // Backticks after them: code within a line, not a fence.
    (line.len() - info.len() >= 3 && !info.contains('`')).then_some(mark)
}

fn is_closing(line: &str) -> bool {
    line.trim().trim_matches(['`', '~']).is_empty()
}

/// Whether a line can be joined with its neighbours: not indented, and not the
/// start of a list item, heading, quote or table row.
fn is_prose(line: &str) -> bool {
    let number = line.trim_start_matches(|c: char| c.is_ascii_digit());
    let numbered = number.len() < line.len() && number.starts_with(['.', ')']);
    !numbered && !line.starts_with([' ', '#', '>', '|', '-', '*', '+', '•', '=', '_'])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::{MIN_LIMIT, is_unsafe};
    use proptest::prelude::*;

    fn folded(text: &str, max_lines: usize) -> (Vec<String>, bool) {
        let Folded { lines, rest } = fold(text, 80, max_lines, Formatting::Remove);
        (lines, rest)
    }

    #[test]
    fn blank_lines_and_fences_go() {
        let text = "Here:\r\n\r\n```rust\r\nfn main() {\r\n    run();\r\n}\r\n```\r\n\r\nDone.\n";
        let (lines, rest) = folded(text, 9);
        assert_eq!(lines, ["Here:", "fn main() {", "    run();", "}", "Done."]);
        assert!(!rest);
        assert_eq!(folded("~~~\n```\n~~~\n```x``` y", 9).0, ["```", "```x``` y"]);
    }

    #[test]
    fn paragraphs_are_joined_only_if_they_must() {
        let text = "One\ntwo\nthree.\n\nFour\nfive.\n- a\n- b";
        assert_eq!(folded(text, 7).0.len(), 7);
        assert_eq!(
            folded(text, 4),
            (vec!["One two three.".into(), "Four five.".into(), "- a".into(), "- b".into()], false,)
        );
    }

    #[test]
    fn code_is_never_joined() {
        assert_eq!(folded("```\na\nb\nc\n```", 2), (vec!["a".into(), "b".into()], true));
    }

    #[test]
    fn what_is_too_much_is_said_to_be() {
        let (lines, rest) = folded(&"word ".repeat(100), 2);
        assert_eq!((lines.len(), rest), (2, true));
        assert_eq!(folded("", 0), (vec![], false));
        assert_eq!(folded("x", 0), (vec![], true));
    }

    #[test]
    fn a_line_break_of_any_kind_is_one() {
        assert_eq!(folded("a\u{2028}b\rc\x0bd\u{85}e", 9).0, ["a", "b", "c", "d", "e"]);
    }

    fn letters(text: &str) -> String {
        text.chars().filter(|c| c.is_alphanumeric()).collect()
    }

    proptest! {
        #[test]
        fn lines_are_safe_and_fit(
            text in "(\\PC|[\\x00-\\x1f\u{7f}-\u{a0}]|[a-z ]{1,30}|\n```\n){0,60}",
            budget in 0_usize..120,
            max_lines in 0_usize..12,
        ) {
            let Folded { lines: folded, rest } = fold(&text, budget, max_lines, Formatting::Remove);
            prop_assert!(folded.len() <= max_lines);
            let all = lines(&text, budget, Formatting::Remove);
            prop_assert!(rest || folded.len() <= all.len());
            for line in folded.iter().chain(&all) {
                prop_assert!(line.len() <= budget.max(MIN_LIMIT), "{line:?}");
                prop_assert!(!line.trim().is_empty() && !line.chars().any(is_unsafe), "{line:?}");
            }
        }

        #[test]
        fn no_text_is_lost(text in "([a-zä你 ]{1,30}|\n|- |\n\n|\t){0,60}", budget in 8_usize..120) {
            let Folded { lines: folded, rest } = fold(&text, budget, usize::MAX, Formatting::Remove);
            prop_assert!(!rest);
            prop_assert_eq!(letters(&folded.concat()), letters(&text));
            prop_assert_eq!(letters(&lines(&text, budget, Formatting::Remove).concat()), letters(&text));
            let joined = fold(&text, budget, 3, Formatting::Remove);
            if !joined.rest {
                prop_assert_eq!(letters(&joined.lines.concat()), letters(&text));
            }
        }
    }
}
