//! OpenAI's API as llama.cpp b10434 and vLLM speak it.

use fireclaw_host::Secret;
use fireclaw_llm::{Abilities, ChatModel, Error, OpenAi, Usage};
use serde_json::{Value, json};

use super::support::{Answer, Serve};
use super::{asks, chat, conversation};

fn events(chunks: &[Value]) -> String {
    let lines = chunks.iter().map(|chunk| format!("data: {chunk}\n\n")).collect::<String>();
    lines + "data: [DONE]\n\n"
}

fn delta(delta: Value) -> Value {
    json!({"choices": [{"finish_reason": null, "index": 0, "delta": delta}],
           "object": "chat.completion.chunk"})
}

fn finish(reason: &str) -> Value {
    json!({"choices": [{"finish_reason": reason, "index": 0, "delta": {}}]})
}

/// As llama.cpp sends it.
fn usage() -> Value {
    json!({"choices": [], "usage": {"completion_tokens": 3, "prompt_tokens": 30, "total_tokens": 33,
           "prompt_tokens_details": {"cached_tokens": 18}}, "timings": {"cache_n": 18}})
}

async fn serving(body: String) -> Serve {
    Serve::new(move |_, _| Answer::ok(body.clone())).await
}

#[tokio::test]
async fn a_reply_streams() {
    let body = events(&[
        delta(json!({"role": "assistant", "content": null})),
        delta(json!({"content": "Grüß"})),
        delta(json!({"content": " Gott"})),
        finish("stop"),
        usage(),
    ]);
    let server = serving(format!(": keep-alive\n\nevent: x\n{body}")).await;
    let model = OpenAi::new(&server.url, None).unwrap();
    let (reply, heard) = chat(&model, &asks()).await;
    let reply = reply.unwrap();
    assert_eq!(heard, ["Grüß", " Gott"]);
    assert_eq!(reply.content, "Grüß Gott");
    assert_eq!(reply.usage, Usage { prompt_tokens: 30, completion_tokens: 3 });
    assert!(!reply.truncated);
    assert_eq!(server.asked()[0].key, None);
}

#[tokio::test]
async fn a_request_is_what_the_api_says() {
    let server = serving(events(&[finish("length")])).await;
    let url = format!("{}/v1/", server.url);
    let model = OpenAi::new(&url, Some(Secret::new("s3cret"))).unwrap();
    let (reply, _) = chat(&model, &conversation()).await;
    assert!(reply.unwrap().truncated);
    let asked = &server.asked()[0];
    assert_eq!(asked.what, "POST /v1/chat/completions");
    assert_eq!(asked.key.as_deref(), Some("Bearer s3cret"));
    assert_eq!(
        asked.body,
        json!({
            "model": "m",
            "messages": [
                {"role": "system", "content": "You are worker."},
                {"role": "user", "content": "uptime?"},
                {"role": "assistant", "content": "", "tool_calls": [
                    {"id": "abc", "type": "function", "function":
                        {"name": "run_command", "arguments": "{\"command\":\"uptime\"}"}},
                ]},
                {"role": "tool", "content": "up 3 min", "tool_call_id": "abc"},
            ],
            "tools": [{"type": "function", "function": {
                "name": "run_command",
                "description": "Run a shell command.",
                "parameters": {"type": "object", "properties": {"command": {"type": "string"}}},
            }}],
            "response_format": {"type": "json_schema", "json_schema":
                {"name": "reply", "strict": true, "schema": {"type": "object"}}},
            "max_tokens": 50,
            "temperature": 0.5,
            "stream": true,
            "stream_options": {"include_usage": true},
        })
    );
}

#[tokio::test]
async fn calls_come_in_pieces_or_whole() {
    let call = |index: Option<u8>, id: Option<&str>, name: Option<&str>, arguments: Value| {
        let function = json!({"name": name, "arguments": arguments});
        delta(json!({"tool_calls": [{"index": index, "id": id, "function": function}]}))
    };
    let one = |id: &str| call(Some(0), Some(id), Some("run_command"), json!(""));
    for chunks in [
        // OpenAI, llama.cpp: a string in pieces.
        vec![
            one("abc"),
            call(Some(0), None, None, json!("{\"comma")),
            call(Some(0), None, None, json!("nd\":\"uptime\"}")),
        ],
        // The id in each piece.
        vec![one("abc"), call(Some(0), Some("abc"), None, json!("{\"command\":\"uptime\"}"))],
        // An object, without an index.
        vec![call(None, Some("abc"), Some("run_command"), json!({"command": "uptime"}))],
    ] {
        let server = serving(events(&[chunks, vec![finish("tool_calls")]].concat())).await;
        let model = OpenAi::new(&server.url, None).unwrap();
        let calls = chat(&model, &asks()).await.0.unwrap().tool_calls;
        assert_eq!(calls.len(), 1);
        assert_eq!((calls[0].id.as_str(), calls[0].name.as_str()), ("abc", "run_command"));
        assert_eq!(calls[0].arguments, json!({"command": "uptime"}));
    }
}

#[tokio::test]
async fn arguments_that_are_no_json_come_as_they_are() {
    let call =
        json!({"tool_calls": [{"index": 0, "function": {"name": "a", "arguments": "{\"x"}}]});
    let server = serving(events(&[delta(call), finish("tool_calls")])).await;
    let model = OpenAi::new(&server.url, None).unwrap();
    let calls = chat(&model, &asks()).await.0.unwrap().tool_calls;
    assert_eq!(calls[0].arguments, json!("{\"x"));
    assert!(!calls[0].id.is_empty());
}

