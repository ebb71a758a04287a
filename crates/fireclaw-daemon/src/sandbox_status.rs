//! How a named sandbox is.

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// How a named sandbox is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SandboxCondition {
    /// It has never run.
    Created,
    /// Its VM boots.
    Starting,
    /// Its VM runs.
    Running,
    /// Its program is about to end.
    Stopping,
    /// Its program has ended and is started again soon.
    Restarting,
    /// It has ended. Its disk is kept.
    Exited,
    /// It could not be started.
    Failed,
}

impl SandboxCondition {
    /// Every condition.
    pub const ALL: [Self; 7] = [
        Self::Created,
        Self::Starting,
        Self::Running,
        Self::Stopping,
        Self::Restarting,
        Self::Exited,
        Self::Failed,
    ];

    /// The word for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Restarting => "restarting",
            Self::Exited => "exited",
            Self::Failed => "failed",
        }
    }

    /// What may follow. `docs/architecture.md` draws it; a test compares.
    pub fn next(self) -> &'static [Self] {
        use SandboxCondition::{Exited, Failed, Restarting, Running, Starting, Stopping};
        match self {
            Self::Created | Exited | Failed => &[Starting],
            Starting => &[Running, Exited, Failed, Restarting],
            Running => &[Stopping, Exited, Restarting],
            Stopping => &[Exited],
            Restarting => &[Starting, Exited],
        }
    }

    /// Whether nothing of it runs, and nothing will by itself.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Created | Self::Exited | Self::Failed)
    }
}

/// What is known of a named sandbox from outside.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SandboxStatus {
    /// How it is.
    pub condition: SandboxCondition,
    /// The exit status of its program, the last time that it ended.
    pub status: Option<u8>,
    /// What was wrong last.
    pub problem: Option<String>,
    /// The process id of its VMM.
    pub pid: Option<u32>,
    /// How often it was started again by itself since somebody started it.
    pub restarts: u32,
    /// The ports that are published now: `HOST_ADDRESS:PORT:GUEST_PORT`, with the port that was
    /// picked where any would do.
    pub ports: Vec<String>,
}

/// The one place that changes it.
#[derive(Debug)]
pub struct Progress(watch::Sender<SandboxStatus>);

impl Progress {
    /// Of a sandbox that begins like this.
    pub fn new(status: SandboxStatus) -> (Self, watch::Receiver<SandboxStatus>) {
        let (tell, told) = watch::channel(status);
        (Self(tell), told)
    }

    /// How it is.
    pub fn condition(&self) -> SandboxCondition {
        self.0.borrow().condition
    }

    /// It has no VM any more, and goes on to `next`.
    pub fn ended(
        &self,
        next: SandboxCondition,
        status: Option<u8>,
        problem: Option<String>,
        restarts: u32,
    ) {
        self.to(next, |of| {
            let condition = of.condition;
            *of = SandboxStatus {
                condition,
                status,
                problem,
                pid: None,
                restarts,
                ports: Vec::new(),
            };
        });
    }

    /// It goes on to `next`, and something else of it changes as well.
    pub fn to(&self, next: SandboxCondition, change: impl FnOnce(&mut SandboxStatus)) {
        let now = self.condition();
        debug_assert!(now == next || now.next().contains(&next), "from {now:?} to {next:?}");
        self.0.send_modify(|status| {
            status.condition = next;
            change(status);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_picture_is_the_table() {
        let text = include_str!("../../../docs/architecture.md");
        let drawn = text.split("stateDiagram-v2").nth(2).unwrap().split("```").next().unwrap();
        let arrows = drawn.lines().filter_map(|line| line.trim().split_once(" --> "));
        let drawn: BTreeSet<_> =
            arrows.filter(|(from, to)| ![from, to].contains(&&"[*]")).collect();
        let arrows = |from: SandboxCondition| from.next().iter().map(move |to| (from, *to));
        let table = SandboxCondition::ALL.into_iter().flat_map(arrows);
        let table: BTreeSet<_> = table.map(|(from, to)| (from.as_str(), to.as_str())).collect();
        assert_eq!(drawn, table);
    }
}
