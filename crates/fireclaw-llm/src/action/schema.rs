//! A step as a reply bound by a JSON schema, for models that cannot call tools.
//!
//! The server lets the model write nothing but `{"action": …, "argument": …}` with an
//! action that exists. Even half a billion parameters suffice for that, given examples.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::calls::new_id;
use crate::{ChatModel, ChatRequest, Error, Message, OnText, Result, Role, Tool, ToolCall};

use super::partial::ReplyText;
use super::{Mode, Step, Stepped, spoken, tools};

/// The action that is no tool.
const REPLY: &str = "reply";

/// The most examples that are shown, of about 100 tokens each: more would fill a small
/// model's context.
const MAX_EXAMPLES: usize = 7;

/// What a model may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// Reply or call a tool.
    Tools,
    /// Reply and nothing else.
    ReplyOnly,
}

/// Asks for one action.
pub async fn step(
    model: &dyn ChatModel,
    request: &ChatRequest,
    offer: Offer,
    on_text: OnText<'_>,
) -> Result<Stepped> {
    let tools: &[Tool] = if offer == Offer::Tools { &request.tools } else { &[] };
    let bound = ChatRequest {
        messages: messages(request, offer),
        tools: Vec::new(),
        schema: Some(schema(tools)),
        // The likeliest action, not one drawn by lot.
        temperature: request.temperature.or(Some(0.0)),
        ..request.clone()
    };
    let mut text = ReplyText::default();
    let reply = model
        .chat(&bound, &mut |piece| {
            let words = text.feed(piece);
            if !words.is_empty() {
                on_text(&words);
            }
        })
        .await?;
    let step = match judge(spoken(&reply.content), tools) {
        Some(step) => step,
        None if reply.truncated && !text.so_far().trim().is_empty() => {
            Step::Say(text.so_far().trim().to_owned())
        }
        None if reply.truncated => {
            return Err(senseless("it did not come to an end within the most tokens"));
        }
        None => return Err(senseless("it did nothing that it may")),
    };
    Ok(Stepped { step, mode: Mode::Schema, usage: reply.usage, truncated: reply.truncated })
}

fn senseless(problem: &str) -> Error {
    Error::Senseless { problem: problem.to_owned() }
}

pub(super) fn judge(content: &str, tools: &[Tool]) -> Option<Step> {
    let Ok(object) = serde_json::from_str::<Value>(content) else {
        // A server that does not know schemas: words are words.
        let words = !content.is_empty() && !content.starts_with('{');
        return words.then(|| Step::Say(content.to_owned()));
    };
    let action = object.get("action")?.as_str()?;
    let argument = object.get("argument")?;
    if action != REPLY {
        let id = new_id();
        let call = ToolCall { id, name: action.to_owned(), arguments: argument.clone() };
        return tools::fit(tools, call).map(|call| Step::Call(vec![call]));
    }
    let said = argument.as_str().map_or_else(|| argument.to_string(), |text| text.trim().into());
    (!said.is_empty()).then_some(Step::Say(said))
}

fn schema(tools: &[Tool]) -> Value {
    let one = |action: &str, argument: Value| {
        json!({
            "type": "object",
            "properties": {"action": {"const": action}, "argument": argument},
            "required": ["action", "argument"],
            "additionalProperties": false,
        })
    };
    let text = json!({"type": "string"});
    let actions = tools.iter().map(|tool| {
        let object = match &tool.parameters {
            parameters @ Value::Object(map) if !map.is_empty() => parameters.clone(),
            _ => json!({"type": "object"}),
        };
        // Small models get text right more often than an object with one text in it.
        one(&tool.name, if tools::sole_text(tool).is_some() { text.clone() } else { object })
    });
    match std::iter::once(one(REPLY, text.clone())).chain(actions).collect::<Vec<_>>() {
        mut only if only.len() == 1 => only.remove(0),
        all => json!({"anyOf": all}),
    }
}

/// A request whose calls and results are told in words, for a server without tools.
pub fn in_words(request: &ChatRequest) -> ChatRequest {
    let told = request.messages.iter().map(|message| match message.role {
        Role::Tool => Message::user(result("the action", &message.content)),
        _ if !message.tool_calls.is_empty() => {
            let calls = message.tool_calls.iter().map(|call| act(&call.name, &call.arguments));
            Message::assistant(calls.collect::<Vec<_>>().join("\n"))
        }
        _ => message.clone(),
    });
    let mut messages = Vec::new();
    told.for_each(|message| push(&mut messages, message));
    ChatRequest { messages, schema: None, ..request.clone() }
}

