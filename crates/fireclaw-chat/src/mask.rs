//! Masks of people: `nick!user@host` with `*` and `?`.

use std::fmt;

use crate::{Case, Sender};

/// A mask. Each of its parts is compared with the same part of a sender, so
/// that a user name with an `@` or `!` cannot pass for a host or nick.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask {
    nick: String,
    user: String,
    host: String,
}

/// A text is not `nick!user@host`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a mask has the form nick!user@host, with * and ? for what may differ")]
pub struct InvalidMask;

/// The longest mask, in bytes; no sender is longer.
const MAX_LEN: usize = 512;

impl Mask {
    /// Reads a mask.
    ///
    /// # Errors
    /// [`InvalidMask`] if a part is missing or empty, or it has spaces or
    /// control characters, or is longer than a line.
    pub fn parse(text: &str) -> Result<Self, InvalidMask> {
        let parts = text.split_once('!').and_then(|(nick, rest)| {
            let (user, host) = rest.rsplit_once('@')?;
            Some([nick, user, host])
        });
        let Some(parts) = parts else { return Err(InvalidMask) };
        let odd = |c: char| c.is_whitespace() || c.is_control();
        if text.len() > MAX_LEN || parts.iter().any(|p| p.is_empty() || p.contains(odd)) {
            return Err(InvalidMask);
        }
        let [nick, user, host] = parts.map(str::to_owned);
        Ok(Self { nick, user, host })
    }

    /// Whether the sender has this mask. A part that the network did not give
    /// matches `*` only.
    pub fn matches(&self, sender: &Sender, case: Case) -> bool {
        matches(&self.nick, &sender.nick, case)
            && matches(&self.user, &sender.user, Case::ASCII)
            && matches(&self.host, &sender.host, Case::ASCII)
    }
}

impl fmt::Display for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}!{}@{}", self.nick, self.user, self.host)
    }
}

/// Whether `text` has the pattern, where `*` is any text and `?` one character.
///
/// Only the last `*` is ever taken up again, so the time is at most the product
/// of both lengths, never exponential.
fn matches(pattern: &str, text: &str, case: Case) -> bool {
    let pattern: Vec<char> = pattern.chars().map(|c| case.lower(c)).collect();
    let text: Vec<char> = text.chars().map(|c| case.lower(c)).collect();
    let (mut p, mut t) = (0, 0);
    // Where to go on if the present attempt fails: after the `*`, one further.
    let mut again = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                p += 1;
                again = Some((p, t));
            }
            Some(c) if *c == '?' || *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match again {
                Some((after, from)) => {
                    again = Some((after, from + 1));
                    (p, t) = (after, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hit(mask: &str, sender: &str) -> bool {
        let (nick, rest) = sender.split_once('!').unwrap_or((sender, ""));
        let (user, host) = rest.rsplit_once('@').unwrap_or_default();
        let [nick, user, host] = [nick, user, host].map(str::to_owned);
        let sender = Sender { nick, user, host, account: None };
        let case = Case::new(|c| if c == '[' { '{' } else { c.to_ascii_lowercase() });
        Mask::parse(mask).unwrap().matches(&sender, case)
    }

    #[test]
    fn masks() {
        assert!(hit("*!*@*", "ada!~a@example.org"));
        assert!(hit("ADA!*@*.example.ORG", "ada!~a@home.example.org"));
        assert!(hit("a?a!~?@127.0.0.*", "ada!~a@127.0.0.1"));
        assert!(hit("*a*a*!*@*", "xaxa!u@h"));
        assert!(hit("a[!*@*", "A{!u@h"));
        assert!(!hit("ada!*@*.example.org", "ada!~a@example.org"));
        assert!(!hit("ada!*@host", "ada"));
        assert!(!hit("a?a!*@*", "aa!u@h"));
    }

    #[test]
    fn a_user_name_cannot_pass_for_a_host() {
        assert!(!hit("*!*@trusted.org", "eve!x@trusted.org@evil.org"));
        assert!(!hit("ada!*@*", "eve!ada!x@evil.org"));
    }

    #[test]
    fn not_masks() {
        for bad in ["", "ada", "ada@host", "ada!user", "!u@h", "a!@h", "a!u@", "a b!u@h", "*!*@\n"]
        {
            assert_eq!(Mask::parse(bad), Err(InvalidMask), "{bad:?}");
        }
    }

    #[test]
    fn a_malicious_mask_takes_no_time() {
        let mask = format!("{}b!*@*", "*a".repeat(200));
        assert!(!hit(&mask, &format!("{}!u@h", "a".repeat(400))));
    }

    proptest! {
        #[test]
        fn agrees_with_the_plain_definition(pattern in "[ab*?]{0,8}", text in "[ab]{0,8}") {
            fn plain(p: &[u8], t: &[u8]) -> bool {
                match (p.first(), t.first()) {
                    (None, None) => true,
                    (Some(b'*'), _) => plain(&p[1..], t) || (!t.is_empty() && plain(p, &t[1..])),
                    (Some(b'?'), Some(_)) => plain(&p[1..], &t[1..]),
                    (Some(a), Some(b)) => a == b && plain(&p[1..], &t[1..]),
                    _ => false,
                }
            }
            prop_assert_eq!(
                matches(&pattern, &text, Case::ASCII),
                plain(pattern.as_bytes(), text.as_bytes())
            );
        }
    }
}
