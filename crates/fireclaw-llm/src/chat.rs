//! What is said to a model and what it says, whichever server it runs on.

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Result;

/// Who said a [`Message`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions to the model.
    System,
    /// A person, or another agent.
    User,
    /// The model.
    Assistant,
    /// A tool that the model called.
    Tool,
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Who said it.
    pub role: Role,
    /// The text; of a tool, its result.
    #[serde(default)]
    pub content: String,
    /// The calls that the model asked for. Empty unless [`Role::Assistant`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// Which call this is the result of. Only of [`Role::Tool`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
}

impl Message {
    /// Instructions to the model.
    pub fn system(content: impl Into<String>) -> Self {
        Self::text(Role::System, content)
    }

    /// What a person said.
    pub fn user(content: impl Into<String>) -> Self {
        Self::text(Role::User, content)
    }

    /// What the model said.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self::text(Role::Assistant, content)
    }

    /// The calls that the model asked for.
    pub fn calls(calls: Vec<ToolCall>) -> Self {
        Self { tool_calls: calls, ..Self::text(Role::Assistant, "") }
    }

    /// The result of the call with the id `call`.
    pub fn result(call: impl Into<String>, content: impl Into<String>) -> Self {
        Self { tool_call_id: Some(call.into()), ..Self::text(Role::Tool, content) }
    }

    fn text(role: Role, content: impl Into<String>) -> Self {
        Self { role, content: content.into(), tool_calls: Vec::new(), tool_call_id: None }
    }
}

/// A tool that a model may call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tool {
    /// Letters, digits, `_` and `-`.
    pub name: String,
    /// What it does and when to use it, for the model.
    pub description: String,
    /// The JSON schema of the object of its arguments.
    pub parameters: Value,
    /// How it is used, shown to models that cannot call tools by themselves. Two or three
    /// help the smallest much.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub examples: Vec<Example>,
}

/// One use of a [`Tool`] from beginning to end. Small models call the same tool for ever
/// unless they have seen how that ends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Example {
    /// What a person asks.
    pub request: String,
    /// The arguments of the call.
    pub arguments: Value,
    /// What the tool gives back.
    pub result: String,
    /// What the model then says.
    pub reply: String,
}

/// A call that a model asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolCall {
    /// Names the call in the [`Message::result`] that answers it.
    pub id: String,
    /// The tool.
    pub name: String,
    /// The arguments: an object in what [`step`](crate::step) returns. In a [`ChatReply`]
    /// it is whatever the model wrote, and a string if that was no JSON.
    pub arguments: Value,
}

impl ToolCall {
    /// Whether another call, by whatever id, does the same.
    pub fn is_same(&self, other: &Self) -> bool {
        self.name == other.name && self.arguments == other.arguments
    }
}

/// What a model is asked.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ChatRequest {
    /// The model's name on its server.
    pub model: String,
    /// The conversation, oldest first.
    pub messages: Vec<Message>,
    /// The tools that are offered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<Tool>,
    /// A JSON schema that the whole reply has to follow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Value>,
    /// The most tokens of the reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    /// The length of the context in tokens, for a server that sets it by request (Ollama).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_ctx: Option<u32>,
    /// How freely tokens are chosen: 0 is the likeliest always. The server's default if
    /// absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f32>,
}

/// What a model answered.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ChatReply {
    /// The text.
    pub content: String,
    /// The calls that it asks for.
    pub tool_calls: Vec<ToolCall>,
    /// What it cost.
    pub usage: Usage,
    /// The reply ended because it reached its most tokens or the context was full.
    pub truncated: bool,
}

/// What an answer cost, in tokens. Zero where the server does not tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Of what was asked.
    pub prompt_tokens: u64,
    /// Of what was answered.
    pub completion_tokens: u64,
}

impl std::ops::Add for Usage {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            prompt_tokens: self.prompt_tokens.saturating_add(other.prompt_tokens),
            completion_tokens: self.completion_tokens.saturating_add(other.completion_tokens),
        }
    }
}

/// A model that a server has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// The name to ask for it by.
    pub name: String,
    /// Its size on disk in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// How many parameters it has, as the server puts it, such as `7.6B`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<String>,
    /// How they are stored, such as `Q4_K_M`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantization: Option<String>,
}

/// The fewest parameters of a model that is trusted to call tools the server's way.
/// Templates say that smaller ones can; they call what is not there, or call for ever.
pub(crate) const MIN_NATIVE_PARAMETERS: u64 = 2_000_000_000;

/// What a model can do on its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Abilities {
    /// The server can offer it tools and reads its calls, and it is large enough for that.
    pub native_tools: bool,
    /// The longest context in tokens, if the server tells.
    pub context_tokens: Option<u32>,
}

/// Hears a reply's text piece by piece as it is written.
pub type OnText<'a> = &'a mut (dyn FnMut(&str) + Send);

/// A server with language models. Dropping a future cancels what it asked for.
pub trait ChatModel: Send + Sync {
    /// The models that it has.
    ///
    /// # Errors
    /// [`Error::Down`](crate::Error::Down), [`Refused`](crate::Error::Refused),
    /// [`BadReply`](crate::Error::BadReply), [`TimedOut`](crate::Error::TimedOut).
    fn models(&self) -> BoxFuture<'_, Result<Vec<ModelInfo>>>;

    /// What a model can do.
    ///
    /// # Errors
    /// As [`models`](Self::models), and [`Error::ModelMissing`](crate::Error::ModelMissing).
    fn abilities<'a>(&'a self, model: &'a str) -> BoxFuture<'a, Result<Abilities>>;

    /// Asks, and hears the answer's text as it comes.
    ///
    /// # Errors
    /// As [`abilities`](Self::abilities), and
    /// [`Error::BrokeOff`](crate::Error::BrokeOff). There is no limit of time: see
    /// [`Broker`](crate::Broker).
    fn chat<'a>(
        &'a self,
        request: &'a ChatRequest,
        on_text: OnText<'a>,
    ) -> BoxFuture<'a, Result<ChatReply>>;
}
