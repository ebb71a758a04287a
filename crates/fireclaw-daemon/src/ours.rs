//! Which senders on the chat network are connections of our own.
//!
//! What an agent says is a model's or a guest's word, so it commands nothing, whatever rights
//! its nick, account or rank would give it. In doubt a sender counts as ours.

use std::collections::HashMap;
use std::time::Duration;

use fireclaw_chat::{Case, Sender};
use tokio::time::Instant;

/// How long a nick counts as ours after we had it: what was said under it may still be on
/// its way, as each connection hears the server in its own time.
const KEPT: Duration = Duration::from_secs(60);

/// The overseer's own connection among ours: no agent can have this name.
pub const OVERSEER: &str = "";

/// The connections that we have, and those that we had until just now.
#[derive(Debug, Default)]
pub struct Ours {
    /// By what it is for: an agent's name, or nothing for the overseer's own.
    connections: HashMap<String, Connection>,
    /// Nicks that we had, and until when they count.
    before: Vec<(String, Instant)>,
}

#[derive(Debug, Default)]
struct Connection {
    nick: String,
    /// The user and host that the server shows for it.
    shown: Option<(String, String)>,
}

impl Ours {
    /// A connection has this nick from now on, or asks for it.
    pub fn has_nick(&mut self, connection: &str, nick: &str, now: Instant) {
        let known = self.connections.entry(connection.to_owned()).or_default();
        let before = std::mem::replace(&mut known.nick, nick.to_owned());
        self.retire(before, now);
    }

    /// The server shows a connection like this.
    pub fn is_shown(&mut self, connection: &str, sender: &Sender) {
        let known = self.connections.entry(connection.to_owned()).or_default();
        if !sender.user.is_empty() && !sender.host.is_empty() {
            known.shown = Some((sender.user.clone(), sender.host.clone()));
        }
    }

    /// A connection has ended.
    pub fn is_gone(&mut self, connection: &str, now: Instant) {
        if let Some(known) = self.connections.remove(connection) {
            self.retire(known.nick, now);
        }
    }

    fn retire(&mut self, nick: String, now: Instant) {
        self.before.retain(|(_, until)| *until > now);
        if !nick.is_empty() {
            self.before.push((nick, now + KEPT));
        }
    }

    /// The agent that has this nick now.
    pub fn with_nick(&self, nick: &str, case: Case) -> Option<&str> {
        let mut agents = self.connections.iter().filter(|(name, _)| *name != OVERSEER);
        agents.find(|(_, known)| case.same(&known.nick, nick)).map(|(name, _)| name.as_str())
    }

    /// Whether a sender is one of our connections. `is_other` says that the server proved
    /// who it is, by an account that is not ours: then the same user and host may be a
    /// person on this host.
    pub fn includes(&self, sender: &Sender, is_other: bool, case: Case, now: Instant) -> bool {
        let shown = |known: &Connection| {
            let (user, host) = (&sender.user, &sender.host);
            known.shown.as_ref().is_some_and(|(u, h)| u == user && h.eq_ignore_ascii_case(host))
        };
        let known = self.connections.values();
        let mut nicks = known
            .map(|known| &known.nick)
            .chain(self.before.iter().filter(|(_, until)| *until > now).map(|(nick, _)| nick));
        // A server's own words have no user, and come from no person.
        sender.user.is_empty()
            || nicks.any(|nick| case.same(nick, &sender.nick))
            || (!is_other && self.connections.values().any(shown))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sender(text: &str) -> Sender {
        let (nick, rest) = text.split_once('!').unwrap_or((text, ""));
        let (user, host) = rest.rsplit_once('@').unwrap_or_default();
        let [nick, user, host] = [nick, user, host].map(str::to_owned);
        Sender { nick, user, host, account: None }
    }

    const CASE: Case = Case::ASCII;

    #[test]
    fn a_connection_is_ours_by_nick_and_by_what_the_server_shows() {
        let now = Instant::now();
        let mut ours = Ours::default();
        ours.has_nick("worker", "worker", now);
        let is_ours = |ours: &Ours, text: &str, later: u64| {
            ours.includes(&sender(text), false, CASE, now + Duration::from_secs(later))
        };
        assert!(is_ours(&ours, "Worker!~x@elsewhere", 0));
        assert!(!is_ours(&ours, "ann!~fireclaw@host", 0));
        // A server may rename it before it hears of that itself.
        ours.is_shown("worker", &sender("worker!~fireclaw@host"));
        assert!(is_ours(&ours, "Guest123!~fireclaw@HOST", 0));
        assert!(!is_ours(&ours, "ann!~ann@host", 0));
        assert!(!is_ours(&ours, "ann!~fireclaw@other", 0));
        // A nick that it had counts for a while.
        ours.has_nick("worker", "worker_", now);
        assert!(is_ours(&ours, "worker!~x@y", 59) && is_ours(&ours, "worker_!~x@y", 59));
        assert!(!is_ours(&ours, "worker!~x@y", 61));
        ours.is_gone("worker", now);
        assert!(is_ours(&ours, "worker_!~x@y", 59));
        assert!(!is_ours(&ours, "worker_!~x@y", 61));
    }

    #[test]
    fn who_has_proved_to_be_somebody_else_may_look_like_us() {
        let now = Instant::now();
        let mut ours = Ours::default();
        ours.has_nick("worker", "worker", now);
        ours.is_shown("worker", &sender("worker!ann@host"));
        let person = sender("ann!ann@host");
        assert!(ours.includes(&person, false, CASE, now));
        assert!(!ours.includes(&person, true, CASE, now));
        assert!(ours.includes(&sender("worker!ann@host"), true, CASE, now));
    }

    #[test]
    fn a_sender_without_a_user_is_no_person() {
        let ours = Ours::default();
        assert!(ours.includes(&sender("irc.example.org"), true, CASE, Instant::now()));
    }
}
