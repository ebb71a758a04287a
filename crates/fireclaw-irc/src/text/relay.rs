//! How much text a line holds once the server has put the sender before it.

use crate::message::{LINE_LEN, MAX_LINE_LEN};

/// The bytes around the text in a line as the server relays it:
/// `:nick!user@host PRIVMSG target :text` with CR and LF.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relay {
    /// The length of our nick.
    pub nick: usize,
    /// The length of our user name as shown, with the `~` it may have.
    pub user: usize,
    /// The length of our host as shown.
    pub host: usize,
    /// The longest line with CR and LF: 512, or what `LINELEN` says.
    pub line: usize,
}

impl Relay {
    /// The longest host that is shown (RFC 2812, 2.3.1).
    pub const MAX_HOST: usize = 63;
    /// The longest user name that servers are known to show.
    pub const MAX_USER: usize = 18;

    /// The worst that is to be expected before the server has shown us our own
    /// prefix, for a nick and a user name as sent.
    pub fn assumed(nick: &str, user: &str) -> Self {
        // A server may put a `~` before the user name, or one of its own there.
        let user = (user.len() + 1).max(Self::MAX_USER);
        Self { nick: nick.len(), user, host: Self::MAX_HOST, line: LINE_LEN }
    }

    /// How many bytes of text a `command` (PRIVMSG or NOTICE) to `target` can
    /// carry.
    pub fn budget(&self, command: &str, target: &str) -> usize {
        let names = self.nick + self.user + self.host + command.len() + target.len();
        let between = ":!@   :\r\n".len();
        self.line.min(MAX_LINE_LEN).saturating_sub(names + between)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_relayed_line_has_exactly_the_limit() {
        let relay = Relay { nick: 6, user: 4, host: 9, line: LINE_LEN };
        let text = "x".repeat(relay.budget("PRIVMSG", "#agents"));
        let relayed = format!(":worker!~bot@127.0.0.1 PRIVMSG #agents :{text}\r\n");
        assert_eq!(relayed.len(), 512);
    }

    #[test]
    fn never_below_zero() {
        let relay = Relay { nick: 500, user: 500, host: 500, line: LINE_LEN };
        assert_eq!(relay.budget("PRIVMSG", "#a"), 0);
    }
}
