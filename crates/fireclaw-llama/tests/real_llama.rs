//! A real llama-server with a real model. Fetched once, into `FIRECLAW_HOME` or the target
//! directory. Nothing here depends on how the model puts its words.
#![allow(clippy::disallowed_macros, reason = "the test harness collects what these print")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use fireclaw_llama::{
    LocalModel, LocalServer, Options, Stage, compile_server, fetch_model, fetch_server,
};
use fireclaw_llm::{
    Abilities, Broker, ChatModel, ChatRequest, Error, Event, Example, Limits, Message, Mode,
    Server, ServerConfig, ServerKind, Step, Tool, ToolCall, detect, step,
};
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};
use tokio::sync::Mutex;

const MODEL: LocalModel = LocalModel::QwenCoder;

/// One server has one slot: tests that measure it go one by one.
static ALONE: Mutex<()> = Mutex::const_new(());

fn home() -> PathBuf {
    std::env::var_os("FIRECLAW_HOME")
        .filter(|home| !home.is_empty())
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("llm-home"), PathBuf::from)
}

async fn options() -> Options {
    let mut progress = |_: Stage<'_>| {};
    Options {
        program: fetch_server(&home(), &mut progress).await.unwrap(),
        model: fetch_model(&home(), MODEL, &mut progress).await.unwrap(),
        names: vec![MODEL.name().into()],
        context_tokens: 4096,
        threads: None,
    }
}

/// The server that all tests share. The kernel kills it when this process ends.
fn shared() -> ServerConfig {
    static SERVER: OnceLock<ServerConfig> = OnceLock::new();
    let start = || {
        let (ready, started) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut server = LocalServer::start(&options().await).await.unwrap();
                ready.send(server.config()).unwrap();
                panic!("{:?}", server.died().await);
            })
        });
        started.recv().unwrap()
    };
    SERVER.get_or_init(start).clone()
}

fn model() -> Server {
    Server::new(shared()).unwrap()
}

fn asks(messages: Vec<Message>) -> ChatRequest {
    ChatRequest {
        model: MODEL.name().into(),
        messages,
        max_tokens: Some(100),
        temperature: Some(0.0),
        ..ChatRequest::default()
    }
}

fn run_command() -> Tool {
    Tool {
        name: "run_command".into(),
        description: "Run a shell command on your machine and see what it prints.".into(),
        parameters: json!({
            "type": "object",
            "properties": {"command": {"type": "string"}},
            "required": ["command"],
        }),
        examples: vec![
            Example {
                request: "which kernel do you run?".into(),
                arguments: json!({"command": "uname -r"}),
                result: "6.1.0-13-amd64".into(),
                reply: "I run Linux 6.1.0-13-amd64.".into(),
            },
            Example {
                request: "is nginx running?".into(),
                arguments: json!({"command": "pgrep -a nginx"}),
                result: "812 nginx".into(),
                reply: "Yes, nginx runs as process 812.".into(),
            },
        ],
    }
}

fn uptime() -> Vec<Message> {
    vec![
        Message::system("You are worker, an agent with a machine of your own."),
        Message::user("what is your uptime? Use the tool"),
    ]
}

/// Whether the server computes, by its own account.
async fn is_processing(config: &ServerConfig) -> bool {
    let request = reqwest::Client::new()
        .get(format!("{}/slots", config.url))
        .bearer_auth(config.key.as_ref().unwrap().reveal());
    let slots: Value = request.send().await.unwrap().json().await.unwrap();
    slots.as_array().unwrap().iter().any(|slot| slot["is_processing"] == true)
}

async fn is_idle(config: &ServerConfig) {
    let begun = Instant::now();
    while is_processing(config).await {
        assert!(begun.elapsed() < Duration::from_secs(60), "the server computes on");
    }
}

#[tokio::test]
async fn a_chat_streams() {
    let _turn = ALONE.lock().await;
    let mut pieces = Vec::new();
    let request = asks(vec![Message::user("Count from one to ten in words.")]);
    let reply = model().chat(&request, &mut |text| pieces.push(text.to_owned())).await.unwrap();
    assert!(pieces.len() > 1, "{pieces:?}");
    assert_eq!(pieces.concat(), reply.content);
    assert!(reply.usage.prompt_tokens > 0 && reply.usage.completion_tokens > 1, "{reply:?}");
}

#[tokio::test]
async fn the_most_tokens_are_kept() {
    let _turn = ALONE.lock().await;
    let request = asks(vec![Message::user("Count from one to a hundred in words.")]);
    let request = ChatRequest { max_tokens: Some(5), ..request };
    let reply = model().chat(&request, &mut |_| {}).await.unwrap();
    assert!(reply.truncated);
    assert_eq!(reply.usage.completion_tokens, 5);
}

#[tokio::test]
async fn what_it_is_and_can_is_told() {
    let config = shared();
    assert_eq!(detect(&config).await.unwrap(), ServerKind::OpenAi);
    assert_eq!(model().models().await.unwrap()[0].name, MODEL.name());
    let abilities = model().abilities(MODEL.name()).await.unwrap();
    assert_eq!(abilities.context_tokens, Some(4096));
}

