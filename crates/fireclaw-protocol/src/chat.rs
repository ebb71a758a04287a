//! Conversations with a language model, whatever server it runs on.

use serde::{Deserialize, Serialize};
use serde_json::Value;

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
    /// The arguments: an object in a step of an agent; else whatever the model wrote, and
    /// a string if that was no JSON.
    pub arguments: Value,
}

impl ToolCall {
    /// Whether another call, by whatever id, does the same.
    pub fn is_same(&self, other: &Self) -> bool {
        self.name == other.name && self.arguments == other.arguments
    }
}
