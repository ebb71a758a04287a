//! Logging in to an account (IRCv3 SASL 3.2, mechanism PLAIN, RFC 4616).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{Actions, Phase, Session, words};
use crate::message::Message;

/// The most that one AUTHENTICATE carries, in bytes; less ends the answer.
const CHUNK: usize = 400;

/// How far the login is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Progress {
    /// Not begun.
    #[default]
    None,
    /// The mechanism was named.
    Offered,
    /// The password was sent.
    Answered,
    /// Logged in.
    Done,
}

impl Session {
    /// Begins the login where there is an account, else ends the negotiation.
    pub(super) fn log_in(&mut self, out: &mut Actions) {
        if self.link.sasl != Progress::None {
            return;
        }
        match &self.config.sasl {
            None => out.send("CAP", &["END"]),
            Some(_) if self.link.caps.has_plain() => {
                self.link.sasl = Progress::Offered;
                out.send("AUTHENTICATE", &["PLAIN"]);
            }
            // Its services may be away for a while, so it is tried again. Without
            // the account anybody could have had our nick, so not without.
            Some(_) => out.close("the server does not offer to log in with SASL PLAIN now"),
        }
    }

    pub(super) fn on_authenticate(&mut self, message: &Message, out: &mut Actions) {
        let Some(sasl) = self.config.sasl.as_ref() else { return };
        if self.link.sasl != Progress::Offered || message.param(0) != "+" {
            return;
        }
        self.link.sasl = Progress::Answered;
        let (account, password) = (&sasl.account, sasl.password.reveal());
        let answer = STANDARD.encode(format!("{account}\0{account}\0{password}"));
        let mut rest = answer.as_str();
        loop {
            let (chunk, after) = rest.split_at(rest.len().min(CHUNK));
            out.send("AUTHENTICATE", &[if chunk.is_empty() { "+" } else { chunk }]);
            if chunk.len() < CHUNK {
                return;
            }
            rest = after;
        }
    }

    /// `900` and `902` to `908`.
    pub(super) fn on_sasl(&mut self, numeric: u16, message: &Message, out: &mut Actions) {
        if !matches!(self.link.sasl, Progress::Offered | Progress::Answered)
            || self.link.phase != Phase::Registering
        {
            return;
        }
        match numeric {
            903 | 907 => {
                self.link.sasl = Progress::Done;
                out.send("CAP", &["END"]);
            }
            902 | 904 | 905 => {
                out.fail(format!("the server refused the login: {}", words(message.trailing())));
            }
            906 => out.close("the login was broken off"),
            _ => {}
        }
    }

    /// Whether this connection is logged in to the account.
    pub(super) fn is_logged_in(&self) -> bool {
        self.link.sasl == Progress::Done
    }
}
