//! What happens, for whoever wants to know: facts, without advice. What can be done about
//! something is said by the front that a person uses.

use std::fmt;
use std::time::Duration;

use fireclaw_policy::Network;
use serde::Serialize;
use tokio::sync::broadcast;
use tracing::info;

use crate::question::Question;
use crate::{Actor, Error};

/// How many events wait for a reader. One who is further behind misses the oldest, and hears
/// how many.
pub(crate) const ROOM: usize = 256;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Event {
    /// An agent was started by a program or a person of this host.
    Started {
        /// The agent.
        agent: String,
        /// Who had it started.
        by: Actor,
    },
    /// An agent was ended by a program or a person of this host.
    Stopped {
        /// The agent.
        agent: String,
        /// Who had it ended.
        by: Actor,
    },
    /// An agent starts because its schedule says so.
    Due {
        /// The agent.
        agent: String,
    },
    /// An agent was due that runs already.
    ScheduleSkipped {
        /// The agent.
        agent: String,
    },
    /// An agent listens.
    Ready {
        /// The agent.
        agent: String,
    },
    /// An agent lost its VM.
    Lost {
        /// The agent.
        agent: String,
        /// What became of the VM.
        why: String,
        /// How often in a row it lost one.
        losses: u32,
        /// When it gets another; none if it is given up.
        #[serde(rename = "retry_in_seconds", serialize_with = "seconds")]
        retry_in: Option<Duration>,
    },
    /// A VM that outlived the daemon could not be taken over, and is replaced.
    Replaced {
        /// The agent.
        agent: String,
        /// Why.
        why: String,
    },
    /// An agent could not be restored when the daemon started.
    FailedToRestore {
        /// The agent.
        agent: String,
        /// Why.
        problem: String,
    },
    /// An agent's model cannot be asked.
    NoModel {
        /// The agent.
        agent: String,
        /// Why.
        problem: String,
        /// Whether the server answers, and does not have the model.
        is_missing: bool,
    },
    /// An agent has another nick than it wants.
    Renamed {
        /// The agent.
        agent: String,
        /// Its nick for now.
        nick: String,
    },
    /// The chat server does not let an agent in.
    KeptOut {
        /// The agent.
        agent: String,
        /// The server's words.
        reason: String,
        /// When it tries again; none if it does not.
        #[serde(rename = "retry_in_seconds", serialize_with = "seconds")]
        retry_in: Option<Duration>,
    },
    /// A channel does not let an agent in.
    CannotJoin {
        /// The agent.
        agent: String,
        /// The channel.
        channel: String,
        /// The server's words.
        reason: String,
    },
    /// Agents answer each other, and are stopped for a while.
    ReplyLoop {
        /// Who spoke.
        from: String,
        /// Who would have answered.
        to: String,
    },
    /// An agent's program tells people something: a guest's words.
    Says {
        /// The agent.
        agent: String,
        /// What.
        text: String,
    },
    /// It told too much.
    LeftOut {
        /// The agent.
        agent: String,
        /// How many lines.
        count: u64,
    },
    /// People have to decide on something.
    Asked(Box<Question>),
    /// A question is no longer asked.
    QuestionWithdrawn {
        /// Its number.
        id: u64,
        /// Who asked.
        agent: String,
    },
    /// Nobody answered a question in time.
    QuestionExpired {
        /// Its number.
        id: u64,
        /// Who asked.
        agent: String,
    },
    /// An agent has another network policy.
    PolicyChanged {
        /// The agent.
        agent: String,
        /// The policy.
        policy: String,
    },
    /// A network policy counts from an agent's next VM on.
    PolicyDeferred {
        /// The agent.
        agent: String,
        /// The policy.
        policy: String,
    },
    /// An agent could not take its template on.
    Unchanged {
        /// The agent.
        agent: String,
        /// Why.
        problem: String,
    },
    /// A VM that was nobody's was ended and cleared away.
    Cleared {
        /// Its id.
        sandbox: String,
    },
    /// VMs run that the state does not know; they are left as they are.
    Spared {
        /// Their ids.
        sandboxes: Vec<String>,
    },
    /// Something about this host or a VM that is worth knowing.
    Note {
        /// What.
        text: String,
    },
    /// Something could not be done.
    Trouble {
        /// Whom it concerns, if one.
        agent: Option<String>,
        /// What, and why.
        problem: String,
    },
}

impl Event {
    pub(crate) fn trouble(agent: &str, problem: impl fmt::Display) -> Self {
        Self::Trouble { agent: Some(agent.to_owned()), problem: problem.to_string() }
    }

    pub(crate) fn no_model(agent: &str, error: &Error) -> Self {
        let (agent, problem) = (agent.to_owned(), error.to_string());
        Self::NoModel { agent, problem, is_missing: error.is_missing_model() }
    }

    /// The policy that an agent has now, or has from its next VM on.
    pub(crate) fn policy(agent: &str, policy: &Network, counts_now: bool) -> Self {
        let (agent, policy) = (agent.to_owned(), policy.to_string());
        match counts_now {
            true => Self::PolicyChanged { agent, policy },
            false => Self::PolicyDeferred { agent, policy },
        }
    }

