//! Our nick: another one if it is taken, and the wanted one when it is free.

use std::time::{Duration, Instant};

use super::{Actions, Phase, Session, name, words};
use crate::client::event::Event;
use crate::message::Message;
use crate::{Error, Result, names};

/// How many nicks are tried before the connection is given up for now.
const MAX_ATTEMPTS: u32 = 10;

/// How long services have to free our nick before they are asked more bluntly.
const SERVICES_WAIT: Duration = Duration::from_secs(10);

/// The nick that the network's services answer to.
const SERVICES: &str = "NickServ";

/// The state of getting the wanted nick.
#[derive(Debug, Default)]
pub(super) struct Regain {
    /// Nicks tried while registering.
    attempts: u32,
    /// When to look next, while we have another nick.
    pub next: Option<Instant>,
    /// What services were asked.
    services: Services,
    /// Whether the owner asked for the nick and should hear if it is taken.
    asked: bool,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Services {
    #[default]
    NotAsked,
    Regain,
    Ghost,
}

impl Session {
    /// Wants another nick from now on.
    ///
    /// # Errors
    /// [`Error::Name`] if it is not valid here.
    pub fn set_nick(&mut self, nick: &str) -> Result<Actions> {
        let max = self.link.isupport.nick_len.unwrap_or(64);
        if !fireclaw_chat::is_nick(nick, max) {
            return Err(Error::name("nick", nick));
        }
        nick.clone_into(&mut self.wanted_nick);
        let mut out = Actions::default();
        if self.is_ready() && self.link.nick != nick {
            self.link.regain.asked = true;
            out.send("NICK", &[nick]);
        }
        Ok(out)
    }

    /// The wanted nick as the server would cut it.
    fn target(&self) -> &str {
        let len = self.link.isupport.nick_len.unwrap_or(usize::MAX).min(self.wanted_nick.len());
        self.wanted_nick.get(..len).unwrap_or(&self.wanted_nick)
    }

    fn has_target(&self) -> bool {
        self.link.is_me(self.target())
    }

    /// `431` to `433`, `436`, `437`: `client nick :words`.
    pub(super) fn on_nick_refused(
        &mut self,
        numeric: u16,
        message: &Message,
        now: Instant,
        out: &mut Actions,
    ) {
        let reason = words(message.trailing());
        if self.link.phase != Phase::Registering {
            // 437 is also about channels.
            if std::mem::take(&mut self.link.regain.asked) || numeric == 437 {
                out.emit(Event::Refused { target: name(message.param(1)), numeric, reason });
            }
            if !self.has_target() {
                self.link.regain.next = Some(now + self.config.timing.regain);
            }
            return;
        }
        if matches!(numeric, 431 | 432) {
            out.hold(format!("the server does not allow the nick {}: {reason}", self.link.nick));
            return;
        }
        self.link.regain.attempts += 1;
        if self.link.regain.attempts > MAX_ATTEMPTS {
            out.hold(format!("no nick like {} is free", self.wanted_nick));
            return;
        }
        self.link.nick = alternative(&self.wanted_nick, self.link.regain.attempts);
        out.send("NICK", &[&self.link.nick]);
    }

    /// Begins to wait for the wanted nick if we did not get it.
    pub(super) fn start_regain(&mut self, now: Instant, out: &mut Actions) {
        if self.has_target() {
            return;
        }
        if self.link.isupport.monitor {
            out.send("MONITOR", &["+", self.target()]);
        }
        self.tick_regain_at(now, out);
    }

    /// Looks for the wanted nick if it is time.
    pub(super) fn tick_regain(&mut self, now: Instant, out: &mut Actions) {
        if self.link.regain.next.is_some_and(|next| now >= next) {
            self.tick_regain_at(now, out);
        }
    }

