//! What an agent hears on the chat server, and what of it is for the agent.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use fireclaw_chat::{Event as Heard, Kind, Message, Sender, addressed};
use fireclaw_protocol::agent::Said;
use fireclaw_template::Trigger;
use tokio::time::Instant;

use super::{Agent, Condition};
use crate::Event;
use crate::question::Question;
use crate::state::Pending;
use crate::talk::Verdict;

/// How many lines of a channel an agent is told with a message.
const RECENT: usize = 20;

/// How many messages may wait for an agent.
const MOST_PENDING: usize = 64;

/// How many channels an agent may be in.
const MOST_CHANNELS: usize = 32;

/// How long nobody else is told that they may not invite it.
const DECLINED: Duration = Duration::from_secs(10);

/// What was said last, by channel.
#[derive(Debug, Default)]
pub struct Recent(HashMap<String, VecDeque<Said>>);

impl Recent {
    fn add(&mut self, channel: &str, from: &str, text: &str) {
        let lines = self.0.entry(channel.to_owned()).or_default();
        lines.push_back(Said { from: from.to_owned(), text: text.to_owned() });
        if lines.len() > RECENT {
            lines.pop_front();
        }
    }

    fn of(&self, channel: &str) -> Vec<Said> {
        self.0.get(channel).into_iter().flatten().cloned().collect()
    }
}

/// Something that concerns the agent.
#[derive(Debug)]
pub enum Accepted {
    /// A message, written down, for it to deal with.
    Message(Pending),
    /// Somebody no longer wants an answer in a conversation.
    Stop {
        /// Who.
        from: String,
        /// Where; anywhere if absent, because they left.
        conversation: Option<String>,
        /// Whether they said so and wait for a word.
        tell: bool,
    },
    /// Somebody is called something else.
    Renamed {
        /// What they were called.
        from: String,
        /// What they are called now.
        to: String,
    },
}

impl Agent {
    /// Takes note of something heard.
    pub(super) fn hear(&mut self, heard: Option<Heard>) -> Option<Accepted> {
        match heard {
            None => {
                self.deaf = true;
                None
            }
            Some(Heard::Message(message)) => self.said(message),
            Some(Heard::Connected { nick }) => {
                self.log.add(&format!("is on the chat server as {nick}"));
                let case = self.connection.case();
                if !case.same(&nick, &self.row.nick) && self.life.nick() != nick {
                    self.tell(Event::Renamed { agent: self.name(), nick: nick.clone() });
                }
                self.is_called(nick);
                None
            }
            Some(Heard::NickChanged { to, is_self: true, .. }) => {
                self.is_called(to);
                None
            }
            Some(Heard::Joined { channel, shown }) => {
                self.shared.ours.borrow_mut().is_shown(&self.row.name, &shown);
                self.joined(&channel);
                None
            }
            Some(Heard::Disconnected { reason, retry_in }) => {
                let seconds = retry_in.as_secs_f32();
                self.log.add(&format!("lost the chat server: {reason}; again in {seconds:.1} s"));
                None
            }
            Some(Heard::Held { reason, retry_in }) => {
                let retry_in = Some(retry_in);
                self.tell(Event::KeptOut { agent: self.name(), reason, retry_in });
                None
            }
            Some(Heard::Dropped { lines }) => {
                self.log.add(&format!("{lines} lines waited too long and were not said"));
                None
            }
            Some(Heard::Failed { reason }) => {
                self.tell(Event::KeptOut { agent: self.name(), reason, retry_in: None });
                None
            }
            Some(Heard::Refused { target, reason }) => {
                self.log.add(&format!("{target}: {reason}"));
                None
            }
            Some(Heard::CannotJoin { channel, reason }) => {
                self.log.add(&format!("{channel}: {reason}"));
                let case = self.connection.case();
                self.invited.retain(|invited| !case.same(invited, &channel));
                self.tell(Event::CannotJoin { agent: self.name(), channel, reason });
                None
            }
            Some(Heard::Invited { channel, by }) => {
                self.asked_to_join(&channel, &by);
                None
            }
            Some(Heard::Left { channel, is_self: true, .. }) => {
                self.log.add(&format!("is no longer in {channel}"));
                self.note(self.shared.state.borrow().leave(&self.row.name, &channel));
                None
            }
            Some(Heard::NickChanged { from, to, is_self: false }) => {
                self.note(self.shared.state.borrow().rename_sender(&self.row.name, &from, &to));
                Some(Accepted::Renamed { from, to })
            }
            Some(Heard::Quit { nick }) => {
                Some(Accepted::Stop { from: nick, conversation: None, tell: false })
            }
            Some(Heard::Left { channel, nick, .. }) => {
                Some(Accepted::Stop { from: nick, conversation: Some(channel), tell: false })
            }
            Some(_) => None,
        }
    }

