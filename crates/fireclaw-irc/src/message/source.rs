//! Who a message comes from.

use std::fmt;

/// The source (prefix) of a message: a server, or a user as `nick!user@host`.
///
/// A source is what the server says; whether to believe it is a question of
/// whether to believe the server.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Source {
    /// The nick, or the name of a server.
    pub nick: String,
    /// The user name, often with `~` before it; empty if not given.
    pub user: String,
    /// The host or what the server shows instead; empty if not given.
    pub host: String,
}

impl Source {
    /// Takes `nick!user@host`, `nick@host` or a bare name apart. Never fails:
    /// what is missing stays empty.
    pub fn parse(text: &str) -> Self {
        // A nick has neither `!` nor `@`, a host no `@`; a user name might.
        let (nick, rest) = match text.split_once('!') {
            Some((nick, rest)) => (nick, rest),
            None => {
                text.split_once('@').map_or((text, ""), |(nick, _)| (nick, &text[nick.len()..]))
            }
        };
        let (user, host) = rest.rsplit_once('@').unwrap_or((rest, ""));
        Self { nick: nick.to_owned(), user: user.to_owned(), host: host.to_owned() }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.nick)?;
        if !self.user.is_empty() {
            write!(f, "!{}", self.user)?;
        }
        if !self.host.is_empty() {
            write!(f, "@{}", self.host)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> (String, String, String) {
        let Source { nick, user, host } = Source::parse(text);
        (nick, user, host)
    }

    #[test]
    fn users_and_servers() {
        let own = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        assert_eq!(parts("ada!~a@example.org"), own("ada", "~a", "example.org"));
        assert_eq!(parts("irc.example.org"), own("irc.example.org", "", ""));
        assert_eq!(parts("ada@example.org"), own("ada", "", "example.org"));
        assert_eq!(parts("ada!a@b@example.org"), own("ada", "a@b", "example.org"));
        assert_eq!(parts("ada!a"), own("ada", "a", ""));
        assert_eq!(parts(""), own("", "", ""));
    }
}
