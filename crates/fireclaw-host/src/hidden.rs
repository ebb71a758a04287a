//! Characters that must not reach a terminal, a log or a chat as they are.

/// Whether a character is not seen, or reorders what is seen (Unicode UTR #36). Control
/// characters are another matter: [`char::is_control`].
///
/// U+200C and U+200D are among them, though some scripts and emoji need them.
pub fn is_hidden(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hides_or_reorders_is_known_and_letters_are_not() {
        // Soft hyphen, Arabic letter mark, right-to-left override, isolate, tag.
        for c in ['\u{ad}', '\u{61c}', '\u{202e}', '\u{2066}', '\u{e0041}'] {
            assert!(is_hidden(c), "{c:?}");
        }
        for c in ['a', 'é', 'ע', '漢', '👩', ' ', '\n'] {
            assert!(!is_hidden(c), "{c:?}");
        }
    }
}
