//! One step of an agent: the model says something or calls tools, whichever way it can.

mod native;
mod partial;
mod schema;
mod tools;

use crate::{Abilities, ChatModel, ChatRequest, Error, Message, OnText, Result, Role, Usage};

pub use fireclaw_protocol::agent::Step;

/// How a step came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The server's own tool calling, or no tools at all.
    Native,
    /// A reply bound by a JSON schema, because the model cannot do better.
    Schema,
}

/// A step, and what it took.
#[derive(Debug, Clone, PartialEq)]
pub struct Stepped {
    /// What the agent does.
    pub step: Step,
    /// How it came about.
    pub mode: Mode,
    /// The tokens of all requests that it took.
    pub usage: Usage,
    /// What is said ends early, at the most tokens.
    pub truncated: bool,
}

/// Lets a model take one step.
///
/// Tools are offered the server's way if it has one. If that fails, or the model calls what
/// is not there, it is asked once more, with a reply bound by a JSON schema. A call that
/// was just answered is not made again: the model is asked for words instead.
///
/// `on_text` hears words while they are written. They are a preview: what counts is the
/// step, which may yet be a call.
///
/// # Errors
/// Those of [`ChatModel::chat`]; [`Error::Senseless`] if nothing of use came.
pub async fn step(
    model: &dyn ChatModel,
    abilities: Abilities,
    request: &ChatRequest,
    on_text: OnText<'_>,
) -> Result<Stepped> {
    let mut spent = Usage::default();
    if request.tools.is_empty() {
        return native::say(model, request, on_text).await;
    }
    if abilities.native_tools {
        match native::step(model, request, on_text).await {
            Ok((Some(stepped), _)) if !repeats(&request.messages, &stepped.step) => {
                return Ok(stepped);
            }
            Ok((_, usage)) => spent = spent + usage,
            // 500: llama.cpp, when the model calls a tool that it invented. 400: Ollama,
            // when the model's template has no tools; vLLM, when it was not set up for them.
            Err(Error::Refused { status: 400 | 422 | 500 | 501, .. }) => {}
            Err(error) => return Err(error),
        }
    }
    let mut stepped = schema::step(model, request, schema::Offer::Tools, on_text).await?;
    if repeats(&request.messages, &stepped.step) {
        spent = spent + stepped.usage;
        stepped = schema::step(model, request, schema::Offer::ReplyOnly, on_text).await?;
    }
    stepped.usage = stepped.usage + spent;
    Ok(stepped)
}

/// Whether a step only makes calls again whose results are the last that was said.
fn repeats(messages: &[Message], step: &Step) -> bool {
    let Step::Call(calls) = step else { return false };
    let last = messages.iter().rev().find(|message| message.role != Role::Tool);
    let Some(last) = last.filter(|last| last.role == Role::Assistant) else { return false };
    calls.iter().all(|call| last.tool_calls.iter().any(|made| made.is_same(call)))
}

/// A reply's words, without what a model thought before it spoke.
fn spoken(content: &str) -> &str {
    let content = content.trim();
    match content.strip_prefix("<think>") {
        Some(thought) => thought.split_once("</think>").map_or("", |(_, said)| said.trim()),
        None => content,
    }
}

#[cfg(test)]
mod tests;
