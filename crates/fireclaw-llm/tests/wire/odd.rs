//! Answers that servers really give and that no document describes: what is usable of them
//! is used, and else one plain sentence is said.

use fireclaw_llm::{Broker, ChatModel, ChatReply, Error, Limits, Ollama, OpenAi, Step};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::support::{Answer, Serve};
use super::{asks, chat};

async fn openai(body: String) -> fireclaw_llm::Result<ChatReply> {
    let server = Serve::new(move |_, _| Answer::ok(body.clone())).await;
    chat(&OpenAi::new(&server.url, None).unwrap(), &asks()).await.0
}

async fn ollama(body: String) -> fireclaw_llm::Result<ChatReply> {
    let server = Serve::new(move |_, _| Answer::ok(body.clone())).await;
    chat(&Ollama::new(&server.url, None).unwrap(), &asks()).await.0
}

fn whole(message: Value) -> Value {
    json!({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
           "usage": {"prompt_tokens": null, "completion_tokens": null}})
}

#[tokio::test]
async fn what_is_usable_of_an_odd_body_is_used() {
    let hi = whole(json!({"role": "assistant", "content": "hi", "tool_calls": null}));
    for (what, body) in [
        ("one line", hi.to_string()),
        ("pretty-printed", format!("{hi:#}")),
        ("pretty-printed with CRLF", format!("{hi:#}").replace('\n', "\r\n")),
        ("an event", format!("data: {hi}\n\n")),
        ("parts", whole(json!({"content": [{"type": "text", "text": "h"}, {"text": "i"}]})).to_string()),
        ("null usage", "data: {\"choices\":[{\"delta\":{\"content\":\"hi\"},\"finish_reason\":\"stop\"}],\"usage\":null,\"error\":null}\n\n".into()),
        ("odd types", "data: {\"choices\":[{\"delta\":{\"content\":\"hi\"},\"finish_reason\":7}],\"usage\":\"many\"}\n\ndata: {\"choices\":null}\n\ndata: {\"choices\":[{\"delta\":null}]}\n\ndata: [DONE]\n".into()),
    ] {
        let reply = openai(body).await.unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!((reply.content.as_str(), reply.tool_calls.len()), ("hi", 0), "{what}");
    }
    let hi = json!({"message": {"content": "hi", "tool_calls": null}, "done": true,
                    "prompt_eval_count": null, "eval_count": -1});
    for (what, body) in [
        ("one line", hi.to_string()),
        ("pretty-printed", format!("{hi:#}")),
        ("null", format!("{}\n{hi}", json!({"message": {"content": null}, "done": false}))),
        ("no message", format!("{{\"done\":false}}\n{{\"message\":null}}\n{hi}")),
    ] {
        let reply = ollama(body).await.unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(reply.content, "hi", "{what}");
    }
}

#[tokio::test]
async fn nothing_is_nothing() {
    for message in [json!({"content": null}), json!({"content": ""}), json!({}), json!(null)] {
        assert_eq!(openai(whole(message.clone()).to_string()).await.unwrap().content, "");
        let body = json!({"message": message, "done": true}).to_string();
        assert_eq!(ollama(body).await.unwrap().content, "");
    }
}

#[tokio::test]
async fn of_twenty_calls_the_first_sixteen_are_used() {
    let calls: Vec<_> = (0..20)
        .map(|n| json!({"index": n, "function": {"name": format!("t{n}"), "arguments": "{}"}}))
        .collect();
    let names = |reply: ChatReply| reply.tool_calls.into_iter().map(|c| c.name).collect::<Vec<_>>();
    let expected: Vec<_> = (0..16).map(|n| format!("t{n}")).collect();
    let message = json!({"content": null, "tool_calls": calls});
    assert_eq!(names(openai(whole(message.clone()).to_string()).await.unwrap()), expected);
    let body = json!({"message": message, "done": true}).to_string();
    assert_eq!(names(ollama(body).await.unwrap()), expected);
}

#[tokio::test]
async fn of_a_megabyte_what_fits_is_used_and_marked() {
    let words = "ä".repeat(150_000);
    let reply = openai(whole(json!({"content": words})).to_string()).await.unwrap();
    assert!(reply.truncated && reply.content.len() == 256 * 1024, "{}", reply.content.len());
}