    /// What happened as one line that is safe to be shown: guests have a part in it.
    ///
    /// A question is more than a line, see [`Question::lines`].
    pub fn text(&self) -> String {
        fireclaw_host::escape(&self.to_string())
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started { agent, by } => write!(f, "{agent} was started by {by}"),
            Self::Stopped { agent, by } => write!(f, "{agent} was stopped by {by}"),
            Self::Due { agent } => write!(f, "{agent} starts on schedule"),
            Self::ScheduleSkipped { agent } => {
                write!(f, "{agent}: scheduled run skipped: it is already running")
            }
            Self::Ready { agent } => write!(f, "{agent} is ready"),
            Self::Lost { agent, why, retry_in: Some(pause), .. } => {
                write!(f, "{agent} is down: {why}; restarting in {} s", pause.as_secs())
            }
            Self::Lost { agent, why, losses, retry_in: None } => {
                write!(f, "{agent} is down: it failed {losses} times in a row; giving up: {why}")
            }
            Self::Replaced { agent, why } => write!(f, "{agent} gets a new VM: {why}"),
            Self::FailedToRestore { agent, problem } => {
                write!(f, "{agent} failed to restore: {problem}")
            }
            Self::NoModel { agent, problem, .. } => write!(f, "{agent} will not answer: {problem}"),
            Self::Renamed { agent, nick } => write!(f, "{agent} is temporarily named {nick}"),
            Self::KeptOut { agent, reason, retry_in: Some(pause) } => {
                let minutes = pause.as_secs().div_ceil(60);
                write!(
                    f,
                    "{agent} was rejected by the IRC server: {reason}; retrying in {minutes} min"
                )
            }
            Self::KeptOut { agent, reason, retry_in: None } => {
                write!(f, "{agent} was rejected by the IRC server: {reason}")
            }
            Self::CannotJoin { agent, channel, reason } => {
                write!(f, "{agent} cannot join {channel}: {reason}")
            }
            Self::ReplyLoop { from, to } => {
                write!(f, "reply loop between {from} and {to} detected; pausing")
            }
            Self::Says { agent, text } => write!(f, "{agent}: {text}"),
            Self::LeftOut { agent, count } => {
                write!(f, "{agent}: {count} more notes suppressed")
            }
            Self::Asked(question) => {
                write!(f, "#{}: {} asks for approval", question.id, question.agent)
            }
            Self::QuestionWithdrawn { id, agent } => {
                write!(f, "#{id} was withdrawn by {agent}")
            }
            Self::QuestionExpired { id, .. } => {
                write!(f, "#{id} expired: nobody answered in time")
            }
            Self::PolicyChanged { agent, policy } => write!(f, "{agent}: network policy {policy}"),
            Self::PolicyDeferred { agent, policy } => {
                write!(f, "{agent}: network policy {policy} takes effect at its next start")
            }
            Self::Unchanged { agent, problem } => {
                write!(f, "{agent} is unchanged: {problem}")
            }
            Self::Cleared { sandbox } => write!(f, "removed orphaned VM {sandbox}"),
            Self::Spared { sandboxes } => write!(
                f,
                "{} VM(s) are running that state.db does not know: was it emptied or lost? They keep running",
                sandboxes.len()
            ),
            Self::Note { text } => f.write_str(text),
            Self::Trouble { agent: Some(agent), problem } => write!(f, "{agent}: {problem}"),
            Self::Trouble { agent: None, problem } => f.write_str(problem),
        }
    }
}

fn seconds<S: serde::Serializer>(time: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
    time.map(|time| time.as_secs()).serialize(to)
}

/// What the log calls events.
const EVENT: &str = "fireclaw_daemon::event";

/// Logs it.
fn log(event: &Event) {
    info!(target: EVENT, "{}", event.text());
}

/// Tells everybody who listens. It is in the log before.
pub fn tell(events: &broadcast::Sender<Event>, event: Event) {
    log(&event);
    // Nobody need listen.
    let _ = events.send(event);
}

/// Events as they come, from when this was made on.
#[derive(Debug)]
pub struct Events(pub(crate) broadcast::Receiver<Event>);

impl Events {
    /// The next one, or how many of the oldest were missed: the reader was too slow. None
    /// once the daemon has gone. Cancel-safe.
    pub async fn next(&mut self) -> Option<Result<Event, u64>> {
        match self.0.recv().await {
            Ok(event) => Some(Ok(event)),
            Err(broadcast::error::RecvError::Lagged(count)) => Some(Err(count)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_harmless_line_and_one_object() {
        let event = Event::Says { agent: "worker".into(), text: "a\nb\x1b[2J\u{202e}".into() };
        assert_eq!(event.text(), "worker: a\\u{a}b\\u{1b}[2J\\u{202e}");
        let event = Event::Lost {
            agent: "worker".into(),
            why: "it went".into(),
            losses: 1,
            retry_in: Some(Duration::from_secs(2)),
        };
        assert_eq!(event.text(), "worker is down: it went; restarting in 2 s");
        assert_eq!(
            serde_json::to_value(&event).unwrap(),
            serde_json::json!({
                "event": "lost", "agent": "worker", "why": "it went", "losses": 1,
                "retry_in_seconds": 2,
            })
        );
    }

    #[tokio::test]
    async fn every_reader_hears_everything_or_how_much_it_missed() {
        let (tell, first) = broadcast::channel(ROOM);
        let (mut fast, mut slow) = (Events(first), Events(tell.subscribe()));
        let ready = |n: usize| Event::Ready { agent: format!("a{n}") };
        for n in 0..ROOM + 3 {
            tell.send(ready(n)).unwrap();
            assert_eq!(fast.next().await, Some(Ok(ready(n))));
        }
        assert_eq!(slow.next().await, Some(Err(3)));
        assert_eq!(slow.next().await, Some(Ok(ready(3))));
        drop(tell);
        assert_eq!(fast.next().await, None);
    }
}
