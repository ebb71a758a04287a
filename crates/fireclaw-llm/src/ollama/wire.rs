//! The documents of Ollama's API, with the fields that are used.
//!
//! Source: Ollama's `docs/api.md` and `api/types.go`, as of August 2026.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::calls::{MAX_CALLS, arguments_of, new_id};
use crate::chat::MIN_NATIVE_PARAMETERS;
use crate::http::MAX_REPLY;
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
            name: self.name,
            size: self.size,
            parameters: self.details.parameter_size,
            quantization: self.details.quantization_level,
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

#[derive(Debug, Deserialize)]
pub struct Chunk {
    #[serde(default)]
    message: ChunkMessage,
    #[serde(default)]
    pub done: bool,
    done_reason: Option<String>,
    #[serde(default)]
    prompt_eval_count: u64,
    #[serde(default)]
    eval_count: u64,
    pub error: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct ChunkMessage {
    #[serde(default)]
    content: String,
    tool_calls: Option<Vec<Call>>,
}

#[derive(Debug, Deserialize)]
struct Call {
    id: Option<String>,
    function: Function,
}

#[derive(Debug, Deserialize)]
struct Function {
    name: String,
    #[serde(default)]
    arguments: Value,
}

/// A reply whose pieces come one after another.
#[derive(Debug, Default)]
pub struct Gathered {
    reply: ChatReply,
    /// Bytes of content and arguments.
    size: usize,
}

impl Gathered {
    pub fn add(&mut self, chunk: Chunk, on_text: &mut dyn FnMut(&str)) -> Result<(), String> {
        let text = chunk.message.content;
        if !text.is_empty() {
            self.grow(text.len())?;
            self.reply.content.push_str(&text);
            on_text(&text);
        }
        // Calls come whole.
        for call in chunk.message.tool_calls.into_iter().flatten() {
            if self.reply.tool_calls.len() == MAX_CALLS {
                return Err(format!("more than {MAX_CALLS} tool calls"));
            }
            self.grow(call.function.name.len() + call.function.arguments.to_string().len())?;
            self.reply.tool_calls.push(ToolCall {
                id: call.id.filter(|id| !id.is_empty()).unwrap_or_else(new_id),
                name: call.function.name,
                arguments: arguments_of(&call.function.arguments),
            });
        }
        if chunk.done {
            self.reply.truncated = chunk.done_reason.as_deref() == Some("length");
            self.reply.usage = Usage {
                prompt_tokens: chunk.prompt_eval_count,
                completion_tokens: chunk.eval_count,
            };
        }
        Ok(())
    }

    fn grow(&mut self, by: usize) -> Result<(), String> {
        self.size += by;
        if self.size > MAX_REPLY {
            return Err(format!("the reply is longer than {MAX_REPLY} bytes"));
        }
        Ok(())
    }

    pub fn finish(self) -> ChatReply {
        self.reply
    }
}
