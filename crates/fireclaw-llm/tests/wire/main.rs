//! What goes over the wire to model servers, against servers in the test.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod detect;
mod hostile;
mod odd;
mod ollama;
mod openai;
mod support;

use fireclaw_llm::{ChatModel, ChatReply, ChatRequest, Message, Result, Tool, ToolCall};
use serde_json::json;

fn run_command() -> Tool {
    Tool {
        name: "run_command".into(),
        description: "Run a shell command.".into(),
        parameters: json!({"type": "object", "properties": {"command": {"type": "string"}}}),
        examples: Vec::new(),
    }
}

/// A conversation in which a tool was called.
fn conversation() -> ChatRequest {
    let call = ToolCall {
        id: "abc".into(),
        name: "run_command".into(),
        arguments: json!({"command": "uptime"}),
    };
    ChatRequest {
        model: "m".into(),
        messages: vec![
            Message::system("You are worker."),
            Message::user("uptime?"),
            Message::calls(vec![call]),
            Message::result("abc", "up 3 min"),
        ],
        tools: vec![run_command()],
        schema: Some(json!({"type": "object"})),
        max_tokens: Some(50),
        num_ctx: Some(4096),
        temperature: Some(0.5),
    }
}

fn asks() -> ChatRequest {
    let messages = vec![Message::user("hi")];
    ChatRequest { model: "m".into(), messages, ..ChatRequest::default() }
}

/// A chat's reply and the pieces of text that were heard.
async fn chat(model: &dyn ChatModel, request: &ChatRequest) -> (Result<ChatReply>, Vec<String>) {
    let mut heard = Vec::new();
    let reply = model.chat(request, &mut |text| heard.push(text.to_owned())).await;
    (reply, heard)
}
