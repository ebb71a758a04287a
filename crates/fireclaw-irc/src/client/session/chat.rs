//! What others say, and the few questions that are answered by themselves.

use std::time::{Instant, SystemTime};

use super::{Actions, Session, clean, name, words};
use crate::client::event::{Chat, ChatKind, Event, Rank};
use crate::message::Message;
use crate::names;

/// The longest CTCP answer, in bytes.
const MAX_CTCP: usize = 300;

impl Session {
    /// `:nick!user@host PRIVMSG target :text`, or NOTICE.
    pub(super) fn on_chat(
        &mut self,
        message: &Message,
        now: Instant,
        time: SystemTime,
        out: &mut Actions,
    ) {
        // What we said ourselves may come back through a bouncer.
        let Some(from) = message.source.clone() else { return };
        if message.params.len() < 2 || !self.is_ready() || self.link.is_me(&from.nick) {
            return;
        }
        let isupport = &self.link.isupport;
        let marked = message.param(0);
        let bare = marked.trim_start_matches(|c| isupport.status_message.contains(c));
        let to = if isupport.is_channel(bare) { bare } else { marked };
        let is_channel = isupport.is_channel(to);
        // Everything else goes to groups of users, from the server.
        if !is_channel && !self.link.is_me(to) {
            return;
        }
        let is_history = self.link.batches.is_history(message);
        let mut kind = match message.command.as_str() {
            "NOTICE" => ChatKind::Notice,
            _ => ChatKind::Message,
        };
        let mut text = message.trailing();
        if let Some(ctcp) = text.strip_prefix('\x01') {
            let ctcp = ctcp.strip_suffix('\x01').unwrap_or(ctcp);
            let (verb, rest) = ctcp.split_once(' ').unwrap_or((ctcp, ""));
            if !verb.eq_ignore_ascii_case("ACTION") {
                if kind == ChatKind::Message && !is_channel && !is_history {
                    self.on_ctcp(&from.nick, verb, rest, now, out);
                }
                return;
            }
            if kind == ChatKind::Message {
                kind = ChatKind::Action;
            }
            text = rest;
        }
        let text = words(text);
        if text.trim().is_empty() {
            return;
        }
        let rank = match is_channel && !is_history {
            true => self.rank_of(to, &from.nick),
            false => Rank::Member,
        };
        let target = if is_channel { name(to) } else { self.link.nick.clone() };
        // Signs before a channel: only some of its members hear it, and hear the answer.
        let reply_to = if is_channel { name(marked) } else { name(&from.nick) };
        let account = self.account_of(message);
        let time = self.server_time(message).unwrap_or(time);
        let from = clean(from);
        out.emit(Event::Message(Chat {
            from,
            account,
            rank,
            target,
            reply_to,
            is_channel,
            text,
            time,
            kind,
            is_history,
        }));
    }

    /// Answers two CTCP questions, and not more often than its bucket allows.
    ///
    /// Source: [CTCP](https://modern.ircdocs.horse/ctcp).
    fn on_ctcp(&mut self, nick: &str, verb: &str, rest: &str, now: Instant, out: &mut Actions) {
        let answer = match verb.to_ascii_uppercase().as_str() {
            "VERSION" => self.config.version.clone(),
            "PING" => words(rest),
            _ => return,
        };
        let answer = crate::text::split(&answer, MAX_CTCP).first().copied().unwrap_or_default();
        if names::is_recipient(nick) && self.link.ctcp.take(now) {
            let verb = verb.to_ascii_uppercase();
            out.send("NOTICE", &[nick, &format!("\x01{verb} {answer}\x01")]);
        }
    }

    /// When the server says that a message was sent (IRCv3 `server-time`).
    fn server_time(&self, message: &Message) -> Option<SystemTime> {
        let time = message.tag("time").filter(|_| self.link.caps.has("server-time"))?;
        humantime::parse_rfc3339(time).ok()
    }
}
