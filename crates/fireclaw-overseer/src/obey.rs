//! What each command does, and what is said to it.

use fireclaw_daemon::{Actor, Handle, Listed, NetworkStatus, Question, Result};

use fireclaw_template::Entry;

use crate::advice;
use crate::command::{self, Command, HELP};

/// Does what somebody asks; what is said to that, if anything is left to say.
pub async fn obey(daemon: &Handle, who: &Actor, command: Command) -> Option<String> {
    match answer(daemon, who, command).await {
        Ok(said) => said,
        Err(e) => Some(advice::error(&e)),
    }
}

async fn answer(daemon: &Handle, who: &Actor, command: Command) -> Result<Option<String>> {
    Ok(Some(match command {
        Command::Invoke { template, name } => {
            let name = daemon.invoke(who, &template, name.as_deref(), None).await?;
            format!("{name} is starting")
        }
        Command::Destroy { name } => {
            daemon.destroy(who, &name, &format!("destroyed by {who}")).await?;
            format!("{name} stopped; its workspace is kept")
        }
        Command::List => {
            lines(daemon.list().await?.iter().map(line), "no agents; !invoke <template>")
        }
        Command::Status => status(daemon).await?,
        Command::Model { name, model } => {
            daemon.set_model(who, &name, &model).await?;
            format!("{name}: model changed to {model}")
        }
        Command::Models => {
            let models = daemon.models().await?;
            let names: Vec<_> = models.into_iter().map(|model| model.name).collect();
            match &names[..] {
                [] => "the model server has no model".to_owned(),
                names => names.join(", "),
            }
        }
        Command::Persona { name, text: None } => {
            format!("{name}: {}", daemon.persona(&name).await?)
        }
        Command::Persona { name, text: Some(text) } => {
            daemon.set_persona(who, &name, &text).await?;
            format!("{name}: persona changed")
        }
        Command::Templates => {
            let mut listed = Vec::new();
            for Entry { name, .. } in daemon.templates().await? {
                listed.push(match daemon.template(&name).await {
                    Ok(template) => {
                        let model = template.model.unwrap_or_else(|| "its own program".into());
                        format!("{name} ({model}): {}", template.description)
                    }
                    Err(_) => format!("{name}: has mistakes; run `fireclaw template check {name}`"),
                });
            }
            lines(listed.into_iter(), "no templates")
        }
        Command::Pause { name } => {
            daemon.pause(who, &name, true).await?;
            format!("{name} is paused")
        }
        Command::Resume { name } => {
            daemon.pause(who, &name, false).await?;
            format!("{name} resumed")
        }
        Command::Logs { name, lines: most } => {
            let log = daemon.logs(&name, most).await?;
            lines(log.into_iter(), "the log is empty")
        }
        Command::Net { name } => match daemon.network(&name).await? {
            None => format!(
                "{name} has no network interface: its template says network = \"none\"; change \
                 that, then !destroy {name} and !invoke it again"
            ),
            Some(status) => network(&name, &status),
        },
        Command::Allow { name, target } => {
            // The question itself is the answer.
            daemon.ask_to_reach(who, &name, &target).await?;
            return Ok(None);
        }
        Command::Reload { name: None } => {
            daemon.reload().await?;
            "templates reloaded".to_owned()
        }
        Command::Reload { name: Some(name) } => {
            daemon.reset(who, &name).await?;
            format!("{name} reset to its template")
        }
        Command::Questions => {
            let open = daemon.questions().await?;
            lines(open.iter().map(question), "no open questions")
        }
        Command::Ok { id, digest } => {
            let question = daemon.grant(who, id, digest.as_deref()).await?;
            format!("#{id} approved for {}", question.agent)
        }
        Command::No { id, reason } => {
            let question = daemon.refuse(who, id, &reason).await?;
            format!("#{id} refused for {}", question.agent)
        }
        Command::Help { command: Some(command) } => command::usage(&command),
        Command::Help { command: None } => {
            let names: Vec<_> = HELP.iter().map(|(name, ..)| format!("!{name}")).collect();
            format!("{} - !help <command> says more", names.join(" "))
        }
    }))
}

/// All of a question. One that is too long is never put.
fn question(question: &Question) -> String {
    let id = question.id;
    advice::question(question).unwrap_or_else(|| format!("#{id}: too long to be shown"))
}

/// What an agent may reach, and the last that was refused: in one line each.
fn network(name: &str, status: &NetworkStatus) -> String {
    const SHOWN: usize = 5;
    let first = format!(
        "{name}: {}, at {}, {} refused",
        status.policy, status.interface.address, status.denied
    );
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

async fn status(daemon: &Handle) -> Result<String> {
    let agents = daemon.list().await?;
    let up = agents.iter().filter(|agent| agent.status.condition.is_up()).count();
    let models = match daemon.models().await {
        Ok(models) => format!("{} models", models.len()),
        Err(e) => advice::error(&e),
    };
    let questions = daemon.questions().await?.len();
    Ok(format!("{up} of {} agents up, {models}, {questions} open questions", agents.len()))
}
