//! Which names are valid, and which are the same.

use std::fmt;

/// How a network compares names: by the lower case of each character.
#[derive(Clone, Copy)]
pub struct Case(fn(char) -> char);

impl Case {
    /// A to Z are a to z.
    pub const ASCII: Self = Self(|c| c.to_ascii_lowercase());

    /// As `lower` says, which must not change how many bytes a character has.
    pub const fn new(lower: fn(char) -> char) -> Self {
        Self(lower)
    }

    /// The lower case of one character.
    pub fn lower(self, c: char) -> char {
        (self.0)(c)
    }

    /// The lower case of a name, as a key for comparing.
    pub fn fold(self, name: &str) -> String {
        name.chars().map(|c| self.lower(c)).collect()
    }

    /// Whether two names are the same to the network.
    pub fn same(self, a: &str, b: &str) -> bool {
        a.len() == b.len() && a.chars().map(|c| self.lower(c)).eq(b.chars().map(|c| self.lower(c)))
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Case")
    }
}

/// Whether `nick` can be a nick of at most `max` bytes, by the strictest rules there are:
/// those of RFC 2812, 2.3.1.
pub fn is_nick(nick: &str, max: usize) -> bool {
    let special = |c: char| "[]\\`_^{|}".contains(c);
    nick.len() <= max
        && nick.starts_with(|c: char| c.is_ascii_alphabetic() || special(c))
        && nick.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || special(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_the_same() {
        assert!(Case::ASCII.same("Ada", "aDA") && !Case::ASCII.same("É", "é"));
        let odd = Case::new(|c| if c == '[' { '{' } else { c });
        assert!(odd.same("a[", "a{") && !odd.same("a", "A") && !odd.same("a", "ab"));
        assert_eq!(Case::ASCII.fold("AbÉ"), "abÉ");
    }

    #[test]
    fn nicks() {
        for good in ["a", "Ada", "[x]", "_", "a-1", "w`^{|}"] {
            assert!(is_nick(good, 9), "{good}");
        }
        for bad in ["", "1a", "-a", "a b", "a!b", "a@b", "é", "abcdefghij", "#a", "a\n", "a:"] {
            assert!(!is_nick(bad, 9), "{bad:?}");
        }
    }
}
