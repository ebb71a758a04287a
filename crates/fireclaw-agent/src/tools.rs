//! The tools that a model may call.

mod command;
mod file;
mod remember;

use fireclaw_protocol::agent::{Action, Config, Incoming, Verdict};
use fireclaw_protocol::chat::{Tool, ToolCall};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::context::{AgentContext, Current};
use crate::host::Reply;
use crate::skills::Skill;
use crate::told::Told;
use crate::{built_in, cut};

/// The longest command, or arguments, that people are asked about, in bytes: what they do
/// not read they cannot allow.
const MAX_ASKED: usize = 4096;

/// The tools of a configuration, skills last.
pub fn offered(config: &Config, skills: &[Skill]) -> Vec<Tool> {
    let skills = skills.iter().map(|skill| Tool {
        name: skill.name.clone(),
        description: skill.description.clone(),
        parameters: skill.parameters.clone(),
        examples: Vec::new(),
    });
    built_in::all(config.may_fetch).into_iter().chain(skills).collect()
}

/// Does what a call asks for, if the rules allow it. The result is for the model, and so
/// is what went wrong.
pub async fn call(
    shared: &AgentContext,
    current: &Current,
    incoming: &Incoming,
    offered: &[Tool],
    call: &ToolCall,
) -> Told {
    if !offered.iter().any(|tool| tool.name == call.name) {
        let names: Vec<&str> = offered.iter().map(|tool| tool.name.as_str()).collect();
        let name = cut::line(&call.name, 64);
        return Told::note(format!("There is no tool {name:?}. There are: {}.", names.join(", ")));
    }
    if !call.arguments.is_object() {
        return Told::note(format!("The arguments of {} have to be a JSON object.", call.name));
    }
    let result = match allowed(shared, current, incoming, call).await {
        Ok(()) => run(shared, current, incoming, call).await,
        Err(refusal) => Err(refusal),
    };
    result.unwrap_or_else(Told::note)
}

/// Whether the rules, or the people, allow a call.
async fn allowed(
    shared: &AgentContext,
    current: &Current,
    incoming: &Incoming,
    call: &ToolCall,
) -> Result<(), String> {
    let what = match call.arguments.get("command").and_then(Value::as_str) {
        Some(command) if call.name == built_in::RUN_COMMAND => command.to_owned(),
        _ => call.arguments.to_string(),
    };
    match current.rules.verdict(&call.name, &what) {
        Verdict::Allow => return Ok(()),
        Verdict::Deny => {
            return Err("This is not allowed by the rules, and was not done. Do not try it in another way; say that you may not do it.".into());
        }
        Verdict::Ask if what.len() > MAX_ASKED => {
            return Err(format!(
                "This needs to be allowed by a person, and is too long to be read by one ({} bytes, at most {MAX_ASKED}). It was not done; make it shorter.",
                what.len()
            ));
        }
        Verdict::Ask => {}
    }
    let (message, tool) = (incoming.id, call.name.clone());
    let approve = |ask| Action::Approve { ask, message, tool, what };
    let no = |reason: String| {
        let reason = cut::line(&reason, 500);
        format!(
            "A person was asked and did not allow this ({reason}), so it was not done. Do not try it in another way."
        )
    };
    match shared.host.ask(approve).await {
        Reply::Approval(true, _) => Ok(()),
        Reply::Approval(false, reason) | Reply::Failed(reason) => Err(no(reason)),
        _ => Err(no("the host answered with something else".into())),
    }
}

async fn run(
    shared: &AgentContext,
    current: &Current,
    incoming: &Incoming,
    call: &ToolCall,
) -> Result<Told, String> {
    let workspace = &shared.paths.workspace;
    match call.name.as_str() {
        built_in::RUN_COMMAND => {
            let Command { command } = arguments(call)?;
            if is_broken_call(&command) {
                return Err("The command is a piece of JSON, not a command. It was not run; call the tool again.".into());
            }
            command::run_shell(workspace, &current.config, command).await.map(Told::data)
        }
        built_in::READ_FILE => {
            file::read(workspace, &arguments::<ReadFile>(call)?.path).map(Told::data)
        }
        built_in::WRITE_FILE => {
            let WriteFile { path, content, run } = arguments(call)?;
            let wrote = file::write(workspace, &path, &content)?;
            let is_wanted = run.as_str() == Some("yes") || run == Value::Bool(true);
            let Some(command) = is_wanted.then(|| file::command_for(&path, &content)).flatten()
            else {
                return Ok(Told::note(wrote));
            };
            let ran = run_script(shared, current, incoming, call, command).await;
            Ok(ran.within(&format!("{wrote} It was run:\n"), ""))
        }
        built_in::SAVE_MEMORY => {
            let SaveMemory { name, text } = arguments(call)?;
            remember::save(shared, incoming, &name, &text).map(Told::note)
        }
        built_in::RECALL => {
            Ok(remember::recall(shared, incoming, &arguments::<Recall>(call)?.query))
        }
        built_in::FETCH_URL => {
            let FetchUrl { url } = arguments(call)?;
            command::fetch(workspace, &current.config, &url).await.map(Told::data)
        }
        name => {
            let skill = shared.skills.borrow().all().iter().find(|s| s.name == name).cloned();
            let skill = skill.ok_or_else(|| format!("The skill {name} is gone."))?;
            let ran = command::run_skill(workspace, &current.config, &skill, &call.arguments).await;
            ran.map(Told::data)
        }
    }
}

/// Runs a script as if a command for it had been called, with the rules that count for that.
async fn run_script(
    shared: &AgentContext,
    current: &Current,
    incoming: &Incoming,
    call: &ToolCall,
    command: String,
) -> Told {
    let name = built_in::RUN_COMMAND.to_owned();
    let arguments = serde_json::json!({ "command": command });
    let call = ToolCall { id: call.id.clone(), name, arguments };
    let ran = match allowed(shared, current, incoming, &call).await {
        Ok(()) => command::run_shell(&shared.paths.workspace, &current.config, command).await,
        Err(refusal) => Err(refusal),
    };
    ran.map_or_else(Told::note, Told::data)
}

/// Whether a command is arguments that could not be read, handed on as they were: a shell
/// must not make something of them.
fn is_broken_call(command: &str) -> bool {
    let inside = command.trim_start().strip_prefix('{').map(str::trim_start);
    inside.is_some_and(|inside| inside.starts_with('"') && inside.contains("\":"))
}

#[derive(Deserialize)]
struct Command {
    command: String,
}

#[derive(Deserialize)]
struct ReadFile {
    path: String,
}

#[derive(Deserialize)]
struct WriteFile {
    path: String,
    content: String,
    #[serde(default)]
    run: Value,
}

#[derive(Deserialize)]
struct SaveMemory {
    name: String,
    text: String,
}

#[derive(Deserialize)]
struct Recall {
    query: String,
}

#[derive(Deserialize)]
struct FetchUrl {
    url: String,
}

fn arguments<T: DeserializeOwned>(call: &ToolCall) -> Result<T, String> {
    T::deserialize(&call.arguments)
        .map_err(|e| format!("The arguments of {} do not fit: {e}.", call.name))
}
