//! The documents of OpenAI's API, with the fields that are used, and llama.cpp's `/props`.
//!
//! Sources: OpenAI's API reference, "Chat Completions"; llama.cpp's
//! `tools/server/README.md`.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::calls::{MAX_CALLS, arguments_of, new_id};
use crate::chat::{MAX_MODELS, MIN_NATIVE_PARAMETERS, Room, named};
use crate::http::{MAX_REPLY, fitting, text_of, words};
use crate::{Abilities, ChatReply, ChatRequest, Error, Message, ModelInfo, ToolCall, Usage};

#[derive(Debug, Serialize)]
pub struct Request<'a> {
    model: &'a str,
    messages: Vec<Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_format: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f32>,
    stream: bool,
    stream_options: Value,
}

impl<'a> Request<'a> {
    pub fn new(request: &'a ChatRequest) -> Self {
        let tools = request.tools.iter().map(|tool| {
            json!({"type": "function", "function": {
                "name": tool.name,
                "description": tool.description,
                "parameters": tool.parameters,
            }})
        });
        let format = request.schema.as_ref().map(|schema| {
            json!({"type": "json_schema", "json_schema": {
                "name": "reply", "strict": true, "schema": schema,
            }})
        });
        Self {
            model: &request.model,
            messages: request.messages.iter().map(message).collect(),
            tools: tools.collect(),
            response_format: format,
            max_tokens: request.max_tokens,
            temperature: request.temperature,
            stream: true,
            stream_options: json!({"include_usage": true}),
        }
    }
}

fn message(message: &Message) -> Value {
    let mut out = json!({"role": message.role, "content": message.content});
    if !message.tool_calls.is_empty() {
        let calls = message.tool_calls.iter().map(|call| {
            json!({"id": call.id, "type": "function", "function": {
                "name": call.name,
                // The API wants them as a string.
                "arguments": call.arguments.to_string(),
            }})
        });
        out["tool_calls"] = calls.collect();
    }
    if let Some(id) = &message.tool_call_id {
        out["tool_call_id"] = json!(id);
    }
    out
}

#[derive(Debug, Deserialize)]
pub struct Models {
    #[serde(default)]
    pub data: Vec<Model>,
}

#[derive(Debug, Deserialize)]
pub struct Model {
    pub id: String,
    /// llama.cpp.
    #[serde(default)]
    aliases: Vec<String>,
    /// vLLM.
    max_model_len: Option<u32>,
    /// llama.cpp; null while it loads.
    meta: Option<Meta>,
}

#[derive(Debug, Default, Deserialize)]
struct Meta {
    size: Option<u64>,
    n_params: Option<u64>,
    n_ctx: Option<u32>,
    ftype: Option<String>,
}

impl Model {
    pub fn answers_to(&self, name: &str) -> bool {
        self.id == name || self.aliases.iter().any(|alias| alias == name)
    }

    pub fn context_tokens(&self) -> Option<u32> {
        self.max_model_len.or_else(|| self.meta.as_ref()?.n_ctx)
    }

    /// Too small to be trusted with tools, going by its size.
    pub fn is_small(&self) -> bool {
        let parameters = self.meta.as_ref().and_then(|meta| meta.n_params);
        parameters.is_some_and(|n| n < MIN_NATIVE_PARAMETERS)
    }

    /// What is known of it, once for each name that it answers to.
    pub fn infos(self) -> Vec<ModelInfo> {
        let meta = self.meta.unwrap_or_default();
        let mut names = self.aliases;
        if !names.contains(&self.id) {
            names.insert(0, self.id);
        }
        let info = |name| ModelInfo {
            name,
            size: meta.size,
            parameters: meta.n_params.map(|n| format!("{}M", n / 1_000_000)),
            quantization: meta.ftype.as_deref().map(named),
        };
        names.iter().take(MAX_MODELS).map(|name| info(named(name))).collect()
    }
}

/// The names of models.
pub fn names(models: &[Model]) -> Vec<String> {
    models.iter().map(|model| named(&model.id)).collect()
}

/// What llama.cpp tells of itself.
#[derive(Debug, Deserialize)]
pub struct Props {
    default_generation_settings: Settings,
    chat_template_caps: Option<Caps>,
    #[serde(default)]
    chat_template: String,
}

#[derive(Debug, Deserialize)]
struct Settings {
    n_ctx: Option<u32>,
}

#[derive(Debug, Deserialize)]
struct Caps {
    #[serde(default)]
    supports_tools: bool,
    #[serde(default)]
    supports_tool_calls: bool,
}

impl Props {
    pub fn abilities(&self) -> Abilities {
        let native_tools = match &self.chat_template_caps {
            Some(caps) => caps.supports_tools && caps.supports_tool_calls,
            // Older than the capabilities.
            None => self.chat_template.contains("tools"),
        };
        Abilities { native_tools, context_tokens: self.default_generation_settings.n_ctx }
    }
}

/// A piece of a reply. Servers differ in what they leave out, set to null or nest, so
/// everything is looked for where it should be and nothing has to be there.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub struct Chunk(serde_json::Map<String, Value>);

