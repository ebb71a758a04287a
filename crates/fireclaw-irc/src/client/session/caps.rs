//! Capability negotiation (IRCv3 `CAP LS 302`).

use super::{Actions, Phase, Session};
use crate::message::Message;

/// What is asked for where the server has it. `echo-message` is left out: what
/// we say is known to us.
const WANTED: [&str; 8] = [
    "account-notify",
    "account-tag",
    "batch",
    "chghost",
    "extended-join",
    "message-tags",
    "multi-prefix",
    "server-time",
];

/// Earlier lines, on request; the second name is that of the draft.
const HISTORY: [&str; 2] = ["chathistory", "draft/chathistory"];

/// The state of the negotiation.
#[derive(Debug, Default)]
pub(super) struct Caps {
    /// What the server has, of what we know.
    offered: Vec<&'static str>,
    /// What was asked for and not answered.
    pending: Vec<&'static str>,
    /// Whether what was refused together was asked for one by one.
    apart: bool,
    enabled: Vec<&'static str>,
    /// The mechanisms of SASL, if the server lists them.
    mechanisms: Option<String>,
}

impl Caps {
    /// Whether a capability is in use.
    pub fn has(&self, name: &str) -> bool {
        self.enabled.contains(&name)
    }

    /// Whether earlier lines can be asked for.
    pub fn has_history(&self) -> bool {
        self.has("batch") && HISTORY.iter().any(|name| self.has(name))
    }

    /// Whether SASL PLAIN can be tried.
    pub fn has_plain(&self) -> bool {
        let named = |list: &String| list.split(',').any(|m| m.eq_ignore_ascii_case("PLAIN"));
        self.has("sasl") && self.mechanisms.as_ref().is_none_or(named)
    }
}

impl Session {
    /// Our own name for a capability, if it is wanted.
    fn wanted_cap(&self, name: &str) -> Option<&'static str> {
        let history = HISTORY.iter().filter(|_| self.config.history > 0);
        let sasl = Some(&"sasl").filter(|_| self.config.sasl.is_some());
        WANTED.iter().chain(history).chain(sasl).copied().find(|wanted| *wanted == name)
    }

    /// `CAP nick subcommand [*] :list`.
    pub(super) fn on_cap(&mut self, message: &Message, out: &mut Actions) {
        let names = message.trailing().split(' ').filter(|name| !name.is_empty());
        match message.param(1) {
            "LS" => {
                names.for_each(|name| self.offer(name));
                if message.params.len() < 4 && self.link.phase == Phase::Registering {
                    self.request_offered(out);
                }
            }
            "NEW" => {
                names.for_each(|name| self.offer(name));
                // Logging in is for the registration only.
                self.link.caps.offered.retain(|name| *name != "sasl");
                self.request_offered(out);
            }
            "ACK" => {
                for name in names {
                    let (name, on) = name.strip_prefix('-').map_or((name, true), |n| (n, false));
                    self.answered(name, on);
                }
                self.negotiated(out);
            }
            "NAK" if self.link.caps.apart || self.link.caps.pending.len() < 2 => {
                names.for_each(|name| self.answered(name, false));
                self.negotiated(out);
            }
            "NAK" => {
                // One of them is not to be had; which one, only asking apart tells.
                self.link.caps.apart = true;
                self.link.caps.pending.iter().for_each(|name| out.send("CAP", &["REQ", name]));
            }
            "DEL" => names.for_each(|name| self.answered(name, false)),
            _ => {}
        }
    }

    fn offer(&mut self, offer: &str) {
        let (name, value) = offer.split_once('=').map_or((offer, None), |(n, v)| (n, Some(v)));
        let Some(name) = self.wanted_cap(name) else { return };
        let caps = &mut self.link.caps;
        if name == "sasl" {
            caps.mechanisms = value.map(str::to_owned);
        }
        if !caps.offered.contains(&name) {
            caps.offered.push(name);
        }
    }

    fn request_offered(&mut self, out: &mut Actions) {
        let caps = &mut self.link.caps;
        let enabled = std::mem::take(&mut caps.offered).into_iter();
        let new: Vec<_> = enabled.filter(|name| !caps.enabled.contains(name)).collect();
        if new.is_empty() {
            self.negotiated(out);
        } else {
            caps.apart = false;
            out.send("CAP", &["REQ", &new.join(" ")]);
            caps.pending = new;
        }
    }

    fn answered(&mut self, name: &str, on: bool) {
        let Some(name) = self.wanted_cap(name) else { return };
        let caps = &mut self.link.caps;
        caps.pending.retain(|pending| *pending != name);
        caps.enabled.retain(|enabled| *enabled != name);
        if on {
            caps.enabled.push(name);
        }
    }

    /// Goes on with the registration if all is answered.
    fn negotiated(&mut self, out: &mut Actions) {
        if self.link.phase == Phase::Registering && self.link.caps.pending.is_empty() {
            self.log_in(out);
        }
    }
}
