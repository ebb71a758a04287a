//! Names of files for names from outside: no separators, no dots, bounded length.

/// The longest slug of a conversation, in bytes. With what is added to it, it fits a file name
/// (255 bytes on every file system of Linux).
const MAX_PLACE: usize = 200;

/// The longest slug of a memory, in bytes: people read these.
const MAX_NAME: usize = 60;

/// The name of a conversation's history. Two conversations have the same one only if they differ in the
/// case of ASCII letters: nobody reads in a channel what was said in private.
pub fn conversation(conversation: &str, private: bool) -> String {
    let mut slug = String::from(if private { "private-" } else { "channel-" });
    for byte in conversation.bytes() {
        match byte.to_ascii_lowercase() {
            b @ (b'a'..=b'z' | b'0'..=b'9' | b'-') => slug.push(char::from(b)),
            // Escaped itself, `_` is always followed by two digits.
            b => slug.push_str(&format!("_{b:02x}")),
        }
    }
    if slug.len() > MAX_PLACE {
        let hash = fnv(slug.as_bytes());
        slug.truncate(MAX_PLACE - 18);
        slug.push_str(&format!("__{hash:016x}"));
    }
    slug
}

/// The name of a memory's file: its ASCII letters and digits, in lower case, with `-`
/// between words.
pub fn name(name: &str) -> String {
    let mut slug = String::new();
    for c in name.chars() {
        if slug.len() >= MAX_NAME {
            break;
        }
        if c.is_ascii_alphanumeric() {
            slug.push(c.to_ascii_lowercase());
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    let slug = slug.trim_end_matches('-');
    match slug.is_empty() {
        true => format!("note-{:016x}", fnv(name.as_bytes())),
        false => slug.to_owned(),
    }
}

/// FNV-1a with 64 bits: the same in every version of this program.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn examples() {
        assert_eq!(conversation("#agents", false), "channel-_23agents");
        assert_eq!(conversation("Ann_", true), "private-ann_5f");
        assert_eq!(name("Ann's  birthday!"), "ann-s-birthday");
        assert_eq!(name("../../etc/passwd"), "etc-passwd");
        assert_eq!(name("日本"), name("日本"));
        assert_ne!(name("日本"), name("中国"));
    }

    fn is_safe(slug: &str) -> bool {
        !slug.is_empty()
            && slug.len() <= MAX_PLACE
            && slug
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b))
    }

    proptest! {
        #[test]
        fn no_name_leaves_its_directory(text in "(\\PC|[\\x00-\\x1f./\\\\]){0,120}", private: bool) {
            prop_assert!(is_safe(&conversation(&text, private)));
            prop_assert!(is_safe(&name(&text)));
            prop_assert!(name(&text).len() <= MAX_NAME);
        }

        #[test]
        fn no_two_places_share_a_file(
            a in "[#&a-f_.0-9]{0,90}", b in "[#&a-f_.0-9]{0,90}", p: bool, q: bool
        ) {
            prop_assert_eq!(conversation(&a, p) == conversation(&b, q), a == b && p == q);
        }
    }
}
