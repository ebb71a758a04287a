//! What templates, agents and nicks may be called.

use fireclaw_chat::is_nick;

/// The longest name of an agent or template, and the longest nick, in characters. Most
/// IRC servers take 30.
pub const MAX_NAME: usize = 30;

/// What the name of an agent that a schedule starts ends in.
pub const SCHEDULED: &str = "-cron";

/// Names that mean something else: the overseer, services of IRC networks that people
/// trust with passwords, and words that address everybody.
pub const RESERVED: [&str; 17] = [
    "overseer",
    "fireclaw",
    "nickserv",
    "chanserv",
    "memoserv",
    "operserv",
    "botserv",
    "hostserv",
    "saslserv",
    "authserv",
    "global",
    "anonymous",
    "all",
    "everyone",
    "here",
    "agents",
    "control",
];

/// Why something cannot be a name. Its text is the end of a sentence that begins with the
/// name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// Too short or too long.
    #[error("must have 1 to {MAX_NAME} characters")]
    Length,
    /// A character that an agent's name does not have.
    #[error("may have only the letters a to z and A to Z, digits, `-` and `_`")]
    Characters,
    /// It would be taken for an option, or is hidden among files.
    #[error("must begin with a letter, a digit or `_`")]
    Start,
    /// Not a nick by RFC 2812.
    #[error(
        "must begin with a letter or one of []\\`_^{{|}} and go on with these, digits and `-` (RFC 2812)"
    )]
    Nick,
    /// See [`RESERVED`].
    #[error("is reserved")]
    Reserved,
}

/// Checks the name of an agent or template: 1 to [`MAX_NAME`] ASCII letters, digits, `-`
/// and `_`, not beginning with `-`, and not [`RESERVED`]. It is safe as part of a path.
///
/// # Errors
/// The first rule that does not hold.
pub fn check_agent(name: &str) -> Result<(), InvalidName> {
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')) {
        return Err(InvalidName::Characters);
    }
    if name.is_empty() || name.len() > MAX_NAME {
        return Err(InvalidName::Length);
    }
    if name.starts_with('-') {
        return Err(InvalidName::Start);
    }
    not_reserved(name)
}

/// Checks a nick: by RFC 2812, 2.3.1, but up to [`MAX_NAME`] characters, and not
/// [`RESERVED`] in any case.
///
/// # Errors
/// The first rule that does not hold.
pub fn check_nick(nick: &str) -> Result<(), InvalidName> {
    if nick.is_empty() || nick.chars().count() > MAX_NAME {
        return Err(InvalidName::Length);
    }
    if !is_nick(nick, MAX_NAME) {
        return Err(InvalidName::Nick);
    }
    not_reserved(nick)
}

fn not_reserved(name: &str) -> Result<(), InvalidName> {
    match RESERVED.iter().any(|reserved| reserved.eq_ignore_ascii_case(name)) {
        true => Err(InvalidName::Reserved),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_of_agents() {
        for good in ["a", "worker", "worker-2", "a_B", "7up", "_x", &"a".repeat(30)] {
            assert_eq!(check_agent(good), Ok(()), "{good}");
        }
        for (bad, why) in [
            ("", InvalidName::Length),
            (&*"a".repeat(31), InvalidName::Length),
            ("-a", InvalidName::Start),
            ("a b", InvalidName::Characters),
            ("../a", InvalidName::Characters),
            ("a.b", InvalidName::Characters),
            ("wörker", InvalidName::Characters),
            ("a\0", InvalidName::Characters),
            ("Overseer", InvalidName::Reserved),
        ] {
            assert_eq!(check_agent(bad), Err(why), "{bad:?}");
        }
    }

    #[test]
    fn nicks() {
        for good in ["a", "research", "[x]", "_", "a-1", &"a".repeat(30)] {
            assert_eq!(check_nick(good), Ok(()), "{good}");
        }
        for (bad, why) in [
            ("", InvalidName::Length),
            (&*"a".repeat(31), InvalidName::Length),
            ("1a", InvalidName::Nick),
            ("-a", InvalidName::Nick),
            ("a b", InvalidName::Nick),
            ("a!b", InvalidName::Nick),
            ("é", InvalidName::Nick),
            ("NickServ", InvalidName::Reserved),
        ] {
            assert_eq!(check_nick(bad), Err(why), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn an_agents_name_is_one_part_of_a_path(name in "\\PC{0,40}|[a-zA-Z0-9_./-]{0,40}") {
            if check_agent(&name).is_ok() {
                prop_assert_eq!(std::path::Path::new(&name).components().count(), 1);
                prop_assert!(!name.starts_with('.') && name.len() <= MAX_NAME);
            }
        }
    }
}
