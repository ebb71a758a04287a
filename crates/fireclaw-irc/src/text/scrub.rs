//! Taking out what a terminal or an IRC client would obey.

use std::iter::Peekable;
use std::str::CharIndices;

/// Whether IRC's formatting codes may stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Formatting {
    /// No code stays.
    #[default]
    Remove,
    /// Bold, italics, underline, strike-through, monospace, reverse, colours and
    /// their end stay ([modern IRC formatting](https://modern.ircdocs.horse/formatting)).
    Allow,
}

/// One line's text without anything but text.
///
/// Taken out: C0 and C1 control characters with the rest of the ANSI escape
/// sequence or IRC colour that they start, characters that reorder text
/// (Unicode UTR #36, bidirectional overrides and isolates) or are not seen.
/// The joiners that scripts and emoji need stay. A tab or line break becomes a
/// space.
pub fn scrub(text: &str, formatting: Formatting) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '\t' | '\n' | '\r' | '\x0b' | '\x0c' | '\u{85}' | '\u{2028}' | '\u{2029}' => {
                plain.push(' ');
            }
            '\x1b' => skip(&mut chars, at + 1, escape_len(&text[at + 1..])),
            '\u{9b}' => skip(&mut chars, at + c.len_utf8(), csi_len(&text[at + c.len_utf8()..])),
            '\x03' | '\x04' => {
                let digits = colour_len(&text[at + 1..], c == '\x04');
                if formatting == Formatting::Allow {
                    plain.push(c);
                } else {
                    skip(&mut chars, at + 1, digits);
                }
            }
            c if formatting == Formatting::Allow && is_formatting(c) => plain.push(c),
            c if is_unsafe(c) => {}
            c => plain.push(c),
        }
    }
    plain
}

/// Whether a character is no text: it controls, reorders or is not seen.
pub(crate) fn is_unsafe(c: char) -> bool {
    // Scripts and emoji are joined by these two.
    let joins = matches!(c, '\u{200c}' | '\u{200d}');
    c.is_control() || (fireclaw_host::is_hidden(c) && !joins)
}

fn is_formatting(c: char) -> bool {
    matches!(c, '\x02' | '\x03' | '\x04' | '\x0f' | '\x11' | '\x16' | '\x1d' | '\x1e' | '\x1f')
}

fn skip(chars: &mut Peekable<CharIndices<'_>>, from: usize, len: usize) {
    while chars.next_if(|(at, _)| *at < from + len).is_some() {}
}

/// The length of what belongs to an ESC before `rest`, in bytes (ECMA-48, 5.3
/// to 5.6); 0 if it is no escape sequence.
fn escape_len(rest: &str) -> usize {
    match rest.as_bytes().first() {
        Some(b'[') => match csi_len(&rest[1..]) {
            0 => 0,
            len => 1 + len,
        },
        // A string up to BEL or ESC \. Without an end only the ESC goes: what
        // follows is harmless then, and might be all there is.
        Some(b']' | b'P' | b'X' | b'^' | b'_') => rest
            .char_indices()
            .find_map(|(at, c)| match c {
                '\x07' | '\u{9c}' => Some(at + c.len_utf8()),
                // Any other ESC breaks the string off.
                '\x1b' if rest[at + 1..].starts_with('\\') => Some(at + 2),
                '\x1b' => Some(0),
                _ => None,
            })
            .unwrap_or(0),
        Some(_) => {
            let middle = rest.bytes().take_while(|b| matches!(b, b' '..=b'/')).count();
            match rest.as_bytes().get(middle) {
                Some(b'0'..=b'~') => middle + 1,
                _ => 0,
            }
        }
        None => 0,
    }
}

/// The length of a control sequence after its introducer; 0 if it has no end.
fn csi_len(rest: &str) -> usize {
    let parameters = rest.bytes().take_while(|b| matches!(b, b' '..=b'?')).count();
    match rest.as_bytes().get(parameters) {
        Some(b'@'..=b'~') => parameters + 1,
        _ => 0,
    }
}

/// The length of a colour's numbers: `N[N][,N[N]]`, or twice six hexadecimal
/// digits.
fn colour_len(rest: &str, hex: bool) -> usize {
    let number = |text: &str| match hex {
        true => match text.bytes().take(6).take_while(u8::is_ascii_hexdigit).count() {
            6 => 6,
            _ => 0,
        },
        false => text.bytes().take(2).take_while(u8::is_ascii_digit).count(),
    };
    let first = number(rest);
    match rest[first..].strip_prefix(',').map(number) {
        Some(second @ 1..) if first > 0 => first + 1 + second,
        _ => first,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plain(text: &str) -> String {
        scrub(text, Formatting::Remove)
    }

    #[test]
    fn escapes_and_colours_go_with_what_belongs_to_them() {
        assert_eq!(plain("\x1b[31;1mred\x1b[0m"), "red");
        assert_eq!(plain("\u{9b}2Jx"), "x");
        assert_eq!(plain("\x1b]0;title\x07x\x1b]8;;http://a\x1b\\y"), "xy");
        assert_eq!(plain("\x1b]0;no end"), "]0;no end");
        assert_eq!(plain("\x1b(Bx\x1bcy\x1b"), "xy");
        assert_eq!(
            plain("\x0304,12red\x03 \x02bold\x02 \x033,x \x04ff0000,00ff00y"),
            "red bold ,x y"
        );
        assert_eq!(plain("\x01ACTION waves\x01"), "ACTION waves");
    }

    #[test]
    fn what_reorders_or_hides_goes() {
        assert_eq!(
            plain("a\u{202e}b\u{2066}c\u{200b}d\u{feff}e\u{e0041}f\u{7f}g\u{ad}"),
            "abcdefg"
        );
        assert_eq!(plain("a\r\nQUIT\tb\u{2028}c"), "a  QUIT b c");
    }

    #[test]
    fn text_stays() {
        for text in ["naïve 你好 👩‍👩‍👧 می‌خواهم e\u{301}", "  indented", "a\\b [31m ,1"]
        {
            assert_eq!(plain(text), text);
        }
    }

    #[test]
    fn formatting_stays_where_it_is_allowed() {
        let text = "\x02b\x02 \x1di\x1d \x0304,1r\x03 \x0f";
        assert_eq!(scrub(text, Formatting::Allow), text);
        assert_eq!(scrub("\x01\x1b[1m\x07\x02a", Formatting::Allow), "\x02a");
    }

    proptest! {
        #[test]
        fn nothing_unsafe_is_left(text in "(\\PC|[\\x00-\\x1f\\x7f-\\u{9f}\\u{2028}-\\u{202e}\\[0-9;,m]){0,60}") {
            let once = plain(&text);
            prop_assert!(!once.chars().any(is_unsafe), "{once:?}");
            prop_assert_eq!(plain(&once), once.clone());
            let formatted = scrub(&text, Formatting::Allow);
            prop_assert!(!formatted.chars().any(|c| is_unsafe(c) && !is_formatting(c)));
        }

        #[test]
        fn safe_text_is_kept_as_it_is(text in "\\PC{0,60}") {
            let safe: String = text.chars().filter(|c| !is_unsafe(*c)).collect();
            prop_assert_eq!(plain(&safe), safe);
        }
    }
}
