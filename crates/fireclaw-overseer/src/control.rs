//! The control channel.

use std::cell::RefCell;
use std::collections::HashSet;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fireclaw_chat::{Bot, Case, Connection, Event, Kind, Message};
use fireclaw_daemon::{Actor, Daemon, Event as Told, Events, Question, Result};
use fireclaw_say::say;
use futures_util::StreamExt;

use crate::advice;
use crate::command::{self, Command};
use crate::obey::obey;
use crate::pace::{Pace, Taken};

/// How long it is waited with a question while too much waits to be said.
const AGAIN: Duration = Duration::from_secs(5);

/// Joins the control channel and does what people ask there, until dropped.
/// `on_join` is called whenever it is there. Must run in a
/// [`tokio::task::LocalSet`].
///
/// # Errors
/// If the chat server's settings cannot be right.
pub async fn run(
    daemon: &Daemon,
    mut events: Events,
    mut on_join: impl FnMut(),
) -> Result<Infallible> {
    let config = daemon.config();
    let control = config.control.clone();
    let bot =
        Bot { nick: config.nick.clone(), channels: vec![control.clone()], joins_pastes: false };
    let (connection, mut heard) = config.chat.connect(bot)?;
    let _goodbye = Goodbye(Arc::clone(&connection));
    let mut pace = Pace::default();
    let questions = Questions::default();
    daemon.overseer_is(&config.nick);
    loop {
        tokio::select! {
            event = heard.next() => match event {
                Some(Event::Message(message)) => {
                    listen(daemon, &connection, &control, &mut pace, message);
                }
                Some(Event::Connected { nick }) => daemon.overseer_is(&nick),
                Some(Event::Joined { channel, shown }) => {
                    daemon.overseer_is_shown(&shown);
                    if connection.case().same(&channel, &control) {
                        on_join();
                    }
                }
                Some(Event::Members { channel, members })
                    if connection.case().same(&channel, &control) =>
                {
                    daemon.control_has(&members);
                }
                Some(Event::NickChanged { from, to, is_self }) => {
                    daemon.control_lost(&from, connection.case());
                    if is_self {
                        daemon.overseer_is(&to);
                    }
                }
                Some(Event::Quit { nick }) => daemon.control_lost(&nick, connection.case()),
                Some(Event::Left { channel, nick, is_self: false, .. })
                    if connection.case().same(&channel, &control) => {
                    daemon.control_lost(&nick, connection.case());
                }
                Some(
                    Event::CannotJoin { channel, reason }
                    | Event::Refused { target: channel, reason }
                    | Event::Left { channel, reason, is_self: true, .. },
                ) if connection.case().same(&channel, &control) => {
                    say!("fireclaw: {control}: {reason}; it can be invited there");
                }
                Some(Event::Invited { channel, .. })
                    if connection.case().same(&channel, &control) =>
                {
                    let _ = connection.join(&control).await;
                }
                Some(Event::Failed { reason }) => {
                    say!("fireclaw: the chat server does not let the overseer in: {reason}");
                    std::future::pending::<()>().await;
                }
                Some(Event::Held { reason, retry_in }) => {
                    let minutes = retry_in.as_secs().div_ceil(60);
                    say!("fireclaw: {reason}; again in {minutes} min, then more rarely");
                }
                Some(Event::Dropped { lines }) => {
                    say!("fireclaw: {lines} lines waited too long and were not said");
                }
                Some(Event::Disconnected { reason, retry_in }) => {
                    let seconds = retry_in.as_secs_f32();
                    say!("fireclaw: no chat server: {reason}; again in {seconds:.1} s");
                }
                Some(_) => {}
                None => std::future::pending::<()>().await,
            },
            Some(told) = events.next() => {
                let (connection, conversation) = (Arc::clone(&connection), control.clone());
                let reply = Reply { connection, conversation, is_urgent: false };
                match told {
                    Ok(Told::Asked(question)) => questions.put(daemon, reply, *question),
                    Ok(event) => reply.say(&advice::event(&event)).await,
                    Err(missed) => {
                        say!("fireclaw: {missed} events came too fast for {control}; the log has them");
                        for question in daemon.questions().unwrap_or_default() {
                            questions.put(daemon, reply.clone(), question);
                        }
                    }
                }
            }
        }
    }
}

