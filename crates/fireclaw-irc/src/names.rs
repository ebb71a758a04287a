//! Names of users and channels: which are valid, and which are the same.

use fireclaw_chat::Case;

/// How a server compares names (`CASEMAPPING`; RFC 2812, 2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CaseMapping {
    /// A to Z are a to z.
    Ascii,
    /// Also `[]\~` are `{}|^`. What a server uses that does not say.
    #[default]
    Rfc1459,
    /// Also `[]\` are `{}|`.
    Rfc1459Strict,
}

impl CaseMapping {
    /// The mapping that a server names. One that is not known here is taken for
    /// `ascii`, which holds the fewest names to be the same.
    pub fn named(name: &str) -> Self {
        match name.to_ascii_lowercase().as_str() {
            "rfc1459" => Self::Rfc1459,
            "rfc1459-strict" | "strict-rfc1459" => Self::Rfc1459Strict,
            _ => Self::Ascii,
        }
    }

    /// The lower case of one character.
    pub fn lower(self, c: char) -> char {
        match (self, c) {
            (_, 'A'..='Z') => c.to_ascii_lowercase(),
            (Self::Rfc1459 | Self::Rfc1459Strict, '[') => '{',
            (Self::Rfc1459 | Self::Rfc1459Strict, ']') => '}',
            (Self::Rfc1459 | Self::Rfc1459Strict, '\\') => '|',
            (Self::Rfc1459, '~') => '^',
            _ => c,
        }
    }

    /// The lower case of a name, as a key for comparing. It has as many bytes
    /// as the name.
    pub fn fold(self, name: &str) -> String {
        Case::from(self).fold(name)
    }

    /// Whether two names are the same to the server.
    pub fn same(self, a: &str, b: &str) -> bool {
        Case::from(self).same(a, b)
    }
}

impl From<CaseMapping> for Case {
    fn from(mapping: CaseMapping) -> Self {
        match mapping {
            CaseMapping::Ascii => Self::ASCII,
            CaseMapping::Rfc1459 => Self::new(|c| CaseMapping::Rfc1459.lower(c)),
            CaseMapping::Rfc1459Strict => Self::new(|c| CaseMapping::Rfc1459Strict.lower(c)),
        }
    }
}

/// Whether `name` is a channel: one of `types` (`CHANTYPES`), then what RFC
/// 2812, 1.3, allows and no other control characters, at most `max` bytes
/// (`CHANNELLEN`).
pub fn is_channel(name: &str, types: &str, max: usize) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|first| types.contains(first))
        && name.len() > 1
        && name.len() <= max
        && chars.all(|c| !matches!(c, ' ' | ',' | ':') && !crate::text::is_unsafe(c))
}

/// Whether `name` can be written to as a user: a nick, also of a server that
/// allows letters beyond ASCII, but never a list, a mask or a channel.
pub fn is_recipient(name: &str) -> bool {
    const MAX: usize = 128;
    name.len() <= MAX
        && name.starts_with(|c: char| c.is_alphanumeric() || "[]\\`_^{|}".contains(c))
        && name.chars().all(|c| c.is_alphanumeric() || "[]\\`_^{|}-.".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_that_are_the_same() {
        assert!(CaseMapping::Rfc1459.same("Ada[\\]~", "aDA{|}^"));
        assert!(!CaseMapping::Rfc1459Strict.same("~", "^"));
        assert!(CaseMapping::Rfc1459Strict.same("[]\\", "{}|"));
        assert!(!CaseMapping::Ascii.same("a[", "a{"));
        assert!(!CaseMapping::Ascii.same("É", "é"));
        assert_eq!(CaseMapping::named("RFC1459"), CaseMapping::Rfc1459);
        assert_eq!(CaseMapping::named("rfc8265"), CaseMapping::Ascii);
    }

    #[test]
    fn channels() {
        for good in ["#a", "&local", "#ä", "##", "#a-b.c"] {
            assert!(is_channel(good, "#&", 50), "{good}");
        }
        for bad in ["", "#", "a", "#a b", "#a,b", "#a:b", "#a\x07", "#a\u{202e}b", "+a", "#aaaaaa"]
        {
            assert!(!is_channel(bad, "#&", 6), "{bad:?}");
        }
    }

    #[test]
    fn recipients() {
        assert!(is_recipient("ada") && is_recipient("zoë") && is_recipient("[x]"));
        for bad in ["", "a,b", "$*.org", "#a", "@#a", "a!b@c", "-a", "a b", ":a", "a\r"] {
            assert!(!is_recipient(bad), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn folding_keeps_the_length_and_is_idempotent(name in any::<String>()) {
            for mapping in [CaseMapping::Ascii, CaseMapping::Rfc1459, CaseMapping::Rfc1459Strict] {
                let folded = mapping.fold(&name);
                prop_assert_eq!(folded.len(), name.len());
                prop_assert_eq!(mapping.fold(&folded), folded.clone());
                prop_assert!(mapping.same(&name, &folded));
            }
        }
    }
}