#[tokio::test]
async fn a_web_page_is_called_one() {
    let page = "<!DOCTYPE html>\n<html><body>Sign in</body></html>";
    let error = openai(page.into()).await.unwrap_err().to_string();
    assert_eq!(error, "the model server sent an unreadable answer: it is a web page");
    let server = Serve::new(move |_, _| Answer::status(502, page)).await;
    let error = chat(&OpenAi::new(&server.url, None).unwrap(), &asks()).await.0.unwrap_err();
    let said = "the model server refused (502): it answered with a web page";
    assert_eq!(error.to_string(), said);
}

#[tokio::test]
async fn not_found_is_a_missing_model_only_if_the_list_says_so() {
    for (listed, missing) in [("m", false), ("other", true)] {
        let server = Serve::new(move |what, _| match what {
            "GET /v1/models" => Answer::ok(json!({"data": [{"id": listed}]}).to_string()),
            "GET /api/tags" => Answer::ok(json!({"models": [{"name": listed}]}).to_string()),
            _ => Answer::status(404, "404 page not found"),
        })
        .await;
        let models: [Box<dyn ChatModel>; 2] = [
            Box::new(OpenAi::new(&server.url, None).unwrap()),
            Box::new(Ollama::new(&server.url, None).unwrap()),
        ];
        for model in models {
            let error = chat(model.as_ref(), &asks()).await.0.unwrap_err();
            assert_eq!(matches!(error, Error::ModelMissing { .. }), missing, "{error}");
        }
    }
}

#[tokio::test]
async fn a_model_that_is_still_loaded_is_waited_for() {
    let times = Arc::new(AtomicUsize::new(0));
    let server = Serve::new(move |what, _| match what {
        "POST /api/show" => Answer::ok("{}"),
        _ if times.fetch_add(1, Ordering::SeqCst) == 0 => {
            Answer::ok(r#"{"message":{"content":""},"done":true,"done_reason":"load"}"#)
        }
        _ => Answer::ok(r#"{"message":{"content":"hi"},"done":true,"done_reason":"length"}"#),
    })
    .await;
    let model = Arc::new(Ollama::new(&server.url, None).unwrap());
    let (step, _) = Broker::new(model, Limits::default()).ask("a", asks()).done().await.unwrap();
    // It was cut, and says so.
    assert_eq!(step, Step::Say("hi […]".into()));
}

#[tokio::test]
async fn a_server_that_is_busy_says_when_it_is_asked_again() {
    let server = Serve::new(|_, _| Answer::status(429, "slow down").header("retry-after: 7")).await;
    let error = chat(&OpenAi::new(&server.url, None).unwrap(), &asks()).await.0.unwrap_err();
    let Error::Refused { retry_after, .. } = error else { panic!("{error}") };
    assert_eq!(retry_after, Some(std::time::Duration::from_secs(7)));
    let server = Serve::new(|_, _| Answer::status(503, "").header("Retry-After: 999999999")).await;
    let error = chat(&Ollama::new(&server.url, None).unwrap(), &asks()).await.0.unwrap_err();
    let Error::Refused { retry_after, .. } = error else { panic!("{error}") };
    assert_eq!(retry_after, Some(std::time::Duration::from_secs(60)));
}

#[tokio::test]
async fn names_of_models_are_few_short_and_escaped() {
    let long = format!("e{}", "\u{301}".repeat(100_000));
    let names: Vec<_> =
        (0..1000).map(|n| if n == 0 { long.clone() } else { format!("\u{1b}{n}") }).collect();
    let openai: Vec<_> =
        names.iter().map(|name| json!({"id": name, "aliases": names[..9]})).collect();
    let tags: Vec<_> = names.iter().map(|name| json!({"name": name})).collect();
    let (openai, tags) =
        (json!({"data": openai[..9]}).to_string(), json!({"models": tags}).to_string());
    let server = Serve::new(move |what, _| match what {
        "GET /v1/models" => Answer::ok(openai.clone()),
        _ => Answer::ok(tags.clone()),
    })
    .await;
    let models: [Box<dyn ChatModel>; 2] = [
        Box::new(OpenAi::new(&server.url, None).unwrap()),
        Box::new(Ollama::new(&server.url, None).unwrap()),
    ];
    for model in models {
        let known = model.models().await.unwrap();
        assert!(known.len() <= 256, "{}", known.len());
        for one in known {
            assert!(one.name.chars().count() <= 8 * 128, "{}", one.name.len());
            assert!(one.name.is_ascii(), "{:?}", one.name);
        }
    }
}
