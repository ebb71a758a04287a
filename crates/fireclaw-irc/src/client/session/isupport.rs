//! What the server says about itself (`005`, RPL_ISUPPORT).
//!
//! Source: [Modern IRC](https://modern.ircdocs.horse/#rplisupport-parameters).

use crate::client::config::{CHANNEL_TYPES, MAX_CHANNEL};
use crate::client::event::Rank;
use crate::message::{LINE_LEN, MAX_LINE_LEN};
use crate::names::CaseMapping;

/// The server's parameters, each with what holds if it is not announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Isupport {
    /// The longest nick in bytes, if announced.
    pub nick_len: Option<usize>,
    /// The longest channel name in bytes.
    pub channel_len: usize,
    /// Which names are the same.
    pub case: CaseMapping,
    /// What a channel's name starts with.
    pub channel_types: String,
    /// Modes that give a rank, and the sign of each, greatest first.
    pub prefixes: Vec<(char, char)>,
    /// Other channel modes: lists, always with a parameter, with one when set,
    /// never with one.
    pub channel_modes: [String; 4],
    /// The longest line in bytes with CR and LF.
    pub line_len: usize,
    /// The user mode that marks a bot.
    pub bot: Option<char>,
    /// Whether the server reports nicks that become free (`MONITOR`).
    pub monitor: bool,
    /// Signs that may stand before a channel to mean only some of its members.
    pub status_message: String,
    /// Whether the client tag `+typing` is blocked.
    pub typing_denied: bool,
}

impl Default for Isupport {
    fn default() -> Self {
        Self {
            nick_len: None,
            channel_len: MAX_CHANNEL,
            case: CaseMapping::default(),
            channel_types: CHANNEL_TYPES.to_owned(),
            prefixes: vec![('o', '@'), ('v', '+')],
            channel_modes: ["beI", "k", "l", "imnpst"].map(str::to_owned),
            line_len: LINE_LEN,
            bot: None,
            monitor: false,
            status_message: String::new(),
            typing_denied: false,
        }
    }
}

impl Isupport {
    /// Takes one token, such as `NICKLEN=31` or `-NICKLEN`.
    pub fn set(&mut self, token: &str) {
        let default = Self::default();
        if let Some(key) = token.strip_prefix('-') {
            return self.apply(key, "", &default);
        }
        let (key, value) = token.split_once('=').unwrap_or((token, ""));
        self.apply(key, value, &default);
    }

    fn apply(&mut self, key: &str, value: &str, default: &Self) {
        let number = |range: std::ops::RangeInclusive<usize>| {
            value.parse::<usize>().ok().map(|n| n.clamp(*range.start(), *range.end()))
        };
        match key {
            "NICKLEN" | "MAXNICKLEN" => self.nick_len = number(1..=128),
            "CHANNELLEN" => self.channel_len = number(2..=MAX_CHANNEL).unwrap_or(MAX_CHANNEL),
            "LINELEN" => self.line_len = number(LINE_LEN..=MAX_LINE_LEN).unwrap_or(LINE_LEN),
            "CASEMAPPING" if value.is_empty() => self.case = default.case,
            "CASEMAPPING" => self.case = CaseMapping::named(value),
            "CHANTYPES" if value.is_empty() => {
                self.channel_types.clone_from(&default.channel_types)
            }
            "CHANTYPES" => {
                let odd = |c: &char| !c.is_alphanumeric() && !c.is_control();
                self.channel_types = value.chars().filter(odd).take(8).collect();
            }
            "PREFIX" => match read_prefixes(value) {
                Some(prefixes) => self.prefixes = prefixes,
                None => self.prefixes.clone_from(&default.prefixes),
            },
            "CHANMODES" => {
                let mut kinds = value.split(',').map(str::to_owned);
                for (kind, default) in self.channel_modes.iter_mut().zip(&default.channel_modes) {
                    *kind = kinds.next().filter(|_| !value.is_empty()).unwrap_or(default.clone());
                }
            }
            "BOT" => self.bot = value.chars().next().filter(char::is_ascii_alphabetic),
            "MONITOR" => self.monitor = !value.is_empty(),
            "STATUSMSG" => self.status_message = value.chars().take(8).collect(),
            "CLIENTTAGDENY" => {
                let allowed = value.split(',').any(|tag| tag == "-typing");
                self.typing_denied =
                    value.split(',').any(|t| t == "typing" || t == "*") && !allowed;
            }
            _ => {}
        }
    }