#[tokio::test]
async fn a_server_that_does_not_stream_is_understood() {
    let message = json!({"role": "assistant", "content": "hi"});
    let whole = json!({"choices": [{"message": message, "finish_reason": "stop"}]});
    let server = serving(whole.to_string()).await;
    let model = OpenAi::new(&server.url, None).unwrap();
    assert_eq!(chat(&model, &asks()).await.0.unwrap().content, "hi");
}

#[tokio::test]
async fn refusals_are_told_in_the_servers_words() {
    // llama.cpp, while it loads.
    let loading = r#"{"error":{"message":"Loading model","type":"unavailable_error","code":503}}"#;
    let server = Serve::new(move |_, _| Answer::status(503, loading)).await;
    let model = OpenAi::new(&server.url, None).unwrap();
    let error = chat(&model, &asks()).await.0.unwrap_err();
    assert_eq!(error.to_string(), "the model server refused (503): Loading model");
    assert!(error.is_transient());
    for inside in [
        "data: {\"error\": {\"code\": 500, \"message\": \"Failed to parse\"}}\n\n",
        "error: {\"code\": 500, \"message\": \"Failed to parse\"}\n\n",
    ] {
        let server = serving(inside.into()).await;
        let model = OpenAi::new(&server.url, None).unwrap();
        let error = chat(&model, &asks()).await.0.unwrap_err();
        assert_eq!(error.to_string(), "the model server refused (500): Failed to parse");
    }
}

#[tokio::test]
async fn a_missing_model_is_named_with_those_that_are_there() {
    let server = Serve::new(|what, _| match what {
        "GET /v1/models" => Answer::ok(r#"{"object":"list","data":[{"id":"qwen"},{"id":"phi"}]}"#),
        "POST /v1/chat/completions" => Answer::status(404, r#"{"error":{"message":"no such"}}"#),
        other => panic!("{other}"),
    })
    .await;
    let model = OpenAi::new(&server.url, None).unwrap();
    for error in
        [chat(&model, &asks()).await.0.unwrap_err(), model.abilities("m").await.unwrap_err()]
    {
        assert_eq!(error.to_string(), "model m is not there");
        assert!(matches!(error, Error::ModelMissing { known, .. } if known == ["qwen", "phi"]));
    }
}

#[tokio::test]
async fn what_llama_cpp_can_is_read() {
    let server = Serve::new(|what, _| match what {
        "GET /v1/models" => Answer::ok(
            json!({"models": [{"name": "qwen", "capabilities": ["completion"]}], "object": "list",
                "data": [{"id": "qwen", "aliases": ["qwen", "worker"], "object": "model",
                    "owned_by": "llamacpp", "meta": {"n_ctx": 4096, "n_params": 630167424_u64,
                    "size": 485452288_u64, "ftype": "Q4_K - Medium"}},
                    {"id": "large", "meta": {"n_params": 7615616512_u64}}]})
            .to_string(),
        ),
        // With the capabilities of the template.
        "GET /props?model=qwen" | "GET /props?model=large" => Answer::ok(
            json!({"default_generation_settings": {"n_ctx": 4096}, "total_slots": 1,
                "chat_template": "", "chat_template_caps":
                    {"supports_tools": true, "supports_tool_calls": true}})
            .to_string(),
        ),
        // Without, from before.
        "GET /props?model=worker" => Answer::ok(
            json!({"default_generation_settings": {"n_ctx": 512}, "chat_template": "{{ x }}"})
                .to_string(),
        ),
        other => panic!("{other}"),
    })
    .await;
    let model = OpenAi::new(&server.url, None).unwrap();
    let can = |native_tools, context| Abilities { native_tools, context_tokens: Some(context) };
    assert_eq!(model.abilities("large").await.unwrap(), can(true, 4096));
    // What its template can, it cannot.
    assert_eq!(model.abilities("qwen").await.unwrap(), can(false, 4096));
    assert_eq!(model.abilities("worker").await.unwrap(), can(false, 512));
    let known = model.models().await.unwrap();
    assert_eq!(known[0].name, "qwen");
    assert_eq!(known[0].size, Some(485_452_288));
    assert_eq!(known[0].parameters.as_deref(), Some("630M"));
}

#[tokio::test]
async fn other_servers_are_taken_at_their_word() {
    // vLLM has no /props.
    let server = Serve::new(|what, _| match what {
        "GET /v1/models" => Answer::ok(r#"{"data":[{"id":"m","max_model_len":8192}]}"#),
        _ => Answer::status(404, r#"{"detail":"Not Found"}"#),
    })
    .await;
    let model = OpenAi::new(&server.url, None).unwrap();
    let expected = Abilities { native_tools: true, context_tokens: Some(8192) };
    assert_eq!(model.abilities("m").await.unwrap(), expected);
    // Nor does everything have a list.
    let server = Serve::new(|_, _| Answer::status(404, "")).await;
    let model = OpenAi::new(&server.url, None).unwrap();
    let expected = Abilities { native_tools: true, context_tokens: None };
    assert_eq!(model.abilities("whatever").await.unwrap(), expected);
}