    /// The same while it has no VM: nobody answers now, and what is said is
    /// answered later.
    pub(super) fn hear_for_later(&mut self, heard: Option<Heard>) {
        if let Some(Accepted::Stop { from, conversation, tell }) = self.hear(heard) {
            let dequeued = self.dequeue(&from, conversation.as_deref(), |_| false);
            if let (Some(conversation), true) = (conversation, tell) {
                self.tell_stopped(&from, &conversation, dequeued > 0);
            }
        }
    }

    /// Dequeues what waits for somebody who no longer wants an answer, but for what
    /// the program has already; how much that was.
    pub(super) fn dequeue(
        &mut self,
        from: &str,
        conversation: Option<&str>,
        has: impl Fn(u64) -> bool,
    ) -> usize {
        let waiting = self.shared.state.borrow().pending(&self.row.name).unwrap_or_default();
        let theirs = waiting.iter().filter(|m| m.is_of(from, conversation) && !has(m.id));
        theirs.map(|message| self.finish(message.id)).count()
    }

    /// Tells somebody what became of their `stop`.
    pub(super) fn tell_stopped(&self, from: &str, conversation: &str, stopped: bool) {
        let text = if stopped { "stopped" } else { "nothing of yours is under way here" };
        match self.connection.case().same(conversation, from) {
            true => self.say_soon(conversation, text),
            false => self.say_soon(conversation, &format!("{from}: {text}")),
        }
    }

    /// Dequeues a message, with the questions that were asked for it.
    pub(super) fn finish(&mut self, message: u64) {
        self.handed.remove(&message);
        let done = self.shared.state.borrow_mut().done(&self.row.name, message);
        match done {
            Ok(withdrawn) => {
                for id in withdrawn {
                    self.tell(Event::QuestionWithdrawn { id, agent: self.name() });
                }
            }
            Err(e) => self.trouble(e),
        }
    }

    /// Tells who caused a question how it ended. Agents are told by what their own question
    /// does.
    pub(super) fn tell_asker(&self, question: &Question) {
        let (id, ask) = (question.id, &question.ask);
        let Some((granted, by)) = &question.verdict else { return };
        let case = self.connection.case();
        let is_told = case.same(&ask.conversation, &self.shared.config.control);
        if ask.asker.is_empty()
            || is_told
            || self.shared.agent_with_nick(&ask.asker, case).is_some()
        {
            return;
        }
        let asker = if ask.private { String::new() } else { format!("{}: ", ask.asker) };
        let verdict = if *granted { "allowed" } else { "refused" };
        let tool = &ask.tool;
        self.say_soon(&ask.conversation, &format!("{asker}#{id} ({tool}) was {verdict}: {by}"));
    }

    fn note(&self, done: crate::Result<()>) {
        if let Err(e) = done {
            self.trouble(e);
        }
    }

    fn is_called(&self, nick: String) {
        self.shared.ours.borrow_mut().has_nick(&self.row.name, &nick, Instant::now());
        self.life.is_called(nick);
    }

    /// Somebody wants it in a channel. It goes where people with the right want it, and
    /// never where what is said commands.
    fn asked_to_join(&mut self, channel: &str, by: &Sender) {
        let case = self.connection.case();
        if let Some(refusal) = self.declines(channel, by) {
            // Now and then: whoever may not invite must not fill the log or the connection either.
            if self.declined.is_none_or(|last| last.elapsed() > DECLINED) {
                self.declined = Some(Instant::now());
                self.log.add(&format!("is invited to {channel} by {}: {refusal}", by.nick));
                if !self.shared.is_ours(by, case) {
                    self.say_soon(&by.nick, &format!("{channel}: {refusal}"));
                }
            }
            return;
        }
        self.log.add(&format!("is invited to {channel} by {}", by.nick));
        self.invited.push(channel.to_owned());
        let (connection, channel) = (Arc::clone(&self.connection), channel.to_owned());
        tokio::task::spawn_local(async move {
            let _ = connection.join(&channel).await;
        });
    }

