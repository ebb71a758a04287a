//! IRC as a network of `fireclaw-chat`.

use std::sync::Arc;

use fireclaw_chat::{Bot, Case, Connection, Events, Folded, Kind, Member, Message, Sender};
use fireclaw_host::Secret;
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{self, StreamExt};
use tokio::sync::mpsc;

use crate::client::{Chat, ChatKind, Config, Rank, Rate, Sasl, Tls, Typing};
use crate::message::Source;
use crate::text::{Formatting, fold, split};
use crate::{Client, Error, Event, Handle};

/// The answers to a JOIN that did not work (RFC 2812, 5.2; 477 as servers use it: only
/// for those who are logged in).
const NOT_JOINED: [u16; 8] = [403, 405, 471, 473, 474, 475, 476, 477];

/// An IRC server, with all that it takes to connect to it.
#[derive(Debug, Clone)]
pub struct Network {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// TLS, if it speaks that.
    pub tls: Option<Tls>,
    /// Its password.
    pub password: Option<Secret>,
    /// The account to log in to.
    pub sasl: Option<Sasl>,
    /// How fast one may send.
    pub rate: Rate,
}

impl fireclaw_chat::Network for Network {
    fn connect(&self, bot: Bot) -> fireclaw_chat::Result<(Arc<dyn Connection>, Events)> {
        let mut config = Config::new(&self.host, self.port, bot.nick);
        config.tls.clone_from(&self.tls);
        config.password.clone_from(&self.password);
        config.sasl.clone_from(&self.sasl);
        config.rate = self.rate;
        config.channels = bot.channels;
        config.joins_pastes = bot.joins_pastes;
        let (handle, events) = Client::spawn(config)?;
        Ok((Arc::new(handle), translated(events)))
    }

    fn account(&self) -> Option<&str> {
        self.sasl.as_ref().map(|sasl| sasl.account.as_str())
    }
}

fn translated(events: mpsc::Receiver<Event>) -> Events {
    let next = |mut events: mpsc::Receiver<Event>| async {
        loop {
            if let Some(event) = translate(events.recv().await?) {
                return Some((event, events));
            }
        }
    };
    stream::unfold(events, next).boxed()
}

/// What an event is to everybody; nothing if it is IRC's own matter.
fn translate(event: Event) -> Option<fireclaw_chat::Event> {
    use fireclaw_chat::Event as Told;
    Some(match event {
        Event::Connected { nick } => Told::Connected { nick },
        Event::Disconnected { reason, retry_in } => Told::Disconnected { reason, retry_in },
        Event::Held { reason, retry_in } => Told::Held { reason, retry_in },
        Event::Failed { reason } => Told::Failed { reason },
        Event::Joined { channel, from, account, is_self: true } => {
            Told::Joined { channel, shown: sender(from, account) }
        }
        Event::Joined { is_self: false, .. } => return None,
        Event::Parted { channel, nick, reason, is_self }
        | Event::Kicked { channel, nick, reason, is_self, .. } => {
            Told::Left { channel, nick, reason, is_self }
        }
        Event::Quit { nick, .. } => Told::Quit { nick },
        Event::NickChanged { from, to, is_self } => Told::NickChanged { from, to, is_self },
        Event::Invited { channel, by, account } => {
            Told::Invited { channel, by: sender(by, account) }
        }
        Event::Message(chat) => Told::Message(message(chat)),
        Event::Members { channel, members } => {
            let member = |m: crate::client::Member| Member {
                is_operator: is_operator(m.rank),
                nick: m.nick,
            };
            Told::Members { channel, members: members.into_iter().map(member).collect() }
        }
        Event::Refused { target, numeric, reason } if NOT_JOINED.contains(&numeric) => {
            Told::CannotJoin { channel: target, reason }
        }
        Event::Refused { target, reason, .. } => Told::Refused { target, reason },
        Event::Dropped { lines } => Told::Dropped { lines },
    })
}

fn sender(source: Source, account: Option<String>) -> Sender {
    let Source { nick, user, host } = source;
    Sender { nick, user, host, account }
}

fn is_operator(rank: Rank) -> bool {
    rank >= Rank::HalfOperator
}

fn message(chat: Chat) -> Message {
    Message {
        from: sender(chat.from, chat.account),
        is_operator: is_operator(chat.rank),
        channel: chat.is_channel.then_some(chat.target),
        conversation: chat.reply_to,
        text: chat.text,
        kind: match chat.kind {
            ChatKind::Message => Kind::Plain,
            ChatKind::Notice => Kind::Notice,
            ChatKind::Action => Kind::Action,
        },
        is_history: chat.is_history,
    }
}