    fn tick_regain_at(&mut self, now: Instant, out: &mut Actions) {
        if self.has_target() {
            self.link.regain.next = None;
            return;
        }
        let mut wait = self.config.timing.regain;
        // No password is sent: services know us by the account, and who only
        // calls himself like them learns nothing.
        if self.is_logged_in() {
            let verb = match self.link.regain.services {
                Services::NotAsked => {
                    self.link.regain.services = Services::Regain;
                    wait = wait.min(SERVICES_WAIT);
                    Some("REGAIN")
                }
                Services::Regain => {
                    self.link.regain.services = Services::Ghost;
                    Some("GHOST")
                }
                Services::Ghost => None,
            };
            if let Some(verb) = verb {
                out.send("PRIVMSG", &[SERVICES, &format!("{verb} {}", self.target())]);
            }
        }
        out.send("ISON", &[self.target()]);
        self.link.regain.next = Some(now + wait);
    }

    /// `303 client :nicks` of those asked for that are there.
    pub(super) fn on_ison(&mut self, message: &Message, out: &mut Actions) {
        let case = self.link.isupport.case;
        let taken = message.trailing().split(' ').any(|nick| case.same(nick, self.target()));
        if !taken {
            self.take_target(out);
        }
    }

    /// `730` and `731`: watched nicks that came or went, as `nick[!user@host],…`.
    pub(super) fn on_monitor(&mut self, message: &Message, gone: bool, out: &mut Actions) {
        let case = self.link.isupport.case;
        let mut nicks = message.trailing().split(',');
        let named = |nick: &str| case.same(nick.split('!').next().unwrap_or(nick), self.target());
        if gone && nicks.any(named) {
            self.take_target(out);
        }
    }

    /// Somebody has this nick no longer.
    pub(super) fn on_nick_free(&mut self, nick: &str, out: &mut Actions) {
        if self.link.isupport.case.same(nick, self.target()) {
            self.take_target(out);
        }
    }

    fn take_target(&self, out: &mut Actions) {
        if self.is_ready() && !self.has_target() {
            out.send("NICK", &[self.target()]);
        }
    }

    /// `:old!user@host NICK new`.
    pub(super) fn on_nick(&mut self, message: &Message, out: &mut Actions) {
        let (from, to) = (message.nick().to_owned(), message.param(0));
        if from.is_empty() || !names::is_recipient(to) {
            return;
        }
        let is_self = self.link.is_me(&from);
        self.link.channels.rename(&from, to, self.link.isupport.case);
        if is_self {
            to.clone_into(&mut self.link.nick);
            if self.has_target()
                && self.link.regain.next.take().is_some()
                && self.link.isupport.monitor
            {
                out.send("MONITOR", &["-", self.target()]);
            }
            self.link.regain.asked = false;
        }
        out.emit(Event::NickChanged { from: name(&from), to: to.to_owned(), is_self });
        if !is_self {
            self.on_nick_free(&from, out);
        }
    }
}

/// Another nick for the n-th attempt: with underscores, then with a digit. The
/// server's limit is not known yet, so it is no longer than nine characters (RFC
/// 2812, 1.2.1) or than the wanted one.
fn alternative(wanted: &str, attempt: u32) -> String {
    let suffix = match attempt {
        0..=3 => "_".repeat(attempt as usize),
        n => (n - 4).to_string(),
    };
    let max = wanted.len().max(9);
    let base = wanted.get(..wanted.len().min(max - suffix.len())).unwrap_or("bot");
    format!("{base}{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alternatives() {
        let all = |nick| (1..=5).map(|n| alternative(nick, n)).collect::<Vec<_>>();
        assert_eq!(all("worker"), ["worker_", "worker__", "worker___", "worker0", "worker1"]);
        assert_eq!(
            all("researcher")[..4],
            ["researche_", "research__", "researc___", "researche0"]
        );
        for attempt in 1..=MAX_ATTEMPTS {
            assert!(fireclaw_chat::is_nick(&alternative("a", attempt), 9));
        }
    }
}
