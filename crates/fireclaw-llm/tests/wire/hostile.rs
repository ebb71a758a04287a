//! Servers that break off, send nonsense or never stop. What they may send is bounded in
//! size; in time it is the broker that bounds it.

use std::sync::Arc;
use std::time::Duration;

use fireclaw_llm::{Broker, ChatModel, Error, Event, Limits, Ollama, OpenAi};

use super::support::{Answer, End, Serve};
use super::{asks, chat};

fn both(url: &str) -> [Box<dyn ChatModel>; 2] {
    [Box::new(OpenAi::new(url, None).unwrap()), Box::new(Ollama::new(url, None).unwrap())]
}

const OPENAI_WORD: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"word \"}}]}\n\n";

const OLLAMA_WORD: &str = "{\"message\":{\"content\":\"word \"},\"done\":false}\n";

#[tokio::test]
async fn a_line_without_end_is_given_up() {
    let server = Serve::new(|_, _| Answer::ok("data: ").then(End::Flood("x"))).await;
    for model in both(&server.url) {
        let error = chat(model.as_ref(), &asks()).await.0.unwrap_err();
        assert!(matches!(error, Error::BadReply { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_reply_without_end_is_given_up() {
    let openai = Serve::new(|_, _| Answer::ok("").then(End::Flood(OPENAI_WORD))).await;
    let model = OpenAi::new(&openai.url, None).unwrap();
    let (reply, heard) = chat(&model, &asks()).await;
    // What fits is used, and marked.
    assert!(reply.unwrap().truncated);
    assert_eq!(heard.concat().len(), 256 * 1024);
    let ollama = Serve::new(|_, _| Answer::ok("").then(End::Flood(OLLAMA_WORD))).await;
    let model = Ollama::new(&ollama.url, None).unwrap();
    let (reply, heard) = chat(&model, &asks()).await;
    // What fits is used, and marked.
    assert!(reply.unwrap().truncated);
    assert_eq!(heard.concat().len(), 256 * 1024);
}

#[tokio::test]
async fn empty_lines_without_end_are_given_up() {
    let server = Serve::new(|_, _| Answer::ok("").then(End::Flood("\n"))).await;
    for model in both(&server.url) {
        let error = chat(model.as_ref(), &asks()).await.0.unwrap_err();
        assert!(matches!(error, Error::BadReply { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_document_or_refusal_without_end_is_given_up() {
    for status in [200, 500] {
        let server =
            Serve::new(move |_, _| Answer::status(status, "[").then(End::Flood(" "))).await;
        for model in both(&server.url) {
            let error = model.models().await.unwrap_err();
            assert!(
                matches!(error, Error::BadReply { .. } | Error::Refused { status: 500, .. }),
                "{error}"
            );
        }
    }
}

#[tokio::test]
async fn what_breaks_off_is_told_so() {
    for (n, word) in [OPENAI_WORD, OLLAMA_WORD].into_iter().enumerate() {
        let server = Serve::new(move |_, _| Answer::ok(word).then(End::Cut)).await;
        let (reply, heard) = chat(both(&server.url)[n].as_ref(), &asks()).await;
        assert!(matches!(reply, Err(Error::BrokeOff { .. })), "{reply:?}");
        assert_eq!(heard, ["word "]);
        // One that only forgot its end has said something.
        let server = Serve::new(move |_, _| Answer::ok(word)).await;
        let reply = chat(both(&server.url)[n].as_ref(), &asks()).await.0.unwrap();
        assert!(reply.truncated && reply.content == "word ", "{reply:?}");
        let server = Serve::new(move |_, _| Answer::ok("")).await;
        let reply = chat(both(&server.url)[n].as_ref(), &asks()).await.0;
        assert!(matches!(reply, Err(Error::BrokeOff { .. })), "{reply:?}");
    }
}

#[tokio::test]
async fn nonsense_is_told_so() {
    for nonsense in ["data: \u{1b}[31m\n", "{\"choices\":7,\n\"message\":7\n", "{\n\n"] {
        let server = Serve::new(move |_, _| Answer::ok(nonsense)).await;
        for model in both(&server.url) {
            let error = chat(model.as_ref(), &asks()).await.0.unwrap_err();
            assert!(matches!(error, Error::BadReply { .. }), "{nonsense}: {error}");
            let said = error.to_string();
            assert!(said.ends_with("it is not the JSON that was asked for"), "{said}");
        }
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed_with_the_key() {
    let server = Serve::new(|_, _| Answer::status(302, "elsewhere")).await;
    for model in both(&server.url) {
        let error = model.models().await.unwrap_err();
        assert!(matches!(error, Error::Refused { status: 302, .. }), "{error}");
    }
}

#[tokio::test]
async fn a_dropped_ticket_hangs_up() {
    let mut server = Serve::new(|what, _| match what {
        "POST /v1/chat/completions" => Answer::ok(OPENAI_WORD).then(End::Silence),
        _ => Answer::status(404, ""),
    })
    .await;
    let model = Arc::new(OpenAi::new(&server.url, None).unwrap());
    let broker = Broker::new(model, Limits::default());
    let mut ticket = broker.ask("a", asks());
    while !matches!(ticket.next().await.unwrap(), Event::Text(_)) {}
    drop(ticket);
    server.is_idle().await;
}

#[tokio::test]
async fn a_silent_server_takes_no_longer_than_it_may() {
    let mut server = Serve::new(|what, _| match what {
        "POST /v1/chat/completions" => Answer::ok("").then(End::Silence),
        _ => Answer::status(404, ""),
    })
    .await;
    let model = Arc::new(OpenAi::new(&server.url, None).unwrap());
    let limits = Limits { max_seconds_per_request: 1, ..Limits::default() };
    let answer = Broker::new(model, limits).ask("a", asks()).done();
    let answer = tokio::time::timeout(Duration::from_secs(60), answer).await.unwrap();
    assert!(matches!(answer, Err(Error::TimedOut { seconds: 1 })), "{answer:?}");
    server.is_idle().await;
}