impl From<Error> for fireclaw_chat::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Config { setting, reason } => Self::Setting { network: "IRC", setting, reason },
            Error::Name { what, name } => Self::Name { network: "IRC", what, name },
            Error::File(error) => Self::File(error),
            Error::QueueFull { waiting } => Self::QueueFull { waiting },
            Error::TooLate => Self::TooLate,
            Error::Stopped => Self::Stopped,
            other => Self::Other(other.to_string()),
        }
    }
}

impl Connection for Handle {
    fn nick(&self) -> String {
        self.status().nick
    }

    fn case(&self) -> Case {
        self.status().case.into()
    }

    fn fold(&self, conversation: &str, text: &str, most: usize) -> Folded {
        fold(text, self.budget(conversation), most, Formatting::Remove)
    }

    fn split<'a>(&self, conversation: &str, line: &'a str, spare: usize) -> Vec<&'a str> {
        split(line, self.budget(conversation).saturating_sub(spare))
    }

    fn say<'a>(
        &'a self,
        conversation: &'a str,
        text: &'a str,
    ) -> BoxFuture<'a, fireclaw_chat::Result<()>> {
        async { Ok(self.say(conversation, text).await.map(drop)?) }.boxed()
    }

    fn say_urgent<'a>(
        &'a self,
        conversation: &'a str,
        text: &'a str,
    ) -> BoxFuture<'a, fireclaw_chat::Result<()>> {
        async { Ok(self.say_urgent(conversation, text).await.map(drop)?) }.boxed()
    }

    fn deliver<'a>(
        &'a self,
        conversation: &'a str,
        text: &'a str,
    ) -> BoxFuture<'a, fireclaw_chat::Result<()>> {
        async { Ok(self.deliver(conversation, text).await?) }.boxed()
    }

    fn typing<'a>(
        &'a self,
        conversation: &'a str,
        is_typing: bool,
    ) -> BoxFuture<'a, fireclaw_chat::Result<()>> {
        let typing = if is_typing { Typing::Active } else { Typing::Done };
        async move { Ok(self.typing(conversation, typing).await?) }.boxed()
    }

    fn join<'a>(&'a self, channel: &'a str) -> BoxFuture<'a, fireclaw_chat::Result<()>> {
        async { Ok(self.join(channel).await?) }.boxed()
    }

    fn part<'a>(
        &'a self,
        channel: &'a str,
        reason: &'a str,
    ) -> BoxFuture<'a, fireclaw_chat::Result<()>> {
        async { Ok(self.part(channel, reason).await?) }.boxed()
    }

    fn quit<'a>(&'a self, reason: &'a str) -> BoxFuture<'a, ()> {
        self.quit(reason).boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn chat(target: &str, reply_to: &str, rank: Rank) -> Chat {
        Chat {
            from: Source::parse("ann!~a@host"),
            account: Some("ann".into()),
            rank,
            target: target.into(),
            reply_to: reply_to.into(),
            is_channel: target.starts_with('#'),
            text: "hi".into(),
            time: SystemTime::UNIX_EPOCH,
            kind: ChatKind::Message,
            is_history: false,
        }
    }

    #[test]
    fn a_message_keeps_who_where_and_with_what_right() {
        let said = message(chat("#c", "@#c", Rank::HalfOperator));
        assert_eq!((said.channel.as_deref(), said.conversation.as_str()), (Some("#c"), "@#c"));
        assert!(said.is_operator && said.from.account.as_deref() == Some("ann"));
        assert_eq!((said.from.user.as_str(), said.from.host.as_str()), ("~a", "host"));
        let said = message(chat("worker", "ann", Rank::Voice));
        assert!(said.channel.is_none() && said.conversation == "ann" && !said.is_operator);
    }

    #[test]
    fn only_an_answer_to_a_join_says_that_it_cannot_join() {
        let refused = |numeric| {
            let (target, reason) = ("#c".into(), "no".into());
            translate(Event::Refused { target, numeric, reason }).unwrap()
        };
        assert!(matches!(refused(474), fireclaw_chat::Event::CannotJoin { .. }));
        assert!(matches!(refused(404), fireclaw_chat::Event::Refused { .. }));
    }

    #[test]
    fn whoever_is_sent_out_has_left() {
        let kicked = Event::Kicked {
            channel: "#c".into(),
            nick: "worker".into(),
            by: Source::parse("ann"),
            reason: "bye".into(),
            is_self: true,
        };
        let Some(fireclaw_chat::Event::Left { reason, is_self: true, .. }) = translate(kicked)
        else {
            panic!("the bot left");
        };
        assert_eq!(reason, "bye");
    }
}
