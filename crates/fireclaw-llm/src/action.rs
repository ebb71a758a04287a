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
    let bound = schema::step(model, request, schema::Offer::Tools, on_text).await;
    let mut stepped = match bound {
        // It knows neither tools nor schemas. Words are better than none.
        Err(Error::Refused { status: 400 | 422 | 501, .. }) => {
            let plain = ChatRequest { tools: Vec::new(), ..request.clone() };
            native::say(model, &schema::in_words(&plain), on_text).await?
        }
        other => other?,
    };
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

/// What ends a message in the formats of several models, and is no word of it.
const ENDS: [&str; 6] =
    ["<|im_end|>", "<|eot_id|>", "<|end|>", "<|return|>", "<|endoftext|>", "</s>"];

/// A reply's words, without what a model thought before it spoke and without the marks of
/// its format that a server left in.
fn spoken(content: &str) -> &str {
    let mut said = content.trim();
    // Harmony: channels, of which the final one is for people.
    if let Some(at) = said.rfind(FINAL) {
        said = &said[at + FINAL.len()..];
        said = said.split_once("<|message|>").map_or(said, |(_, words)| words);
    } else if said.starts_with("<|channel|>") || said.starts_with("<|start|>") {
        // It thought, and no more.
        return "";
    } else if let Some((_, after)) = said.rsplit_once("</think>") {
        // Some servers leave out the opening, which is part of the prompt.
        said = after;
    } else if said.starts_with("<think>") {
        return "";
    }
    let end = ENDS.iter().filter_map(|end| said.find(end)).min();
    said[..end.unwrap_or(said.len())].trim()
}

/// Begins the channel for people.
const FINAL: &str = "<|channel|>final";

#[cfg(test)]
mod tests;
