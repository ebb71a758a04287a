//! Ollama's API. The answers are those of its documentation (`docs/api.md`, August 2026).

use fireclaw_llm::{Abilities, ChatModel, Error, Ollama, Usage};
use serde_json::json;

use super::support::{Answer, Serve};
use super::{asks, chat, conversation};

const STREAM: &str = r#"{"model":"llama3.2","created_at":"2023-08-04T08:52:19.385406455-07:00","message":{"role":"assistant","content":"The","images":null},"done":false}
{"model":"llama3.2","created_at":"2023-08-04T08:52:19.5-07:00","message":{"role":"assistant","content":" sky"},"done":false}
{"model":"llama3.2","created_at":"2023-08-04T19:22:45.499127Z","message":{"role":"assistant","content":""},"done":true,"total_duration":4883583458,"load_duration":1334875,"prompt_eval_count":26,"prompt_eval_duration":342546000,"eval_count":282,"eval_duration":4535599000}
"#;

const CALL: &str = r#"{"model":"llama3.2","created_at":"2025-07-07T20:22:19.184789Z","message":{"role":"assistant","content":"","tool_calls":[{"function":{"name":"get_weather","arguments":{"city":"Tokyo"}}}]},"done":false}
{"model":"llama3.2","created_at":"2025-07-07T20:22:19.19314Z","message":{"role":"assistant","content":""},"done_reason":"stop","done":true,"total_duration":182242375,"load_duration":41295167,"prompt_eval_count":169,"prompt_eval_duration":24573166,"eval_count":15,"eval_duration":115959084}
"#;

const TAGS: &str = r#"{"models":[{"name":"deepseek-r1:latest","model":"deepseek-r1:latest","modified_at":"2025-05-10T08:06:48.639712648-07:00","size":4683075271,"digest":"0a8c266910232fd3291e71e5ba1e058cc5af9d411192cf88b6d30e92b6e73163","details":{"parent_model":"","format":"gguf","family":"qwen2","families":["qwen2"],"parameter_size":"7.6B","quantization_level":"Q4_K_M"}},{"name":"llama3.2:latest","model":"llama3.2:latest","modified_at":"2025-05-04T17:37:44.706015396-07:00","size":2019393189,"digest":"a80c4f17acd55265feec403c7aef86be0c25983ab279d83f3bcd3abbcb5b8b72","details":{"parent_model":"","format":"gguf","family":"llama","families":["llama"],"parameter_size":"3.2B","quantization_level":"Q4_K_M"}}]}"#;

const SHOW: &str = r#"{"modelfile":"FROM llava","parameters":"num_keep 24","template":"{{ .System }}","details":{"parent_model":"","format":"gguf","family":"llama","families":["llama"],"parameter_size":"8.0B","quantization_level":"Q4_0"},"model_info":{"general.architecture":"llama","general.file_type":2,"llama.attention.head_count":32,"llama.context_length":8192,"llama.embedding_length":4096,"tokenizer.ggml.merges":[]},"capabilities":["completion","vision"]}"#;

async fn serving(body: impl Into<String>) -> Serve {
    let body = body.into();
    Serve::new(move |_, _| Answer::ok(body.clone())).await
}

#[tokio::test]
async fn a_reply_streams() {
    let server = serving(STREAM).await;
    let model = Ollama::new(&server.url, None).unwrap();
    let (reply, heard) = chat(&model, &asks()).await;
    let reply = reply.unwrap();
    assert_eq!(heard, ["The", " sky"]);
    assert_eq!(reply.content, "The sky");
    assert_eq!(reply.usage, Usage { prompt_tokens: 26, completion_tokens: 282 });
}

#[tokio::test]
async fn a_call_is_read() {
    let server = serving(CALL).await;
    let model = Ollama::new(&server.url, None).unwrap();
    let reply = chat(&model, &asks()).await.0.unwrap();
    assert_eq!(reply.tool_calls[0].name, "get_weather");
    assert_eq!(reply.tool_calls[0].arguments, json!({"city": "Tokyo"}));
    assert!(!reply.tool_calls[0].id.is_empty());
    assert!(!reply.truncated);
}

