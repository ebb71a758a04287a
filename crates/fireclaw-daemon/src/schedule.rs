//! What starts, ends and is forgotten by the clock.

use std::convert::Infallible;
use std::time::{Duration, SystemTime};

use fireclaw_template::Template;
use tracing::warn;

use crate::daemon::STATE;
use crate::state::{now, write_back};
use crate::{Actor, Daemon, Error, Event};

/// How often the state is looked at for changes to write back.
const WRITE_BACK: Duration = Duration::from_secs(30);

/// How long a changed template may go unnoticed.
const LOOK: Duration = Duration::from_secs(20);

impl Daemon {
    /// Starts and ends agents by the clock, ends questions, and keeps the state in order, until
    /// dropped.
    pub async fn keep_schedule(&self) -> Infallible {
        tokio::join!(run(self), self.end_questions(), write_state_back(self)).0
    }
}

/// Keeps the state's write-ahead log small, until dropped.
async fn write_state_back(daemon: &Daemon) -> Infallible {
    let path = daemon.config().home.root().join(STATE);
    loop {
        tokio::time::sleep(WRITE_BACK).await;
        let path = path.clone();
        let written = tokio::task::spawn_blocking(move || write_back(&path)).await;
        if let Ok(Err(problem)) = written {
            warn!(%problem, "changes to the state were not written back");
        }
    }
}

/// Starts agents whose templates are due, and ends those whose time is up, until
/// dropped.
///
/// What was due while no daemon ran, or while the host slept for longer than until the
/// next time, is not made up for.
async fn run(daemon: &Daemon) -> Infallible {
    let mut looked = SystemTime::now();
    loop {
        let at = SystemTime::now();
        end_overdue(daemon).await;
        let templates = scheduled(daemon);
        for template in &templates {
            if next(template, looked).is_some_and(|due| due <= at) {
                start(daemon, template).await;
            }
        }
        looked = at;
        let due = templates.iter().filter_map(|template| next(template, at)).min();
        tokio::select! {
            () = tokio::time::sleep(pause(at, due, next_end(daemon))) => {}
            () = daemon.shared().due.notified() => {}
        }
    }
}

fn scheduled(daemon: &Daemon) -> Vec<Template> {
    let entries = daemon.templates().unwrap_or_default();
    let templates = entries.iter().filter_map(|entry| daemon.template(&entry.name).ok());
    templates.filter(|template| template.schedule.is_some()).collect()
}

fn next(template: &Template, after: SystemTime) -> Option<SystemTime> {
    template.schedule.as_ref()?.next_after(after)
}

async fn start(daemon: &Daemon, template: &Template) {
    let shared = daemon.shared();
    match daemon.invoke_scheduled(template).await {
        Ok(agent) => shared.tell(Event::Due { agent }),
        Err(Error::NameTaken { name: agent }) => shared.tell(Event::ScheduleSkipped { agent }),
        Err(e) => shared.trouble(format!("{} is due, but: {e}", template.name)),
    }
}

async fn end_overdue(daemon: &Daemon) {
    for (name, ends) in daemon.ends().unwrap_or_default() {
        if ends <= now()
            && let Err(e) = daemon.destroy(&Actor::Schedule, &name, why(daemon, &name)).await
        {
            daemon.shared().tell(Event::trouble(&name, e));
        }
    }
}

/// Why an agent is ended by the clock.
fn why(daemon: &Daemon, name: &str) -> &'static str {
    match daemon.has_done_its_task(name) {
        true => "its task is done",
        false => "its time is up",
    }
}

/// In how many seconds the next agent's time is up.
fn next_end(daemon: &Daemon) -> Option<Duration> {
    let ends = daemon.ends().unwrap_or_default();
    let first = ends.into_iter().map(|(_, ends)| ends).min()?;
    Some(Duration::from_secs(u64::try_from(first - now()).unwrap_or(0)))
}

/// Until when nothing is to be done.
fn pause(at: SystemTime, due: Option<SystemTime>, end: Option<Duration>) -> Duration {
    // A second is the clock's grain, and one that stands still must not make us spin.
    const LEAST: Duration = Duration::from_secs(1);
    let due = due.map(|due| due.duration_since(at).unwrap_or_default());
    [Some(LOOK), due, end].into_iter().flatten().min().unwrap_or(LOOK).max(LEAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_sleeps_until_something_is_to_be_done() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let in_seconds = |n| Duration::from_secs(n);
        let due = |n| Some(at + in_seconds(n));
        assert_eq!(pause(at, None, None), LOOK);
        assert_eq!(pause(at, due(5), None), in_seconds(5));
        assert_eq!(pause(at, due(5), Some(in_seconds(3))), in_seconds(3));
        assert_eq!(pause(at, due(3600), None), LOOK);
        // What is past is dealt with at once, but not in a circle.
        assert_eq!(pause(at, Some(at - in_seconds(9)), Some(in_seconds(0))), in_seconds(1));
    }
}
