//! Where an agent is in its life: one word at a time, and a table of what may follow.
//!
//! What people *want* of an agent ([`Wanted`](crate::Wanted)) is in the state and outlives
//! the daemon; its condition is what the daemon sees, and begins anew with it.

use fireclaw_say::say;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// How an agent is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    /// Its VM boots, or its program starts.
    Starting,
    /// It listens.
    Ready,
    /// It works on a message.
    Busy,
    /// Its VM is stopped where it is.
    Paused,
    /// It lost its VM and gets another.
    Restarting,
    /// It has no VM and gets none by itself: it lost too many, or could not be restored.
    Failed,
    /// It is on its way out.
    Leaving,
}

impl Condition {
    /// Every condition.
    pub const ALL: [Self; 7] = [
        Self::Starting,
        Self::Ready,
        Self::Busy,
        Self::Paused,
        Self::Restarting,
        Self::Failed,
        Self::Leaving,
    ];

    /// The word for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Busy => "busy",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Failed => "failed",
            Self::Leaving => "leaving",
        }
    }

    /// What may follow. `docs/architecture.md` draws it; a test compares.
    pub fn next(self) -> &'static [Self] {
        use Condition::{Busy, Failed, Leaving, Paused, Ready, Restarting, Starting};
        match self {
            Starting => &[Ready, Busy, Paused, Restarting, Failed, Leaving],
            Ready => &[Busy, Paused, Starting, Restarting, Failed, Leaving],
            Busy => &[Ready, Paused, Starting, Restarting, Failed, Leaving],
            Paused => &[Ready, Busy, Starting, Restarting, Failed, Leaving],
            Restarting | Failed => &[Starting, Leaving],
            Leaving => &[],
        }
    }

    /// Whether its program takes messages, now or after the one that it has.
    pub fn is_up(self) -> bool {
        matches!(self, Self::Ready | Self::Busy)
    }

    /// Whether a VM can be there.
    fn may_have_vm(self) -> bool {
        !matches!(self, Self::Restarting | Self::Failed)
    }
}

/// What is known of an agent from outside.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// How it is.
    pub condition: Condition,
    /// The nick that it has now.
    pub nick: String,
    /// The process id of its VMM: there while it is ready, busy or paused.
    pub pid: Option<u32>,
    /// How often its VM was replaced.
    pub restarts: u32,
    /// What was wrong last.
    pub problem: Option<String>,
}

impl Status {
    /// Of an agent that begins like this.
    pub fn new(condition: Condition, nick: &str) -> Self {
        Self { condition, nick: nick.to_owned(), pid: None, restarts: 0, problem: None }
    }
}

/// The one place that changes an agent's status.
#[derive(Debug)]
pub struct Lifecycle(watch::Sender<Status>);

impl Lifecycle {
    /// Of an agent that starts; its status can be read from the receiver.
    pub fn new(nick: &str) -> (Self, watch::Receiver<Status>) {
        let (tell, status) = watch::channel(Status::new(Condition::Starting, nick));
        (Self(tell), status)
    }

    /// How it is.
    pub fn condition(&self) -> Condition {
        self.0.borrow().condition
    }

    /// The nick that it has now.
    pub fn nick(&self) -> String {
        self.0.borrow().nick.clone()
    }

    /// It goes on to `next`; that it is there already changes nothing.
    pub fn to(&self, next: Condition) {
        let now = self.condition();
        if now == next {
            return;
        }
        if !now.next().contains(&next) {
            // Readers are better served by the truth than by the table.
            say!("fireclaw: an agent went from {} to {}", now.as_str(), next.as_str());
            debug_assert!(false, "from {now:?} to {next:?}");
        }
        self.0.send_modify(|status| {
            status.condition = next;
            if !next.may_have_vm() {
                status.pid = None;
            }
            if next == Condition::Starting
                && matches!(now, Condition::Restarting | Condition::Failed)
            {
                status.restarts += 1;
            }
        });
    }

    /// It lost its VM, and gets another or does not.
    pub fn lost(&self, why: &str, gets_another: bool) {
        self.to(if gets_another { Condition::Restarting } else { Condition::Failed });
        self.0.send_modify(|status| status.problem = Some(why.to_owned()));
    }

    /// Its VM is there.
    pub fn has_vm(&self, pid: Option<u32>) {
        self.0.send_modify(|status| status.pid = pid);
    }

    /// It is called something else.
    pub fn is_called(&self, nick: String) {
        self.0.send_modify(|status| status.nick = nick);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn table() -> BTreeSet<(&'static str, &'static str)> {
        let arrows = |from: Condition| from.next().iter().map(move |to| (from, *to));
        let arrows = Condition::ALL.into_iter().flat_map(arrows);
        arrows.map(|(from, to)| (from.as_str(), to.as_str())).collect()
    }

    #[test]
    fn the_picture_is_the_table() {
        let text = include_str!("../../../docs/architecture.md");
        let drawn = text.split("stateDiagram-v2").nth(1).unwrap().split("```").next().unwrap();
        let arrows = drawn.lines().filter_map(|line| line.trim().split_once(" --> "));
        let drawn: BTreeSet<_> =
            arrows.filter(|(from, to)| ![from, to].contains(&&"[*]")).collect();
        assert_eq!(drawn, table());
    }

    #[test]
    fn whatever_happens_it_can_leave_and_then_nothing_follows() {
        for condition in Condition::ALL {
            let leaves = condition.next().contains(&Condition::Leaving);
            assert_eq!(leaves, condition != Condition::Leaving, "{condition:?}");
            assert!(!condition.next().contains(&condition), "{condition:?}");
        }
        assert!(Condition::Leaving.next().is_empty());
    }

    #[test]
    fn who_lost_a_vm_has_none_from_the_same_moment() {
        for gets_another in [true, false] {
            let (life, status) = Lifecycle::new("worker");
            life.has_vm(Some(7));
            life.to(Condition::Ready);
            assert_eq!(status.borrow().pid, Some(7));
            life.lost("it went away", gets_another);
            let after = status.borrow().clone();
            assert_eq!(after.pid, None);
            assert!(!after.condition.is_up());
            assert_eq!(after.problem.as_deref(), Some("it went away"));
            assert_eq!(after.restarts, 0);
            life.to(Condition::Starting);
            assert_eq!(status.borrow().restarts, 1);
        }
    }

    #[test]
    #[should_panic(expected = "from Leaving to Ready")]
    fn who_has_left_does_not_come_back() {
        let (life, _status) = Lifecycle::new("worker");
        life.to(Condition::Leaving);
        life.to(Condition::Ready);
    }
}
