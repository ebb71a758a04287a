//! What a client is told about its server and itself.

use std::path::PathBuf;
use std::time::Duration;

use fireclaw_chat::is_nick;
use fireclaw_host::Secret;

use crate::names::is_channel;
use crate::text::Formatting;
use crate::{Error, Result};

/// The settings of one client. [`Config::new`] has the defaults.
#[derive(Debug, Clone)]
pub struct Config {
    /// The server's name or address.
    pub host: String,
    /// Its TCP port: usually 6667, with TLS 6697.
    pub port: u16,
    /// TLS, which starts with the connection; none if `None`.
    pub tls: Option<Tls>,
    /// The nick that is wanted, and taken again when it becomes free.
    pub nick: String,
    /// The user name, which most servers show as `~user`.
    pub user: String,
    /// The real name, which servers show on request.
    pub realname: String,
    /// The server's password (`PASS`).
    pub password: Option<Secret>,
    /// The account to log in to before anything else.
    pub sasl: Option<Sasl>,
    /// The channels to join after each connecting.
    pub channels: Vec<String>,
    /// Whether to tell the server that this is a bot.
    pub bot: bool,
    /// How many earlier lines to ask for in each channel, where the server
    /// keeps them; 0 for none.
    pub history: u16,
    /// Whether formatting codes may stay in what is said.
    pub formatting: Formatting,
    /// How fast to send.
    pub rate: Rate,
    /// How long to wait for what.
    pub timing: Timing,
    /// The answer to CTCP VERSION.
    pub version: String,
    /// Whether lines that somebody sends within a moment come as one message, as those of a
    /// paste that the client had to split. Each message then comes that moment later.
    pub joins_pastes: bool,
}

/// How a server proves who it is.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// Certificates (PEM) to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// The name in the server's certificate, if it is not the host's.
    pub server_name: Option<String>,
}

/// SASL PLAIN (RFC 4616).
#[derive(Debug, Clone)]
pub struct Sasl {
    /// The account.
    pub account: String,
    /// Its password.
    pub password: Secret,
}

/// A token bucket: `burst` lines at once, then one for each `interval`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Lines at once; at least 1.
    pub burst: u32,
    /// The time between lines after that; zero for no limit.
    pub interval: Duration,
}

impl Default for Rate {
    /// What RFC 2813, 5.8, allows without a penalty.
    fn default() -> Self {
        Self { burst: 5, interval: Duration::from_secs(2) }
    }
}

impl Rate {
    /// For a server of one's own, without penalties.
    pub const PRIVATE: Self = Self { burst: 50, interval: Duration::from_millis(20) };
}

/// How long to wait for what.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// For the TCP connection and the TLS handshake.
    pub connect: Duration,
    /// For the server's welcome.
    pub register: Duration,
    /// Silence of the server after which it is asked for a sign of life.
    pub idle: Duration,
    /// For that sign.
    pub pong: Duration,
    /// Before the first attempt to connect again; it doubles with each, and
    /// varies by a half so that many bots do not come at once.
    pub retry_first: Duration,
    /// The most before an attempt to connect again.
    pub retry_max: Duration,
    /// Before the first attempt to connect again after the server refused us; it doubles
    /// with each. Servers that count attempts do so over a minute or so.
    pub refused_first: Duration,
    /// The most before such an attempt: bans are for hours or for ever.
    pub refused_max: Duration,
    /// How long a connection must stand for the next retry to be the first.
    pub stable: Duration,
    /// Between looks whether the wanted nick is free.
    pub regain: Duration,
    /// For the server to close the connection after a QUIT.
    pub quit: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(20),
            register: Duration::from_secs(60),
            idle: Duration::from_secs(60),
            pong: Duration::from_secs(30),
            retry_first: Duration::from_millis(500),
            retry_max: Duration::from_secs(300),
            refused_first: Duration::from_secs(120),
            refused_max: Duration::from_secs(60 * 60),
            stable: Duration::from_secs(60),
            regain: Duration::from_secs(30),
            quit: Duration::from_secs(5),
        }
    }
}

/// The longest nick that any server is expected to allow, in bytes.
const MAX_NICK: usize = 64;
/// The longest channel name that any server is expected to allow, in bytes.
pub(crate) const MAX_CHANNEL: usize = 200;
/// The longest of the other words, in bytes: their lines must fit 512.
const MAX_WORDS: usize = 300;
/// The most lines at once, and the longest of all waits: what is beyond is a
/// mistake, and moments beyond the clock's range cannot be reckoned with.
const MAX_BURST: u32 = 10_000;
const MAX_WAIT: Duration = Duration::from_secs(24 * 60 * 60);
/// All that a channel's name may start with before the server has said what
/// it allows (RFC 2812, 1.3).
pub(crate) const CHANNEL_TYPES: &str = "#&+!";

