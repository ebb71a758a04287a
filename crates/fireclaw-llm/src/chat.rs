//! What is said to a model and what it says, whichever server it runs on.

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Result;

pub use fireclaw_protocol::chat::{Example, Message, Role, Tool, ToolCall};

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

/// The most models of a server that are listed: people read the list.
pub(crate) const MAX_MODELS: usize = 256;

/// The most characters of a model's name that are kept; the longest real ones, with
/// registry and tag, have about 100.
pub(crate) const MAX_NAME: usize = 128;

/// A name, or another word, that a server gave: short, and fit to be shown.
pub(crate) fn named(name: &str) -> String {
    let end = name.char_indices().nth(MAX_NAME).map_or(name.len(), |(at, _)| at);
    crate::error::escape(&name[..end])
}

/// Whether a reply may become longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    Left,
    Full,
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
