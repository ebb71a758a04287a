//! What the service manager that started us is told (sd_notify(3)). Without one, nothing
//! is.

use std::convert::Infallible;
use std::time::Duration;

use fireclaw_daemon::Daemon;
use fireclaw_say::say;
use sd_notify::NotifyState;

/// How often the status is looked at if there is no watchdog.
const LOOK: Duration = Duration::from_secs(30);

/// Says that the overseer serves, and from then on that it is well. To be polled by the
/// loop that does all the work: one that is stuck is found out by silence.
pub async fn attend(daemon: &Daemon) -> Infallible {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return std::future::pending().await;
    }
    let mut said = status(daemon);
    if let Err(e) = sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(&said)]) {
        say!("fireclaw: cannot notify the service manager: {e}");
    }
    let watchdog = sd_notify::watchdog_enabled();
    let mut tick = tokio::time::interval(watchdog.map_or(LOOK, |limit| limit / 2));
    loop {
        tick.tick().await;
        let now = status(daemon);
        let mut news = Vec::new();
        news.extend(watchdog.map(|_| NotifyState::Watchdog));
        if now != said {
            news.push(NotifyState::Status(&now));
        }
        if !news.is_empty() {
            let _ = sd_notify::notify(&news);
        }
        drop(news);
        said = now;
    }
}

/// Says that the overseer ends because it was asked to.
pub fn stopping() {
    let _ = sd_notify::notify(&[NotifyState::Stopping, NotifyState::Status("ends")]);
}

fn status(daemon: &Daemon) -> String {
    let agents = match daemon.list() {
        Ok(agents) => agents,
        Err(e) => return fireclaw_host::escape(&e.to_string()),
    };
    let count = |has: fn(&fireclaw_daemon::Status) -> bool| {
        agents.iter().filter(|agent| has(&agent.status)).count()
    };
    format!(
        "agents: {}, of them ready: {}; VMs: {}",
        agents.len(),
        count(|agent| agent.condition.is_up()),
        count(|agent| agent.pid.is_some()),
    )
}