impl Config {
    /// A bot of the given nick on a server, without TLS.
    pub fn new(host: impl Into<String>, port: u16, nick: impl Into<String>) -> Self {
        let nick = nick.into();
        Self {
            host: host.into(),
            port,
            tls: None,
            user: "fireclaw".to_owned(),
            realname: nick.clone(),
            nick,
            password: None,
            sasl: None,
            channels: Vec::new(),
            bot: true,
            history: 0,
            formatting: Formatting::default(),
            rate: Rate::default(),
            timing: Timing::default(),
            version: concat!("Fireclaw ", env!("CARGO_PKG_VERSION")).to_owned(),
            joins_pastes: false,
        }
    }

    /// Whether every setting can be sent.
    pub(super) fn check(&self) -> Result<()> {
        let wrong = |setting, reason: &str| Err(Error::Config { setting, reason: reason.into() });
        if !is_nick(&self.nick, MAX_NICK) {
            return Err(Error::name("nick", &self.nick));
        }
        if let Some(bad) = self.channels.iter().find(|c| !is_channel(c, CHANNEL_TYPES, MAX_CHANNEL))
        {
            return Err(Error::name("channel", bad));
        }
        let odd = |c: char| c.is_control() || c.is_whitespace() || matches!(c, '@' | '!' | ':');
        if self.user.is_empty() || self.user.len() > 32 || self.user.contains(odd) {
            return wrong("user", "it must be one word of at most 32 bytes without `@`, `!`, `:`");
        }
        for (setting, words) in [
            ("realname", Some(self.realname.as_str())),
            ("version", Some(self.version.as_str())),
            ("password", self.password.as_ref().map(Secret::reveal)),
            ("sasl", self.sasl.as_ref().map(|sasl| sasl.account.as_str())),
            ("sasl", self.sasl.as_ref().map(|sasl| sasl.password.reveal())),
        ] {
            let Some(words) = words else { continue };
            if words.is_empty() || words.len() > MAX_WORDS || words.contains(char::is_control) {
                return wrong(setting, "it is empty, too long, or has control characters");
            }
        }
        if self.sasl.is_some() && self.tls.is_none() && !is_loopback(&self.host) {
            return wrong("sasl", "without TLS the password would be sent in clear text");
        }
        let Rate { burst, interval } = self.rate;
        if !(1..=MAX_BURST).contains(&burst) || interval > MAX_WAIT {
            return wrong("rate", "it must be a burst of 1 to 10000 lines, and at most a day");
        }
        let Timing {
            connect,
            register,
            idle,
            pong,
            retry_first,
            retry_max,
            refused_first,
            refused_max,
            stable,
            regain,
            quit,
        } = self.timing;
        let refused = [refused_first, refused_max];
        let waits = [connect, register, idle, pong, retry_first, retry_max, regain, quit];
        let waits = [&waits[..], &refused].concat();
        if waits.contains(&Duration::ZERO) || waits.iter().chain([&stable]).any(|w| *w > MAX_WAIT) {
            return wrong("timing", "each must be more than nothing and at most a day");
        }
        Ok(())
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut Config)) -> String {
        let mut config = Config::new("irc.example.org", 6667, "worker");
        config.check().unwrap();
        change(&mut config);
        config.check().unwrap_err().to_string()
    }

    #[test]
    fn what_cannot_be_sent_is_refused() {
        assert!(refused(|c| c.nick = "a b".into()).contains("not a valid IRC nick"));
        assert!(refused(|c| c.channels = vec!["agents".into()]).contains("IRC channel"));
        assert!(refused(|c| c.user = "a@b".into()).contains("`user`"));
        assert!(refused(|c| c.realname = "a\r\nQUIT".into()).contains("`realname`"));
        assert!(refused(|c| c.password = Some(Secret::new("a\n"))).contains("`password`"));
        assert!(refused(|c| c.rate.burst = 0).contains("`rate`"));
        assert!(refused(|c| c.rate.interval = Duration::MAX).contains("`rate`"));
        assert!(refused(|c| c.timing.regain = Duration::ZERO).contains("`timing`"));
        assert!(refused(|c| c.timing.stable = Duration::MAX).contains("`timing`"));
    }

    #[test]
    fn no_account_password_goes_out_in_clear_text() {
        let sasl = Sasl { account: "bot".into(), password: Secret::new("hunter2") };
        let reason = refused(|c| c.sasl = Some(sasl.clone()));
        assert!(reason.contains("TLS") && !reason.contains("hunter2"), "{reason}");
        let local = Config { sasl: Some(sasl), ..Config::new("127.0.0.1", 6667, "a") };
        local.check().unwrap();
        assert!(!format!("{local:?}").contains("hunter2"));
    }
}
