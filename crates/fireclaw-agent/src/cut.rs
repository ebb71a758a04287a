//! Text that is too long, cut where a person sees it.

/// At most `max` bytes of `text`: its beginning and its end, with a mark between them
/// that says how much is missing. Without the mark where there is no room for it.
pub fn middle(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    // Longest when everything is left out.
    let room = mark(text.len()).len();
    let Some(keep) = max.checked_sub(room) else { return start(text, max).to_owned() };
    let head = start(text, keep / 3 * 2);
    let tail = end(text, keep / 3);
    format!("{head}{}{tail}", mark(text.len() - head.len() - tail.len()))
}

/// What stands where something is missing.
pub fn mark(missing: usize) -> String {
    format!("\n[... {missing} bytes left out ...]\n")
}

/// The beginning of a text, at most `max` bytes.
pub fn start(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

/// The end of a text, at most `max` bytes.
fn end(text: &str, max: usize) -> &str {
    &text[text.ceil_char_boundary(text.len().saturating_sub(max))..]
}

/// One line of at most `max` bytes, for lists and logs.
pub fn line(text: &str, max: usize) -> String {
    let words: Vec<&str> = start(text, max * 4).split_whitespace().collect();
    let whole = words.join(" ");
    match whole.len() <= max {
        true => whole,
        false => format!("{}...", start(&whole, max.saturating_sub(3))),
    }
}

/// One line of at most `max` bytes in which every character can be seen: others, and those
/// that change the order of text, are written as numbers.
pub fn escaped(text: &str, max: usize) -> String {
    let mut out = String::new();
    for c in line(text, max).chars() {
        match is_hidden(c) {
            true => out.extend(c.escape_unicode()),
            false => out.push(c),
        }
    }
    line(&out, max)
}

fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_mark_says_what_is_missing() {
        let text = format!("{}{}", "a".repeat(500), "z".repeat(500));
        let cut = middle(&text, 100);
        assert!(cut.starts_with("aaaa") && cut.ends_with("zzzz"), "{cut}");
        let kept = cut.matches(['a', 'z']).count();
        assert!(cut.contains(&format!("{} bytes", 1000 - kept)), "{cut}");
        assert_eq!(middle("short", 5), "short");
        assert_eq!(line(" a\n b\t c ", 10), "a b c");
        assert_eq!(line("a long line", 9), "a long...");
    }

    proptest! {
        #[test]
        fn never_longer_than_asked(text in "\\PC{0,200}", max in 0_usize..400) {
            let cut = middle(&text, max);
            prop_assert!(cut.len() <= max);
            prop_assert_eq!(text.len() <= max, cut == text);
            prop_assert!(line(&text, max.max(3)).len() <= max.max(3));
            prop_assert!(escaped(&text, max.max(3)).len() <= max.max(3));
        }
    }
}
