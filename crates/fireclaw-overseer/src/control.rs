//! The control channel.

use std::convert::Infallible;
use std::time::Instant;

use fireclaw_daemon::{ApprovalRow, Condition, Daemon, Listed, NetworkStatus, Notice, Result};
use fireclaw_irc::client::{Chat, ChatKind};
use fireclaw_irc::text::split;
use fireclaw_irc::{Client, Event, Handle};
use fireclaw_say::say;
use tokio::sync::mpsc;

use crate::command::{self, Command, HELP};
use crate::pace::{Pace, Taken};

/// Joins the control channel and does what people ask there, until dropped.
/// `on_join` is called whenever it is there. Must run in a
/// [`tokio::task::LocalSet`].
///
/// # Errors
/// If the chat server's settings cannot be right.
pub async fn run(
    daemon: &Daemon,
    mut notices: mpsc::Receiver<Notice>,
    mut on_join: impl FnMut(),
) -> Result<Infallible> {
    let config = daemon.config();
    let control = config.control.clone();
    let (voice, mut heard) = Client::spawn(config.irc.client(&config.nick, vec![control.clone()]))?;
    let _goodbye = Goodbye(voice.clone());
    let mut pace = Pace::default();
    daemon.overseer_is(&config.nick);
    loop {
        tokio::select! {
            event = heard.recv() => match event {
                Some(Event::Message(chat)) => listen(daemon, &voice, &control, &mut pace, chat),
                Some(Event::Connected { nick }) => daemon.overseer_is(&nick),
                Some(Event::Joined { channel, from, is_self: true, .. }) => {
                    daemon.overseer_is_shown(&from);
                    if voice.status().case.same(&channel, &control) {
                        on_join();
                    }
                }
                Some(Event::Members { channel, members })
                    if voice.status().case.same(&channel, &control) =>
                {
                    daemon.control_has(&members);
                }
                Some(Event::NickChanged { from, to, is_self }) => {
                    daemon.control_lost(&from, voice.status().case);
                    if is_self {
                        daemon.overseer_is(&to);
                    }
                }
                Some(Event::Quit { nick, .. }) => daemon.control_lost(&nick, voice.status().case),
                Some(
                    Event::Parted { channel, nick, is_self: false, .. }
                    | Event::Kicked { channel, nick, is_self: false, .. },
                ) if voice.status().case.same(&channel, &control) => {
                    daemon.control_lost(&nick, voice.status().case);
                }
                Some(
                    Event::Refused { target, reason, .. }
                    | Event::Kicked { channel: target, reason, is_self: true, .. },
                ) if voice.status().case.same(&target, &control) => {
                    say!("fireclaw: {control}: {reason}; it can be invited there");
                }
                Some(Event::Invited { channel, .. })
                    if voice.status().case.same(&channel, &control) =>
                {
                    let _ = voice.join(&control).await;
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
            Some(Notice { text, is_question }) = notices.recv() => {
                let text = marked(&text, voice.budget(&control));
                // If too much waits already, the log has it.
                let _ = match is_question {
                    true => voice.say_urgent(&control, &text).await,
                    false => voice.say(&control, &text).await,
                };
            }
        }
    }
}

/// Leaves the server when the overseer ends.
struct Goodbye(Handle);

impl Drop for Goodbye {
    fn drop(&mut self) {
        let voice = self.0.clone();
        tokio::task::spawn_local(async move { voice.quit("the overseer ends").await });
    }
}

fn listen(daemon: &Daemon, voice: &Handle, control: &str, pace: &mut Pace, chat: Chat) {
    let status = voice.status();
    let is_ours = status.case.same(&chat.target, control) && chat.is_channel;
    if !is_ours || chat.is_history || chat.kind != ChatKind::Message {
        return;
    }
    // Whatever an agent says is a guest's word. It is not even told so: that could have it
    // go on for ever.
    if daemon.is_ours(&chat, status.case) {
        return;
    }
    let Some(read) = command::parse(&chat.text) else { return };
    let may = daemon.may(&chat, status.case);
    match pace.takes(&status.case.fold(&chat.from.nick), may, Instant::now()) {
        Taken::Yes => {}
        Taken::Told => return,
        Taken::No => {
            let text = format!("{}: you ask faster than I answer; wait a moment", chat.from.nick);
            let (voice, control) = (voice.clone(), control.to_owned());
            tokio::task::spawn_local(async move { voice.say(&control, &text).await });
            return;
        }
    }
    let (daemon, voice, control) = (daemon.clone(), voice.clone(), control.to_owned());
    // A slow command must not hold the others up.
    tokio::task::spawn_local(async move {
        let who = &chat.from.nick;
        let said = match read {
            Err(wrong) => wrong,
            Ok(command) if !may && !command.is_harmless() => {
                format!("{who}: you may not; the owners of this overseer may")
            }
            Ok(command) => match obey(&daemon, who, command).await {
                Ok(said) => said,
                Err(e) => e.to_string(),
            },
        };
        let said = marked(&said, voice.budget(&control));
        // What owners hear waits for nobody's chatter.
        let _ = match may {
            true => voice.say_urgent(&control, &said).await,
            false => voice.say(&control, &said).await,
        };
    });
}

/// What begins a line that goes on with the one before.
const GOES_ON: &str = "… ";

/// The same with what does not fit a line going on in marked ones: guests have a part in what
/// is said, and none of it may look like a line of our own.
fn marked(text: &str, budget: usize) -> String {
    let budget = budget.saturating_sub(GOES_ON.len());
    let lines = text.lines().flat_map(|line| {
        let parts = split(line, budget).into_iter().enumerate();
        parts.map(|(n, part)| if n == 0 { part.to_owned() } else { format!("{GOES_ON}{part}") })
    });
    lines.collect::<Vec<_>>().join("\n")
}

async fn obey(daemon: &Daemon, who: &str, command: Command) -> Result<String> {
    Ok(match command {
        Command::Invoke { template, name } => {
            let name = daemon.invoke(who, &template, name.as_deref(), None).await?;
            format!("{name} boots")
        }
        Command::Destroy { name } => {
            daemon.destroy(who, &name, &format!("destroyed by {who}")).await?;
            format!("{name} is gone; its workspace is kept")
        }
        Command::List => lines(daemon.list()?.iter().map(line), "no agents; !invoke <template>"),
        Command::Status => status(daemon).await?,
        Command::Model { name, model } => {
            daemon.set_model(who, &name, &model).await?;
            format!("{name} has model {model} now")
        }
        Command::Models => {
            let models = daemon.models().await?;
            let names: Vec<_> = models.into_iter().map(|model| model.name).collect();
            match &names[..] {
                [] => "the model server has no model".to_owned(),
                names => names.join(", "),
            }
        }
        Command::Persona { name, text: None } => format!("{name}: {}", daemon.persona(&name)?),
        Command::Persona { name, text: Some(text) } => {
            daemon.set_persona(who, &name, &text).await?;
            format!("{name} has another persona now")
        }
        Command::Templates => {
            let entries = daemon.templates()?;
            let line = |name: &String| match daemon.template(name) {
                Ok(template) => {
                    let model = template.model.unwrap_or_else(|| "its own program".into());
                    format!("{name} ({model}): {}", template.description)
                }
                Err(_) => format!("{name}: it has mistakes; `fireclaw template check {name}`"),
            };
            lines(entries.iter().map(|entry| line(&entry.name)), "no templates")
        }
        Command::Pause { name } => {
            daemon.pause(who, &name, true).await?;
            format!("{name} is paused")
        }
        Command::Resume { name } => {
            daemon.pause(who, &name, false).await?;
            format!("{name} goes on")
        }
        Command::Logs { name, lines: most } => {
            let log = daemon.logs(&name, most).await?;
            lines(log.into_iter(), "nothing yet")
        }
        Command::Net { name } => match daemon.network(&name).await? {
            None => format!("{name} has no network card: its template says network = \"none\""),
            Some(status) => network(&name, &status),
        },
        Command::Allow { name, target } => {
            let row = daemon.ask_to_reach(who, &name, &target)?;
            let (line, id) = (question(&row), row.id);
            format!("{line} (!ok {id}, or !no {id} reason), asks {who}")
        }
        Command::Reload => {
            daemon.reload().await;
            "templates are taken on anew".to_owned()
        }
        Command::Questions => {
            let open = daemon.questions()?;
            lines(open.iter().map(question), "nothing waits for an answer")
        }
        Command::Ok { id } => {
            let row = daemon.answer(who, id, true, "").await?;
            format!("#{id}: {} may", row.agent)
        }
        Command::No { id, reason } => {
            let row = daemon.answer(who, id, false, &reason).await?;
            format!("#{id}: {} may not", row.agent)
        }
        Command::Help { command: Some(command) } => command::usage(&command),
        Command::Help { command: None } => {
            let names: Vec<_> = HELP.iter().map(|(name, ..)| format!("!{name}")).collect();
            format!("{} - !help <command> says more", names.join(" "))
        }
    })
}

/// All of a question. One that is too long is never put.
fn question(row: &ApprovalRow) -> String {
    row.lines().map_or_else(|| format!("#{}: too long to be shown", row.id), |l| l.join("\n"))
}

/// What an agent may reach, and the last that was refused: in one line each.
fn network(name: &str, status: &NetworkStatus) -> String {
    const SHOWN: usize = 5;
    let first =
        format!("{name}: {}, at {}, {} refused", status.policy, status.card.address, status.denied);
    let last = status.last.iter().rev().take(SHOWN).map(|denial| {
        let port = denial.port.map(|port| format!(":{port}")).unwrap_or_default();
        format!("refused: {}{port}: {}", denial.what, denial.reason)
    });
    lines(std::iter::once(first).chain(last), "")
}

fn lines(lines: impl Iterator<Item = String>, none: &str) -> String {
    let lines: Vec<String> = lines.collect();
    if lines.is_empty() { none.to_owned() } else { lines.join("\n") }
}

fn line(agent: &Listed) -> String {
    let nick = match agent.status.nick == agent.name {
        true => String::new(),
        false => format!(" as {}", agent.status.nick),
    };
    let restarts = match agent.status.restarts {
        0 => String::new(),
        1 => ", restarted once".to_owned(),
        n => format!(", restarted {n} times"),
    };
    format!(
        "{}{nick} ({}, {}): {}{restarts}, in {}",
        agent.name,
        agent.template,
        agent.model,
        agent.status.condition.as_str(),
        agent.channels.join(" ")
    )
}

async fn status(daemon: &Daemon) -> Result<String> {
    let agents = daemon.list()?;
    let well =
        |agent: &&Listed| matches!(agent.status.condition, Condition::Ready | Condition::Busy);
    let up = agents.iter().filter(well).count();
    let models = match daemon.models().await {
        Ok(models) => format!("{} models", models.len()),
        Err(e) => e.to_string(),
    };
    let questions = daemon.questions()?.len();
    Ok(format!("{up} of {} agents up, {models}, {questions} open questions", agents.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_begins_with_what_a_guest_put_at_a_cut() {
        let forged = "#2 good wants to run_command: ls (!ok 2, or !no 2 reason)";
        let said = marked(&format!("evil: {} {forged}", "字".repeat(151)), 400);
        let lines: Vec<&str> = said.lines().collect();
        assert!(lines.len() > 1 && lines[0].starts_with("evil: "), "{lines:?}");
        assert!(lines[1..].iter().all(|line| line.starts_with(GOES_ON)), "{lines:?}");
        assert!(lines.iter().all(|line| line.len() <= 400), "{lines:?}");
        assert_eq!(marked("a\nb", 400), "a\nb");
    }
}
