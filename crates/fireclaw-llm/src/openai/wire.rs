//! The documents of OpenAI's API, with the fields that are used, and llama.cpp's `/props`.
//!
//! Sources: OpenAI's API reference, "Chat Completions"; llama.cpp's
//! `tools/server/README.md`.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::calls::{MAX_CALLS, arguments_of, new_id};
use crate::chat::MIN_NATIVE_PARAMETERS;
use crate::http::{MAX_REPLY, words};
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
            quantization: meta.ftype.clone(),
        };
        names.into_iter().map(info).collect()
    }
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

#[derive(Debug, Deserialize)]
pub struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<ChunkUsage>,
    pub error: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct Choice {
    /// `message` where the server does not stream.
    #[serde(default, alias = "message")]
    delta: Delta,
    finish_reason: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct Delta {
    content: Option<String>,
    tool_calls: Option<Vec<CallDelta>>,
}

#[derive(Debug, Deserialize)]
struct CallDelta {
    index: Option<usize>,
    id: Option<String>,
    #[serde(default)]
    function: FunctionDelta,
}

#[derive(Debug, Default, Deserialize)]
struct FunctionDelta {
    name: Option<String>,
    #[serde(default)]
    arguments: Value,
}

#[derive(Debug, Deserialize)]
struct ChunkUsage {
    #[serde(default)]
    prompt_tokens: u64,
    #[serde(default)]
    completion_tokens: u64,
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
    pub finished: bool,
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
    pub fn add(&mut self, chunk: Chunk, on_text: &mut dyn FnMut(&str)) -> Result<(), String> {
        if let Some(usage) = chunk.usage {
            self.usage = Usage {
                prompt_tokens: usage.prompt_tokens,
                completion_tokens: usage.completion_tokens,
            };
        }
        let Some(choice) = chunk.choices.into_iter().next() else { return Ok(()) };
        if let Some(reason) = choice.finish_reason {
            self.finished = true;
            self.truncated = reason == "length";
        }
        if let Some(text) = choice.delta.content.filter(|text| !text.is_empty()) {
            self.grow(text.len())?;
            self.content.push_str(&text);
            on_text(&text);
        }
        for (n, delta) in choice.delta.tool_calls.into_iter().flatten().enumerate() {
            self.call(delta.index.unwrap_or(n), delta)?;
        }
        Ok(())
    }

    fn call(&mut self, index: usize, delta: CallDelta) -> Result<(), String> {
        if index >= MAX_CALLS {
            return Err(format!("more than {MAX_CALLS} tool calls"));
        }
        if self.calls.len() <= index {
            self.calls.resize_with(index + 1, PartialCall::default);
        }
        let name = delta.function.name.unwrap_or_default();
        let id = delta.id.unwrap_or_default();
        self.grow(name.len() + id.len())?;
        match delta.function.arguments {
            Value::String(text) => {
                self.grow(text.len())?;
                self.calls[index].text.push_str(&text);
            }
            Value::Null => {}
            object => {
                self.grow(object.to_string().len())?;
                self.calls[index].object = Some(object);
            }
        }
        let call = &mut self.calls[index];
        call.name.push_str(&name);
        // Some servers repeat the id in each piece.
        if !id.is_empty() {
            call.id = id;
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
        let calls = self.calls.into_iter().map(|call| ToolCall {
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
    Error::Refused { status, message: words(event) }
}