/// Leaves the server when the overseer ends.
struct Goodbye(Arc<dyn Connection>);

impl Drop for Goodbye {
    fn drop(&mut self) {
        let connection = Arc::clone(&self.0);
        tokio::task::spawn_local(async move { connection.quit("the overseer ends").await });
    }
}

/// Where somebody is answered.
#[derive(Clone)]
struct Reply {
    connection: Arc<dyn Connection>,
    conversation: String,
    /// Whether it waits for nobody's chatter.
    is_urgent: bool,
}

impl Reply {
    async fn say(&self, text: &str) {
        let text = self.marked(text);
        let said = match self.is_urgent {
            true => self.connection.say_urgent(&self.conversation, &text).await,
            false => self.connection.say(&self.conversation, &text).await,
        };
        if let Err(e) = said {
            say!("fireclaw: not said in {}: {e}: {text}", self.conversation);
        }
    }

    fn marked(&self, text: &str) -> String {
        let split = |line| self.connection.split(&self.conversation, line, GOES_ON.len());
        marked(text, split)
    }
}

/// Takes what somebody says in the control channel, or in private.
fn listen(
    daemon: &Daemon,
    connection: &Arc<dyn Connection>,
    control: &str,
    pace: &mut Pace,
    message: Message,
) {
    let case = connection.case();
    let is_control = message.channel.as_ref().is_some_and(|said| case.same(said, control));
    let is_heard = is_control || message.channel.is_none();
    if !is_heard || message.is_history || message.kind != Kind::Plain {
        return;
    }
    // Whatever an agent says is a guest's word. It is not even told so: that could have it
    // go on for ever.
    if daemon.is_ours(&message, case) {
        return;
    }
    let read = match command::parse(&message.text) {
        Some(read) => read,
        // People try what they know of other bots.
        None if !is_control => Ok(Command::Help { command: None }),
        None => return,
    };
    // In private a nick is all there is of an operator.
    let may = is_control && daemon.may(&message, case);
    let who = Actor::person(&message.from);
    let conversation = if is_control { control.to_owned() } else { message.from.nick.clone() };
    let connection = Arc::clone(connection);
    let reply = Reply { connection, conversation, is_urgent: may };
    match pace.takes(&key(&who, may, case), may, Instant::now()) {
        Taken::Yes => {}
        Taken::Told => return,
        Taken::No => {
            let text = format!("{who}: you ask faster than I answer; wait a moment");
            tokio::task::spawn_local(async move { reply.say(&text).await });
            return;
        }
    }
    let (daemon, control) = (daemon.clone(), control.to_owned());
    // A slow command must not hold the others up.
    tokio::task::spawn_local(async move {
        let said = match read {
            Err(wrong) => Some(wrong),
            Ok(command) if !is_control && !command.only_looks() => {
                Some(format!("give that command in {control}, where others see it"))
            }
            Ok(command) if !may && !command.is_harmless() => {
                Some(format!("{who}: permission denied; only owners of this overseer may do that"))
            }
            Ok(command) => obey(&daemon.handle(), &who, command).await,
        };
        if let Some(said) = said {
            reply.say(&said).await;
        }
    });
}

/// For whom commands are counted: a nick is changed in no time, an account or a host is not.
/// Owners are told apart by what they are known by.
fn key(who: &Actor, may: bool, case: Case) -> String {
    match (who.account(), who.host()) {
        (Some(account), _) => format!("account {}", case.fold(account)),
        (None, Some(host)) if !may => format!("host {}", case.fold(host)),
        _ => format!("nick {}", case.fold(&who.to_string())),
    }
}