    /// Why an invitation is not followed, if it is not.
    fn declines(&self, channel: &str, by: &Sender) -> Option<&'static str> {
        let case = self.connection.case();
        if case.same(channel, &self.shared.config.control) {
            return Some("agents do not join the control channel");
        }
        if !self.shared.may(by, None, case) {
            return Some("only the owners of this overseer may invite me");
        }
        let kept = self.shared.state.borrow().channels(&self.row.name).map_or(0, |all| all.len());
        (kept + self.invited.len() >= MOST_CHANNELS)
            .then_some("I am in as many channels as I may be")
    }

    /// It is in a channel now. Only where it was asked to come does it come again.
    fn joined(&mut self, channel: &str) {
        let case = self.connection.case();
        if case.same(channel, &self.shared.config.control) {
            self.log.add(&format!("was put into {channel}, and leaves it"));
            let (connection, channel) = (Arc::clone(&self.connection), channel.to_owned());
            tokio::task::spawn_local(async move {
                let _ = connection.part(&channel, "agents do not join the control channel").await;
            });
            return;
        }
        let before = self.invited.len();
        self.invited.retain(|invited| !case.same(invited, channel));
        if self.invited.len() < before {
            self.note(self.shared.state.borrow().join(&self.row.name, channel));
        }
    }

    fn said(&mut self, heard: Message) -> Option<Accepted> {
        let (nick, case) = (self.connection.nick(), self.connection.case());
        let from = heard.from.nick.clone();
        if case.same(&from, &nick) || heard.kind == Kind::Notice {
            return None;
        }
        // Where those hear the answer who heard this: in a channel maybe only some.
        let conversation = heard.conversation.clone();
        let is_private = heard.channel.is_none();
        let recent = if is_private { Vec::new() } else { self.recent.of(&conversation) };
        if !is_private {
            self.recent.add(&conversation, &from, &heard.text);
        }
        if heard.is_history || heard.kind != Kind::Plain {
            return None;
        }
        let speaker = self.shared.agent_with_nick(&from, case);
        // The overseer's words are for people, and so are those of an agent that is just
        // getting another nick.
        if speaker.is_none() && self.shared.is_ours(&heard.from, case) {
            return None;
        }
        let text = match addressed(&heard.text, &nick, case) {
            Some(rest) => rest.to_owned(),
            None if is_private => heard.text.clone(),
            None if self.template.trigger == Trigger::Always && speaker.is_none() => {
                heard.text.clone()
            }
            None => return None,
        };
        if text.trim().eq_ignore_ascii_case("stop") {
            return Some(Accepted::Stop {
                from,
                conversation: Some(conversation),
                tell: speaker.is_none(),
            });
        }
        let hops = match &speaker {
            None => 0,
            Some(speaker) => self.hops(speaker, &conversation)?,
        };
        if self.waiting() >= MOST_PENDING {
            self.say_soon(&conversation, "too much waits for me already; try again later");
            return None;
        }
        let mut message = Pending {
            id: 0,
            private: is_private,
            conversation,
            sender: from,
            from_agent: speaker.is_some(),
            hops,
            text,
            recent,
        };
        match self.shared.state.borrow().keep(&self.row.name, &message) {
            Ok(id) => message.id = id,
            Err(e) => {
                self.trouble(format!("cannot remember a message: {e}"));
                return None;
            }
        }
        if self.life.condition() == Condition::Paused {
            self.say_soon(&message.conversation, "I am paused; I answer when I am resumed");
        }
        Some(Accepted::Message(message))
    }

    /// Through how many agents something came that another agent says; none if it
    /// is not to be heard.
    fn hops(&self, speaker: &str, conversation: &str) -> Option<u32> {
        let verdict = self.shared.talk.borrow_mut().hears(
            &self.row.name,
            speaker,
            conversation,
            Instant::now(),
        );
        match verdict {
            Verdict::Heard(hops) => Some(hops),
            Verdict::Silent => None,
            Verdict::Circle => {
                let event = Event::ReplyLoop { from: speaker.to_owned(), to: self.name() };
                self.say_soon(conversation, &event.text());
                self.tell(event);
                None
            }
        }
    }

    fn waiting(&self) -> usize {
        self.shared.state.borrow().pending(&self.row.name).map_or(0, |pending| pending.len())
    }

    /// Says a short thing of the host's own.
    pub(super) fn say_soon(&self, conversation: &str, text: &str) {
        let (connection, conversation, text) =
            (Arc::clone(&self.connection), conversation.to_owned(), text.to_owned());
        tokio::task::spawn_local(async move {
            let _ = connection.say(&conversation, &text).await;
        });
    }
}