/// The conversation in words that need neither tools nor two messages of one side in a row,
/// which some models' templates refuse.
fn messages(request: &ChatRequest, offer: Offer) -> Vec<Message> {
    let (system, talk): (Vec<_>, Vec<_>) =
        request.messages.iter().partition(|message| message.role == Role::System);
    let mut instructions = String::new();
    for message in system {
        let _ = writeln!(instructions, "{}\n", message.content);
    }
    instructions.push_str(&explain(&request.tools));
    let mut out = vec![Message::system(instructions)];
    out.extend(examples(&request.tools));
    let mut names = Vec::new();
    for message in talk {
        names.extend(message.tool_calls.iter().map(|call| (&call.id, &call.name)));
        match message.role {
            Role::Assistant if message.tool_calls.is_empty() => {
                push(&mut out, Message::assistant(act(REPLY, &json!(message.content))));
            }
            Role::Assistant => {
                for call in &message.tool_calls {
                    let tool = request.tools.iter().find(|tool| tool.name == call.name);
                    let argument = short(tool, &call.arguments);
                    push(&mut out, Message::assistant(act(&call.name, argument)));
                }
            }
            Role::Tool => {
                let id = message.tool_call_id.as_ref();
                let called = names.iter().rev().find(|(known, _)| Some(*known) == id);
                let name = called.map_or("the action", |(_, name)| name.as_str());
                push(&mut out, Message::user(result(name, &message.content)));
            }
            Role::User | Role::System => push(&mut out, Message::user(&message.content)),
        }
    }
    if offer == Offer::ReplyOnly {
        let now = "You have this result already. Reply now, with what it says.";
        push(&mut out, Message::user(now));
    }
    out
}

fn push(messages: &mut Vec<Message>, message: Message) {
    match messages.last_mut().filter(|last| last.role == message.role) {
        Some(last) if message.role == Role::User => {
            last.content.push('\n');
            last.content.push_str(&message.content);
        }
        Some(_) => {
            // Two actions in one message would teach it to write two.
            messages.push(Message::user("…"));
            messages.push(message);
        }
        None => messages.push(message),
    }
}

fn explain(tools: &[Tool]) -> String {
    let mut out = String::from(
        "You act by answering with one JSON object and nothing else: \
         {\"action\": ACTION, \"argument\": ARGUMENT}\n\
         These are the actions:\n\
         - reply: say ARGUMENT, a text, to the person.\n",
    );
    for tool in tools {
        let _ = write!(out, "- {}: {}", tool.name, tool.description.trim());
        let _ = match (tools::sole_text(tool), tools::properties(tool)) {
            (Some(name), _) => writeln!(out, " ARGUMENT is a text: the {name}."),
            (None, Some(properties)) => {
                writeln!(out, " ARGUMENT is an object: {}", Value::Object(properties.clone()))
            }
            (None, None) => writeln!(out, " ARGUMENT is an empty object."),
        };
    }
    out.push_str(
        "What you know of your machine, your files or the outside comes from actions alone: take \
         the action first, and never invent its result. Its result comes in the next message; \
         then reply with what it says. For a greeting, small talk or what everybody knows, reply \
         at once.",
    );
    out
}

/// The first turns of the conversation, made up to show how it goes.
fn examples(tools: &[Tool]) -> Vec<Message> {
    let mut out = vec![
        Message::user("hello"),
        Message::assistant(act(REPLY, &json!("Hello! What can I do for you?"))),
        Message::user("what is the capital of Italy?"),
        Message::assistant(act(REPLY, &json!("Rome."))),
    ];
    // Those with actions come last, and of them those of the first tool: what was seen last
    // is what a small model does, and the first tool is the most useful one.
    let all =
        tools.iter().flat_map(|tool| tool.examples.iter().map(move |example| (tool, example)));
    let shown: Vec<_> = all.take(MAX_EXAMPLES).collect();
    for (tool, example) in shown.into_iter().rev() {
        out.push(Message::user(&example.request));
        out.push(Message::assistant(act(&tool.name, short(Some(tool), &example.arguments))));
        out.push(Message::user(result(&tool.name, &example.result)));
        out.push(Message::assistant(act(REPLY, &json!(example.reply))));
    }
    out
}

fn result(name: &str, result: &str) -> String {
    format!("Result of {name}:\n{}", result.trim_end())
}

/// Arguments as the schema wants them.
fn short<'a>(tool: Option<&Tool>, arguments: &'a Value) -> &'a Value {
    tool.and_then(tools::sole_text).and_then(|name| arguments.get(name)).unwrap_or(arguments)
}

fn act(action: &str, argument: &Value) -> String {
    json!({"action": action, "argument": argument}).to_string()
}