    /// The rank that a set of modes gives.
    pub fn rank(&self, modes: &str) -> Rank {
        let place = |mode| self.prefixes.iter().position(|(m, _)| *m == mode);
        let operator = place('o');
        let one = |mode: char| match (place(mode), operator) {
            (Some(at), Some(operator)) if at <= operator => Rank::Operator,
            (Some(_), _) if mode == 'h' => Rank::HalfOperator,
            (Some(_), _) if mode == 'v' => Rank::Voice,
            _ => Rank::Member,
        };
        modes.chars().map(one).max().unwrap_or_default()
    }

    /// Whether a name is of a channel here.
    pub fn is_channel(&self, name: &str) -> bool {
        name.starts_with(|c| self.channel_types.contains(c))
    }
}

/// `(ov)@+`, or nothing where there are no ranks.
fn read_prefixes(value: &str) -> Option<Vec<(char, char)>> {
    let (modes, signs) = value.strip_prefix('(')?.split_once(')')?;
    (modes.chars().count() == signs.chars().count())
        .then(|| modes.chars().zip(signs.chars()).take(16).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(tokens: &str) -> Isupport {
        let mut isupport = Isupport::default();
        tokens.split(' ').for_each(|token| isupport.set(token));
        isupport
    }

    #[test]
    fn ngircd() {
        let isupport = of("RFC2812 CASEMAPPING=ascii PREFIX=(qaohv)~&@%+ CHANTYPES=#&+ \
                           CHANMODES=beI,k,l,imMnOPQRstVz CHANNELLEN=50 NICKLEN=31 MODES=5");
        assert_eq!(isupport.nick_len, Some(31));
        assert_eq!(isupport.case, CaseMapping::Ascii);
        assert!(isupport.is_channel("+a") && !isupport.is_channel("!a"));
        assert_eq!(isupport.rank("q"), Rank::Operator);
        assert_eq!(isupport.rank("vo"), Rank::Operator);
        assert_eq!(isupport.rank("hv"), Rank::HalfOperator);
        assert_eq!(isupport.rank("v"), Rank::Voice);
        assert_eq!(isupport.rank("xb"), Rank::Member);
    }

    #[test]
    fn limits_are_believed_within_reason() {
        let isupport = of("LINELEN=999999 NICKLEN=0 CHANNELLEN=junk BOT=B MONITOR=100");
        assert_eq!((isupport.line_len, isupport.nick_len), (MAX_LINE_LEN, Some(1)));
        assert_eq!((isupport.channel_len, isupport.bot), (MAX_CHANNEL, Some('B')));
        assert!(isupport.monitor);
        assert_eq!(of("LINELEN=2 BOT=1").line_len, LINE_LEN);
        assert_eq!(of("NICKLEN=31 -NICKLEN PREFIX=(x -PREFIX BOT=B -BOT"), Isupport::default());
    }

    #[test]
    fn typing() {
        assert!(of("CLIENTTAGDENY=*").typing_denied);
        assert!(!of("CLIENTTAGDENY=*,-typing").typing_denied);
        assert!(of("CLIENTTAGDENY=x,typing").typing_denied);
    }

    proptest! {
        #[test]
        fn any_token_is_taken_without_panic(tokens in prop::collection::vec(any::<String>(), 0..9)) {
            let mut isupport = Isupport::default();
            tokens.iter().for_each(|token| isupport.set(token));
            for key in ["PREFIX", "CHANMODES", "CHANTYPES", "BOT", "NICKLEN", "LINELEN"] {
                tokens.iter().for_each(|token| isupport.set(&format!("{key}={token}")));
            }
            prop_assert!((LINE_LEN..=MAX_LINE_LEN).contains(&isupport.line_len));
        }
    }
}
