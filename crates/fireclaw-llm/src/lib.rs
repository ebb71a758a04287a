//! Talks with language models.
//!
//! A [`ChatModel`] is a server that answers chats: [`Ollama`] and [`OpenAi`] speak the two
//! APIs, [`Server`] finds out which one a URL speaks. [`step`] lets a model take one step
//! as an agent, with the server's own tool calling or without. A [`Broker`] is the queue
//! before one server: fair over agents, bounded, metered.

mod action;
mod broker;
mod calls;
mod chat;
mod config;
mod error;
mod http;
mod ollama;
mod openai;
mod server;

pub use action::{Mode, Step, Stepped, step};
pub use broker::{Broker, Event, Limits, Ticket, Totals};
pub use chat::{
    Abilities, ChatModel, ChatReply, ChatRequest, Example, Message, ModelInfo, OnText, Role, Tool,
    ToolCall, Usage,
};
pub use config::{ServerConfig, ServerKind};
pub use error::{Error, Result, escape};
pub use http::{builder as http_client, reason as http_reason};
pub use ollama::Ollama;
pub use openai::OpenAi;
pub use server::{Server, detect};
