//! The values of IRCv3 message tags, escaped as the specification has it.

/// Takes the escapes out of a value; an unknown escape is the character
/// itself, a lone backslash at the end is dropped.
pub(crate) fn unescape(value: &str) -> String {
    let mut plain = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(':') => plain.push(';'),
                Some('s') => plain.push(' '),
                Some('r') => plain.push('\r'),
                Some('n') => plain.push('\n'),
                Some(other) => plain.push(other),
                None => {}
            },
            c => plain.push(c),
        }
    }
    plain
}

/// Escapes what a value must not contain, apart from NUL, which has no escape.
pub(crate) fn escape(value: &str, out: &mut String) {
    for c in value.chars() {
        match c {
            ';' => out.push_str("\\:"),
            ' ' => out.push_str("\\s"),
            '\\' => out.push_str("\\\\"),
            '\r' => out.push_str("\\r"),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
}

/// Whether `key` is `[+][vendor/]name` of the allowed characters.
pub(crate) fn is_key(key: &str) -> bool {
    let key = key.strip_prefix('+').unwrap_or(key);
    !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-./".contains(&b))
}