#[tokio::test]
async fn a_tool_is_called_bound_by_a_schema() {
    let _turn = ALONE.lock().await;
    let abilities = Abilities { native_tools: false, context_tokens: None };
    let request = ChatRequest { tools: vec![run_command()], ..asks(uptime()) };
    let stepped = step(&model(), abilities, &request, &mut |_| {}).await.unwrap();
    let Step::Call(calls) = &stepped.step else { panic!("{stepped:?}") };
    assert_eq!((calls[0].name.as_str(), stepped.mode), ("run_command", Mode::Schema));
    assert!(!calls[0].arguments["command"].as_str().unwrap().is_empty());

    // It comes to an end with what the command printed.
    let mut messages = uptime();
    let calls = vec![ToolCall { id: "1".into(), ..calls[0].clone() }];
    messages.push(Message::calls(calls));
    messages.push(Message::result("1", "up 4217 minutes"));
    let request = ChatRequest { messages, ..request };
    let mut heard = String::new();
    let stepped =
        step(&model(), abilities, &request, &mut |text| heard.push_str(text)).await.unwrap();
    let Step::Say(said) = &stepped.step else { panic!("{stepped:?}") };
    assert!(said.contains("4217"), "{said}");
    assert_eq!(heard.trim(), said);
}

#[tokio::test]
async fn a_tool_is_called_whatever_the_server_says_it_can() {
    let _turn = ALONE.lock().await;
    let broker = Broker::new(Arc::new(model()), Limits::default());
    let request = ChatRequest { tools: vec![run_command()], ..asks(uptime()) };
    let (step, usage) = broker.ask("worker", request).done().await.unwrap();
    let Step::Call(calls) = &step else { panic!("{step:?}") };
    assert_eq!(calls[0].name, "run_command");
    assert_eq!(broker.totals()["worker"].usage, usage);
}

#[tokio::test]
async fn what_is_cancelled_is_not_computed() {
    let _turn = ALONE.lock().await;
    let config = shared();
    let limits = Limits { max_tokens_per_reply: 4000, ..Limits::default() };
    let broker = Broker::new(Arc::new(model()), limits);
    let story = asks(vec![Message::user("Write a very long story.")]);
    let mut ticket = broker.ask("a", ChatRequest { max_tokens: None, ..story.clone() });
    while !matches!(ticket.next().await.unwrap(), Event::Text(_)) {}
    assert!(is_processing(&config).await);
    drop(ticket);
    is_idle(&config).await;
    let short = ChatRequest { max_tokens: Some(3), ..story };
    broker.ask("a", short).done().await.unwrap();
    assert_eq!(broker.totals()["a"].cancelled, 1);
}

#[tokio::test]
async fn a_missing_model_is_told_though_the_server_takes_any_name() {
    let broker = Broker::new(Arc::new(model()), Limits::default());
    let request = ChatRequest { model: "nonesuch:7b".into(), ..asks(uptime()) };
    let error = broker.ask("a", request).done().await.unwrap_err();
    assert_eq!(error.to_string(), "model nonesuch:7b is not there");
    let Error::ModelMissing { known, .. } = error else { unreachable!() };
    assert_eq!(known, [MODEL.name()]);
}

#[tokio::test]
async fn a_wrong_key_is_refused() {
    let config = ServerConfig { key: None, ..shared() };
    let error = Server::new(config).unwrap().chat(&asks(uptime()), &mut |_| {}).await.unwrap_err();
    assert!(matches!(error, Error::Refused { status: 401, .. }), "{error}");
}

#[tokio::test]
async fn a_server_that_dies_amid_an_answer_is_told_so() {
    let _turn = ALONE.lock().await;
    let mut server = LocalServer::start(&options().await).await.unwrap();
    let limits = Limits { max_retries: 0, ..Limits::default() };
    let broker = Broker::new(Arc::new(Server::new(server.config()).unwrap()), limits);
    let story = asks(vec![Message::user("Write a very long story.")]);
    let mut ticket = broker.ask("a", ChatRequest { max_tokens: None, ..story.clone() });
    while !matches!(ticket.next().await.unwrap(), Event::Text(_)) {}
    let pid = i32::try_from(server.pid().unwrap()).unwrap();
    rustix::process::kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    let error = ticket.done().await.unwrap_err();
    assert!(matches!(error, Error::BrokeOff { .. }), "{error}");
    server.died().await;
    let error = broker.ask("a", story.clone()).done().await.unwrap_err();
    assert!(matches!(error, Error::Down { .. }), "{error}");
    // Once it is back, it is where it was.
    server.restart().await.unwrap();
    broker.ask("a", asks(uptime())).done().await.unwrap();
}

#[tokio::test]
async fn a_model_file_that_is_missing_is_named() {
    let options = Options { model: "/nowhere/model.gguf".into(), ..options().await };
    let error = LocalServer::start(&options).await.unwrap_err();
    let fireclaw_llama::Error::ServerDied { log, .. } = error else { panic!("{error}") };
    assert!(log.contains("/nowhere/model.gguf"), "{log}");
}

#[tokio::test]
#[ignore = "compiles llama.cpp, which takes some ten minutes on two processors"]
async fn a_server_is_compiled_and_answers() {
    let home = tempfile::tempdir().unwrap();
    let mut percents = Vec::new();
    let mut progress = |stage: Stage<'_>| {
        if let Stage::Compiling { percent } = stage {
            percents.push(percent);
        }
    };
    let program = compile_server(home.path(), &mut progress).await.unwrap();
    assert_eq!(percents.last(), Some(&100));
    let left: Vec<_> = std::fs::read_dir(home.path().join("llama")).unwrap().flatten().collect();
    assert_eq!(left.len(), 2, "the lock and the program: {left:?}");
    let options = Options { program: program.clone(), ..options().await };
    // It has answered a question by then.
    drop(LocalServer::start(&options).await.unwrap());
    // The second time it is there.
    assert_eq!(compile_server(home.path(), &mut |_| ()).await.unwrap(), program);
}