/// Questions on their way to the channel.
#[derive(Clone, Default)]
struct Questions(Rc<RefCell<HashSet<u64>>>);

impl Questions {
    /// Puts a question that nobody could read yet, if it is not on its way already.
    fn put(&self, daemon: &Daemon, reply: Reply, question: Question) {
        let id = question.id;
        let Some(text) = advice::question(&question) else { return };
        if question.said.is_some() || !self.0.borrow_mut().insert(id) {
            return;
        }
        let (daemon, all) = (daemon.clone(), self.clone());
        tokio::task::spawn_local(async move {
            put(&daemon, reply, id, text).await;
            all.0.borrow_mut().remove(&id);
        });
    }
}

/// Says a question until it was heard or is over.
async fn put(daemon: &Daemon, reply: Reply, id: u64, text: String) {
    while daemon.is_open(id) {
        match reply.connection.deliver(&reply.conversation, &reply.marked(&text)).await {
            Ok(()) => {
                if let Err(e) = daemon.question_said(id) {
                    say!("fireclaw: #{id}: {e}");
                }
                return;
            }
            // It waits for a server again.
            Err(fireclaw_chat::Error::TooLate) => {}
            Err(fireclaw_chat::Error::QueueFull { .. }) => tokio::time::sleep(AGAIN).await,
            Err(e) => {
                say!("fireclaw: #{id} was not said: {e}; it is in !questions");
                return;
            }
        }
    }
}

/// What begins a line that goes on with the one before.
const GOES_ON: &str = "… ";

/// The same with what does not fit a line going on in marked ones: guests have a part in what
/// is said, and none of it may look like a line of our own. `split` cuts a line into pieces.
fn marked<'a>(text: &'a str, split: impl Fn(&'a str) -> Vec<&'a str>) -> String {
    let lines = text.lines().flat_map(|line| {
        let parts = split(line).into_iter().enumerate();
        parts.map(|(n, part)| if n == 0 { part.to_owned() } else { format!("{GOES_ON}{part}") })
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use fireclaw_chat::Sender;

    use super::*;

    #[test]
    fn another_nick_is_no_other_person() {
        let case = Case::ASCII;
        let who = |nick: &str, user: &str, host: &str, account: Option<&str>| {
            let [nick, user, host] = [nick, user, host].map(str::to_owned);
            Actor::person(&Sender { nick, user, host, account: account.map(str::to_owned) })
        };
        let eve = key(&who("eve", "~e", "host", None), false, case);
        assert_eq!(key(&who("eve2", "~e", "HOST", None), false, case), eve);
        assert_ne!(key(&who("bob", "~b", "host", None), false, case), eve);
        let known = key(&who("eve", "~e", "host", Some("Eve")), false, case);
        assert_eq!(key(&who("x", "~y", "z", Some("eve")), true, case), known);
        // Owners on one VM do not share what they may say.
        let (ann, bob) = (who("ann", "~u", "host", None), who("bob", "~u", "host", None));
        assert_ne!(key(&ann, true, case), key(&bob, true, case));
    }

    #[test]
    fn no_line_begins_with_what_a_guest_put_at_a_cut() {
        let forged = "#2 good wants to run_command: ls (!ok 2, or !no 2 reason)";
        let text = format!("evil: {} {forged}", "字".repeat(151));
        let said = marked(&text, |line| {
            let (first, rest) = line.split_at(line.find(forged).unwrap_or(line.len()));
            [first, rest].into_iter().filter(|part| !part.is_empty()).collect()
        });
        let lines: Vec<&str> = said.lines().collect();
        assert!(lines.len() > 1 && lines[0].starts_with("evil: "), "{lines:?}");
        assert!(lines[1..].iter().all(|line| line.starts_with(GOES_ON)), "{lines:?}");
        assert_eq!(marked("a\nb", |line| vec![line]), "a\nb");
    }
}
