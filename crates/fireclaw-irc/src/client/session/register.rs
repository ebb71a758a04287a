//! From the connection to the welcome (RFC 2812, 3.1).

use std::time::Instant;

use fireclaw_host::Secret;

use super::{Actions, Phase, Session};

use crate::message::{Message, Source};

impl Session {
    /// Says who we are. A server without CAP ignores it or says so; either way
    /// the rest is an ordinary registration.
    pub(super) fn register(&self, out: &mut Actions) {
        out.send("CAP", &["LS", "302"]);
        if let Some(password) = self.config.password.as_ref().map(Secret::reveal) {
            out.send("PASS", &[password]);
        }
        out.send("NICK", &[&self.link.nick]);
        out.send("USER", &[&self.config.user, "0", "*", &self.config.realname]);
    }

    pub(super) fn on_welcome(&mut self, message: &Message, now: Instant, out: &mut Actions) {
        if self.link.phase != Phase::Registering {
            return;
        }
        if self.config.sasl.is_some() && !self.is_logged_in() {
            out.close("the server let us in without the account");
            return;
        }
        // It may have cut our nick.
        if crate::names::is_recipient(message.param(0)) {
            message.param(0).clone_into(&mut self.link.nick);
        }
        self.link.phase = Phase::Welcomed;
        self.link.since = now;
    }

    /// `004 nick server version user-modes …`: a `B` among the user modes of a
    /// server that announces no BOT marks bots there too (ngircd).
    pub(super) fn on_my_info(&mut self, message: &Message) {
        self.link.bot_mode = message.param(3).contains('B').then_some('B');
    }

    /// How the server shows us to others decides how long a line may be.
    pub(super) fn learn_own_prefix(&mut self, message: &Message) {
        if let Some(source) = &message.source
            && !source.user.is_empty()
            && !source.host.is_empty()
            && self.link.is_me(&source.nick)
        {
            self.link.shown = Some(source.clone());
        }
    }

    /// `396 nick host :is now your displayed host`.
    pub(super) fn on_host_shown(&mut self, message: &Message) {
        let shown = message.param(1);
        let (user, host) = shown.split_once('@').map_or((None, shown), |(u, h)| (Some(u), h));
        if let Some(known) = &mut self.link.shown {
            host.clone_into(&mut known.host);
            if let Some(user) = user {
                user.clone_into(&mut known.user);
            }
        }
    }

    /// `:nick!user@host CHGHOST user host`.
    pub(super) fn on_chghost(&mut self, message: &Message) {
        if self.link.is_me(message.nick()) && message.params.len() == 2 {
            self.link.shown = Some(Source {
                nick: self.link.nick.clone(),
                user: message.param(0).to_owned(),
                host: message.param(1).to_owned(),
            });
        }
    }
}