#[tokio::test]
async fn a_request_is_what_the_api_says() {
    let server = serving(
        r#"{"message":{"role":"assistant","content":"x"},"done_reason":"length","done":true}"#,
    )
    .await;
    let model = Ollama::new(&server.url, None).unwrap();
    assert!(chat(&model, &conversation()).await.0.unwrap().truncated);
    let asked = &server.asked()[0];
    assert_eq!(asked.what, "POST /api/chat");
    assert_eq!(
        asked.body,
        json!({
            "model": "m",
            "messages": [
                {"role": "system", "content": "You are worker."},
                {"role": "user", "content": "uptime?"},
                {"role": "assistant", "content": "", "tool_calls": [
                    {"function": {"name": "run_command", "arguments": {"command": "uptime"}}},
                ]},
                {"role": "tool", "content": "up 3 min", "tool_name": "run_command"},
            ],
            "tools": [{"type": "function", "function": {
                "name": "run_command",
                "description": "Run a shell command.",
                "parameters": {"type": "object", "properties": {"command": {"type": "string"}}},
            }}],
            "format": {"type": "object"},
            "options": {"num_ctx": 4096, "num_predict": 50, "temperature": 0.5},
            "stream": true,
        })
    );
}

#[tokio::test]
async fn models_and_what_they_can_are_read() {
    let server = Serve::new(|what, body| match what {
        "GET /api/tags" => Answer::ok(TAGS),
        "POST /api/show" if body["model"] == "llava" => Answer::ok(SHOW),
        "POST /api/show" if body["model"] == "qwen3:0.6b" => Answer::ok(
            r#"{"capabilities":["tools"],"model_info":{"general.parameter_count":751632384}}"#,
        ),
        "POST /api/show" => Answer::ok(r#"{"capabilities":["completion","tools"]}"#),
        other => panic!("{other}"),
    })
    .await;
    let model = Ollama::new(&server.url, None).unwrap();
    let known = model.models().await.unwrap();
    assert_eq!(known.len(), 2);
    assert_eq!(known[0].name, "deepseek-r1:latest");
    assert_eq!(known[0].size, Some(4_683_075_271));
    assert_eq!(known[0].parameters.as_deref(), Some("7.6B"));
    assert_eq!(known[0].quantization.as_deref(), Some("Q4_K_M"));
    let llava = Abilities { native_tools: false, context_tokens: Some(8192) };
    assert_eq!(model.abilities("llava").await.unwrap(), llava);
    assert!(model.abilities("qwen3").await.unwrap().native_tools);
    // What its template can, it cannot.
    assert!(!model.abilities("qwen3:0.6b").await.unwrap().native_tools);
}

#[tokio::test]
async fn a_missing_model_is_named_with_those_that_are_there() {
    let server = Serve::new(|what, _| match what {
        "GET /api/tags" => Answer::ok(TAGS),
        _ => Answer::status(404, r#"{"error":"model 'm' not found"}"#),
    })
    .await;
    let model = Ollama::new(&server.url, None).unwrap();
    for error in
        [chat(&model, &asks()).await.0.unwrap_err(), model.abilities("m").await.unwrap_err()]
    {
        assert_eq!(error.to_string(), "model m is not there");
        let Error::ModelMissing { known, .. } = error else { unreachable!() };
        assert_eq!(known, ["deepseek-r1:latest", "llama3.2:latest"]);
    }
}

#[tokio::test]
async fn refusals_are_told_in_the_servers_words() {
    let refused = r#"{"error":"registry.ollama.ai/library/m does not support tools"}"#;
    let server = Serve::new(move |_, _| Answer::status(400, refused)).await;
    let model = Ollama::new(&server.url, None).unwrap();
    let error = chat(&model, &asks()).await.0.unwrap_err();
    assert!(matches!(&error, Error::Refused { status: 400, .. }), "{error}");
    assert!(error.to_string().ends_with("does not support tools"));
    // Amid the stream (docs/api/errors.mdx).
    let first = STREAM.lines().next().unwrap();
    let broken =
        format!("{first}\n{{\"error\":\"an error was encountered while running the model\"}}\n");
    let server = serving(broken).await;
    let model = Ollama::new(&server.url, None).unwrap();
    let (reply, heard) = chat(&model, &asks()).await;
    assert_eq!(heard, ["The"]);
    assert!(reply.unwrap_err().to_string().contains("an error was encountered"));
}