impl Chunk {
    pub fn is_error(&self) -> bool {
        self.0.get("error").is_some_and(|error| !error.is_null())
    }

    fn usage(&self) -> Option<Usage> {
        let usage = self.0.get("usage")?.as_object()?;
        let count = |name: &str| usage.get(name).and_then(Value::as_u64).unwrap_or(0);
        Some(Usage {
            prompt_tokens: count("prompt_tokens"),
            completion_tokens: count("completion_tokens"),
        })
    }

    fn choice(&self) -> Option<&Value> {
        self.0.get("choices")?.as_array()?.first()
    }
}

/// A reply whose pieces come one after another.
#[derive(Debug, Default)]
pub struct Gathered {
    content: String,
    calls: Vec<PartialCall>,
    /// Bytes of content and arguments.
    size: usize,
    usage: Usage,
    truncated: bool,
    /// A reason to finish was given.
    finished: bool,
}

#[derive(Debug, Default)]
struct PartialCall {
    id: String,
    name: String,
    /// The pieces joined, where arguments come as a string.
    text: String,
    /// The object, where they come as one.
    object: Option<Value>,
}

impl Gathered {
    /// Takes a piece; what is beyond the most bytes is left out, and the reply ends there.
    pub fn add(&mut self, chunk: Chunk, on_text: &mut dyn FnMut(&str)) -> Room {
        if let Some(usage) = chunk.usage() {
            self.usage = usage;
        }
        let Some(choice) = chunk.choice() else { return Room::Left };
        if let Some(reason) = choice.get("finish_reason").and_then(Value::as_str) {
            self.finished = true;
            self.truncated = reason == "length";
        }
        // `message` where the server does not stream.
        let delta = ["delta", "message"].iter().find_map(|name| choice.get(*name));
        let Some(delta) = delta.filter(|delta| delta.is_object()) else { return Room::Left };
        let text = delta.get("content").map(text_of).unwrap_or_default();
        if !text.is_empty() {
            let kept = fitting(&text, MAX_REPLY - self.size);
            self.size += kept.len();
            self.content.push_str(kept);
            on_text(kept);
            if kept.len() < text.len() {
                return self.full();
            }
        }
        let calls = delta.get("tool_calls").and_then(Value::as_array);
        for (n, call) in calls.into_iter().flatten().enumerate() {
            let index = call.get("index").and_then(Value::as_u64);
            let index = index.map_or(n, |index| usize::try_from(index).unwrap_or(usize::MAX));
            // More than anybody needs are left out.
            if index < MAX_CALLS && self.call(index, call).is_none() {
                return self.full();
            }
        }
        Room::Left
    }

    fn full(&mut self) -> Room {
        self.truncated = true;
        Room::Full
    }

    fn call(&mut self, index: usize, delta: &Value) -> Option<()> {
        if self.calls.len() <= index {
            self.calls.resize_with(index + 1, PartialCall::default);
        }
        let text = |value: Option<&Value>| value.map(text_of).unwrap_or_default();
        let function = delta.get("function");
        let name = text(function.and_then(|function| function.get("name")));
        let id = text(delta.get("id"));
        self.grow(name.len() + id.len())?;
        match function.and_then(|function| function.get("arguments")) {
            Some(Value::String(text)) => {
                self.grow(text.len())?;
                self.calls[index].text.push_str(text);
            }
            None | Some(Value::Null) => {}
            Some(object) => {
                self.grow(object.to_string().len())?;
                self.calls[index].object = Some(object.clone());
            }
        }
        let call = &mut self.calls[index];
        // Some servers repeat name and id in each piece.
        if call.name != name {
            call.name.push_str(&name);
        }
        if !id.is_empty() {
            call.id = id;
        }
        Some(())
    }

    fn grow(&mut self, by: usize) -> Option<()> {
        self.size = self.size.checked_add(by).filter(|size| *size <= MAX_REPLY)?;
        Some(())
    }

    /// The reply of a stream that just ended: whole if it said why, else marked as cut if
    /// it has words. Calls without an end may lack half of what they do.
    pub fn cut(mut self) -> Option<ChatReply> {
        if !self.finished {
            self.calls.clear();
            self.truncated = true;
            if self.content.trim().is_empty() {
                return None;
            }
        }
        Some(self.finish())
    }

    pub fn finish(self) -> ChatReply {
        let calls =
            self.calls.into_iter().filter(|call| !call.name.is_empty()).map(|call| ToolCall {
                id: if call.id.is_empty() { new_id() } else { call.id },
                name: call.name,
                arguments: call.object.unwrap_or_else(|| arguments_of(&Value::String(call.text))),
            });
        ChatReply {
            content: self.content,
            tool_calls: calls.collect(),
            usage: self.usage,
            truncated: self.truncated,
        }
    }
}

/// An error that came amid the stream.
pub fn refused(event: &[u8]) -> Error {
    let status = serde_json::from_slice::<Value>(event)
        .ok()
        .and_then(|value| {
            let error = value.get("error").unwrap_or(&value);
            error.get("code")?.as_u64()?.try_into().ok()
        })
        .unwrap_or(200);
    Error::refused(status, words(event))
}
