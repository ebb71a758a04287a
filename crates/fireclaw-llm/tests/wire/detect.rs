//! Which API a URL speaks.

use fireclaw_llm::{ChatModel, Error, Server, ServerConfig, ServerKind, detect};

use super::support::{Answer, Serve, nowhere};
use super::{asks, chat};

fn config(url: &str) -> ServerConfig {
    ServerConfig { kind: ServerKind::Auto, url: url.into(), key: None, ca_file: None }
}

#[tokio::test]
async fn ollama_is_known_by_its_version() {
    let server = Serve::new(|what, _| match what {
        "GET /api/version" => Answer::ok(r#"{"version":"0.5.1"}"#),
        "POST /api/chat" => {
            Answer::ok(r#"{"message":{"role":"assistant","content":"hi"},"done":true}"#)
        }
        other => panic!("{other}"),
    })
    .await;
    assert_eq!(detect(&config(&server.url)).await.unwrap(), ServerKind::Ollama);
    let model = Server::new(config(&server.url)).unwrap();
    for _ in 0..2 {
        assert_eq!(chat(&model, &asks()).await.0.unwrap().content, "hi");
    }
    // It was asked once.
    let versions = server.asked().iter().filter(|a| a.what.ends_with("version")).count();
    assert_eq!(versions, 2);
}

#[tokio::test]
async fn others_are_known_by_their_models() {
    let server = Serve::new(|what, _| match what {
        "GET /v1/models" => Answer::ok(r#"{"data":[{"id":"m"}]}"#),
        _ => Answer::status(404, r#"{"error":{"code":404,"message":"File Not Found"}}"#),
    })
    .await;
    assert_eq!(detect(&config(&server.url)).await.unwrap(), ServerKind::OpenAi);
    let model = Server::new(config(&server.url)).unwrap();
    assert_eq!(model.models().await.unwrap()[0].name, "m");
}

#[tokio::test]
async fn something_else_is_told() {
    let server = Serve::new(|_, _| Answer::ok("<html>It works!</html>")).await;
    let error = detect(&config(&server.url)).await.unwrap_err();
    assert!(error.to_string().contains("neither Ollama's API nor OpenAI's"), "{error}");
}

#[tokio::test]
async fn nothing_is_told() {
    let url = nowhere().await;
    let error = detect(&config(&url)).await.unwrap_err();
    assert_eq!(error.to_string(), "the model server does not answer");
    // The channel is not told where it is; whoever runs it is, and why.
    let detail = error.detail().unwrap();
    assert!(detail.starts_with(&url) && detail.contains("refused"), "{detail}");
    // It may come up later, so that is no reason not to begin.
    let model = Server::new(config(&url)).unwrap();
    assert!(matches!(model.models().await, Err(Error::Down { .. })));
}
