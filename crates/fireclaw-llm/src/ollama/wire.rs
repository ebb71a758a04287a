//! The documents of Ollama's API, with the fields that are used.
//!
//! Source: Ollama's `docs/api.md` and `api/types.go`, as of August 2026.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::calls::{MAX_CALLS, arguments_of, new_id};
use crate::chat::{MIN_NATIVE_PARAMETERS, Room, named};
use crate::http::{MAX_REPLY, fitting, text_of};
use crate::{Abilities, ChatReply, ChatRequest, Message, ModelInfo, ToolCall, Usage};

#[derive(Debug, Serialize)]
pub struct Request<'a> {
    model: &'a str,
    messages: Vec<Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<&'a Value>,
    options: Options,
    stream: bool,
}

#[derive(Debug, Serialize)]
struct Options {
    #[serde(skip_serializing_if = "Option::is_none")]
    num_ctx: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    num_predict: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f32>,
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
        let messages = request.messages.iter().enumerate();
        Self {
            model: &request.model,
            messages: messages.map(|(n, one)| message(one, &request.messages[..n])).collect(),
            tools: tools.collect(),
            format: request.schema.as_ref(),
            options: Options {
                num_ctx: request.num_ctx,
                num_predict: request.max_tokens,
                temperature: request.temperature,
            },
            stream: true,
        }
    }
}

fn message(message: &Message, before: &[Message]) -> Value {
    let mut out = json!({"role": message.role, "content": message.content});
    if !message.tool_calls.is_empty() {
        let calls = message
            .tool_calls
            .iter()
            .map(|call| json!({"function": {"name": call.name, "arguments": call.arguments}}));
        out["tool_calls"] = calls.collect();
    }
    // Ollama knows a result by its tool's name.
    if let Some(id) = &message.tool_call_id {
        let mut calls = before.iter().rev().flat_map(|message| &message.tool_calls);
        if let Some(call) = calls.find(|call| call.id == *id) {
            out["tool_name"] = json!(call.name);
        }
    }
    out
}

#[derive(Debug, Deserialize)]
pub struct Tags {
    #[serde(default)]
    pub models: Vec<Tag>,
}

#[derive(Debug, Deserialize)]
pub struct Tag {
    name: String,
    size: Option<u64>,
    #[serde(default)]
    details: Details,
}

#[derive(Debug, Default, Deserialize)]
struct Details {
    parameter_size: Option<String>,
    quantization_level: Option<String>,
}

impl Tag {
    pub fn info(self) -> ModelInfo {
        ModelInfo {
            name: named(&self.name),
            size: self.size,
            parameters: self.details.parameter_size.as_deref().map(named),
            quantization: self.details.quantization_level.as_deref().map(named),
        }
    }
}

#[derive(Debug, Deserialize)]
pub struct Shown {
    #[serde(default)]
    capabilities: Vec<String>,
    #[serde(default)]
    model_info: Map<String, Value>,
}

impl Shown {
    pub fn abilities(&self) -> Abilities {
        // The key begins with the architecture: `llama.context_length`.
        let length = self.model_info.iter().find(|(key, _)| key.ends_with(".context_length"));
        let parameters = self.model_info.get("general.parameter_count").and_then(Value::as_u64);
        let is_small = parameters.is_some_and(|n| n < MIN_NATIVE_PARAMETERS);
        Abilities {
            native_tools: !is_small && self.capabilities.iter().any(|one| one == "tools"),
            context_tokens: length.and_then(|(_, value)| value.as_u64()?.try_into().ok()),
        }
    }
}

/// A piece of a reply, in which nothing has to be there.
#[derive(Debug, Deserialize)]
pub struct Chunk {
    #[serde(default)]
    message: Value,
    #[serde(default)]
    done: Value,
    #[serde(default)]
    done_reason: Value,
    #[serde(default)]
    prompt_eval_count: Value,
    #[serde(default)]
    eval_count: Value,
    pub error: Option<Value>,
}

impl Chunk {
    pub fn done(&self) -> bool {
        self.done == true
    }
}

/// A reply whose pieces come one after another.
#[derive(Debug, Default)]
pub struct Gathered {
    reply: ChatReply,
    /// Bytes of content and arguments.
    size: usize,
    loading: bool,
}

impl Gathered {
    /// Takes a piece; what is beyond the most bytes is left out, and the reply ends there.
    pub fn add(&mut self, chunk: Chunk, on_text: &mut dyn FnMut(&str)) -> Room {
        let text = chunk.message.get("content").map(text_of).unwrap_or_default();
        if !text.is_empty() {
            let kept = fitting(&text, MAX_REPLY - self.size);
            self.size += kept.len();
            self.reply.content.push_str(kept);
            on_text(kept);
            if kept.len() < text.len() {
                return self.full();
            }
        }
        let calls = chunk.message.get("tool_calls").and_then(Value::as_array);
        // Calls come whole. More than anybody needs are left out.
        for call in calls.into_iter().flatten() {
            let Some(function) = call.get("function") else { continue };
            let name = function.get("name").map(text_of).unwrap_or_default();
            if name.is_empty() || self.reply.tool_calls.len() == MAX_CALLS {
                continue;
            }
            let arguments = function.get("arguments").unwrap_or(&Value::Null);
            let size = self.size + name.len() + arguments.to_string().len();
            if size > MAX_REPLY {
                return self.full();
            }
            self.size = size;
            let id = call.get("id").map(text_of).filter(|id| !id.is_empty());
            self.reply.tool_calls.push(ToolCall {
                id: id.unwrap_or_else(new_id),
                name,
                arguments: arguments_of(arguments),
            });
        }
        if chunk.done() {
            self.reply.truncated = chunk.done_reason == "length";
            self.loading = chunk.done_reason == "load";
            self.reply.usage = Usage {
                prompt_tokens: chunk.prompt_eval_count.as_u64().unwrap_or(0),
                completion_tokens: chunk.eval_count.as_u64().unwrap_or(0),
            };
        }
        Room::Left
    }

    fn full(&mut self) -> Room {
        self.reply.truncated = true;
        Room::Full
    }

    /// It did nothing but load the model.
    pub fn is_loading(&self) -> bool {
        self.loading && self.size == 0
    }

    /// The reply of a stream that just ended, if it has words. It is marked as cut.
    pub fn cut(mut self) -> Option<ChatReply> {
        self.reply.tool_calls.clear();
        self.reply.truncated = true;
        (!self.reply.content.trim().is_empty()).then_some(self.reply)
    }

    pub fn finish(self) -> ChatReply {
        self.reply
    }
}
