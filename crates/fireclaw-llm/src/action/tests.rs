use std::collections::VecDeque;
use std::sync::Mutex;

use futures_util::future::BoxFuture;
use serde_json::{Value, json};

use super::*;
use crate::ToolCall;
use crate::{ChatReply, Example, ModelInfo, Tool};

/// Answers what it was told to, and keeps what it was asked.
struct Scripted {
    replies: Mutex<VecDeque<Result<ChatReply>>>,
    asked: Mutex<Vec<ChatRequest>>,
}

impl Scripted {
    fn new(replies: impl IntoIterator<Item = Result<ChatReply>>) -> Self {
        let replies = Mutex::new(replies.into_iter().collect());
        Self { replies, asked: Mutex::default() }
    }

    fn asked(&self) -> Vec<ChatRequest> {
        self.asked.lock().unwrap().clone()
    }
}

impl ChatModel for Scripted {
    fn models(&self) -> BoxFuture<'_, Result<Vec<ModelInfo>>> {
        unreachable!()
    }

    fn abilities<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Abilities>> {
        unreachable!()
    }

    fn chat<'a>(
        &'a self,
        request: &'a ChatRequest,
        on_text: OnText<'a>,
    ) -> BoxFuture<'a, Result<ChatReply>> {
        Box::pin(async move {
            self.asked.lock().unwrap().push(request.clone());
            let reply = self.replies.lock().unwrap().pop_front().unwrap();
            if let Ok(reply) = &reply {
                for piece in reply.content.split_inclusive(' ') {
                    on_text(piece);
                }
            }
            reply
        })
    }
}

fn words(content: &str) -> Result<ChatReply> {
    let usage = Usage { prompt_tokens: 10, completion_tokens: 1 };
    Ok(ChatReply { content: content.into(), usage, ..ChatReply::default() })
}

fn call(name: &str, arguments: Value) -> ToolCall {
    ToolCall { id: "1".into(), name: name.into(), arguments }
}

fn calls(name: &str, arguments: Value) -> Result<ChatReply> {
    Ok(ChatReply { tool_calls: vec![call(name, arguments)], ..ChatReply::default() })
}

fn run_command() -> Tool {
    Tool {
        name: "run_command".into(),
        description: "Run a shell command on your machine.".into(),
        parameters: json!({
            "type": "object",
            "properties": {"command": {"type": "string"}},
            "required": ["command"],
        }),
        examples: vec![Example {
            request: "which kernel is this?".into(),
            arguments: json!({"command": "uname -r"}),
            result: "6.1.0".into(),
            reply: "It is 6.1.0.".into(),
        }],
    }
}

fn write_file() -> Tool {
    Tool {
        name: "write_file".into(),
        description: "Write a file.".into(),
        parameters: json!({
            "type": "object",
            "properties": {"path": {"type": "string"}, "text": {"type": "string"}},
            "required": ["path", "text"],
        }),
        examples: Vec::new(),
    }
}

fn request(messages: Vec<Message>) -> ChatRequest {
    let tools = vec![run_command(), write_file()];
    ChatRequest { model: "m".into(), messages, tools, ..ChatRequest::default() }
}

fn asks() -> ChatRequest {
    request(vec![Message::system("You are worker."), Message::user("what is your uptime?")])
}

const NATIVE: Abilities = Abilities { native_tools: true, context_tokens: None };
const NONE: Abilities = Abilities { native_tools: false, context_tokens: None };

async fn run(model: &Scripted, abilities: Abilities, request: &ChatRequest) -> (Stepped, String) {
    let mut heard = String::new();
    let stepped = step(model, abilities, request, &mut |text| heard.push_str(text)).await.unwrap();
    (stepped, heard)
}

fn the_call(stepped: &Stepped) -> (&str, &Value) {
    match &stepped.step {
        Step::Call(calls) => (&calls[0].name, &calls[0].arguments),
        Step::Say(said) => panic!("it said {said}"),
    }
}

#[tokio::test]
async fn words_are_heard_as_they_come() {
    let model = Scripted::new([words("I am fine.")]);
    let (stepped, heard) = run(&model, NATIVE, &asks()).await;
    assert_eq!(stepped.step, Step::Say("I am fine.".into()));
    assert_eq!(heard, "I am fine.");
}

#[tokio::test]
async fn thoughts_are_not_said() {
    let model = Scripted::new([words("<think>hm, hm</think>\nFine.")]);
    let (stepped, heard) = run(&model, NATIVE, &asks()).await;
    assert_eq!((stepped.step, heard.as_str()), (Step::Say("Fine.".into()), "Fine."));
}

#[tokio::test]
async fn a_call_in_the_text_is_a_call_and_is_not_said() {
    let text = "{\"name\": \"run_command\", \"arguments\": {\"command\": \"uptime\"}}}";
    let model = Scripted::new([words(text)]);
    let (stepped, heard) = run(&model, NATIVE, &asks()).await;
    assert_eq!(the_call(&stepped), ("run_command", &json!({"command": "uptime"})));
    assert_eq!((stepped.mode, heard.as_str()), (Mode::Native, ""));
}

#[tokio::test]
async fn marks_of_a_models_format_are_not_said() {
    for (content, said) in [
        ("hm, hm</think>Fine.", "Fine."),
        ("<think>a</think> b</think>\nFine.<|im_end|>", "Fine."),
        ("Fine.<|im_end|>\n<|im_start|>user\nmore", "Fine."),
        (
            "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Fine.",
            "Fine.",
        ),
        ("<|channel|>final <|constrain|>text<|message|>Fine.<|return|>", "Fine."),
        ("Fine.</s>", "Fine."),
        ("I think </thin> so", "I think </thin> so"),
        ("<|channel|>analysis<|message|>only thoughts", ""),
        ("<think>only thoughts", ""),
        ("<|im_end|>", ""),
    ] {
        assert_eq!(spoken(content), said, "{content}");
    }
}

#[tokio::test]
async fn arguments_that_do_not_parse_are_never_run() {
    let good = r#"{"action":"reply","argument":"no"}"#;
    for text in
        ["{\"command\": \"rm -rf /", "{\"command\"", "```json\n{\"command\": ", " { 'a': 1}", "{}"]
    {
        let model = Scripted::new([calls("run_command", json!(text)), words(good)]);
        let (stepped, _) = run(&model, NATIVE, &asks()).await;
        assert_eq!(stepped.step, Step::Say("no".into()), "{text}");
        let bound = json!({"action": "run_command", "argument": text}).to_string();
        let error = step(&Scripted::new([words(&bound)]), NONE, &asks(), &mut |_| {}).await;
        assert!(matches!(error, Err(Error::Senseless { .. })), "{text}: {error:?}");
    }
    for (text, command) in
        [("{ ls; }", "{ ls; }"), (r#"{"command": "ls"}"#, "ls"), ("[ -e a ]", "[ -e a ]")]
    {
        let bound = json!({"action": "run_command", "argument": text}).to_string();
        let (stepped, _) = run(&Scripted::new([words(&bound)]), NONE, &asks()).await;
        assert_eq!(the_call(&stepped).1, &json!({"command": command}));
    }
}

#[tokio::test]
async fn a_server_that_refuses_tools_and_schemas_is_asked_for_words() {
    let refused = || Err(Error::refused(400, String::new()));
    let mut asked = asks().messages;
    asked.push(Message::calls(vec![call("run_command", json!({"command": "uptime"}))]));
    asked.push(Message::result("1", "up 3 min"));
    let model = Scripted::new([refused(), refused(), words("3 minutes")]);
    let (stepped, _) = run(&model, NATIVE, &request(asked)).await;
    assert_eq!(stepped.step, Step::Say("3 minutes".into()));
    let last = &model.asked()[2];
    assert!(last.tools.is_empty() && last.schema.is_none());
    assert!(last.messages.iter().all(|m| m.tool_calls.is_empty() && m.tool_call_id.is_none()));
}

#[tokio::test]
async fn a_lone_text_becomes_the_lone_argument() {
    let model = Scripted::new([calls("run_command", json!("uptime"))]);
    let (stepped, _) = run(&model, NATIVE, &asks()).await;
    assert_eq!(the_call(&stepped), ("run_command", &json!({"command": "uptime"})));
}

#[tokio::test]
async fn what_is_too_much_is_left_out() {
    // As Qwen2.5-Coder 0.5B goes on and on.
    let text = "{\"name\": \"run_command\", \"arguments\": {\"command\": \"uptime\", \"type\": \"object\"}}\n\
                {\"name\": \"run_command\", \"arguments\": {\"command\": \"uptime\"}}\n\
                {\"name\": \"run_command\", \"arguments\": {\"comm";
    let (stepped, _) = run(&Scripted::new([words(text)]), NATIVE, &asks()).await;
    assert_eq!(the_call(&stepped), ("run_command", &json!({"command": "uptime"})));
    assert!(matches!(&stepped.step, Step::Call(calls) if calls.len() == 1));
}

#[tokio::test]
async fn what_makes_no_sense_is_asked_again_bound_by_a_schema() {
    let refused = |status| Err(Error::refused(status, String::new()));
    for first in [
        calls("get_uptime", json!({})),
        calls("run_command", json!({"cmd": "uptime"})),
        calls("write_file", json!("{\"path\": ")),
        words("<tool_call>\n{run_command}\n</tool_call>"),
        words("{\"name\": \"get_uptime\", \"arguments\": {}}"),
        words(""),
        refused(500),
        refused(400),
    ] {
        let model =
            Scripted::new([first, words(r#"{"action":"run_command","argument":"uptime"}"#)]);
        let (stepped, heard) = run(&model, NATIVE, &asks()).await;
        assert_eq!(the_call(&stepped), ("run_command", &json!({"command": "uptime"})));
        assert_eq!((stepped.mode, heard.as_str()), (Mode::Schema, ""));
        let asked = model.asked();
        assert!(asked[1].tools.is_empty() && asked[1].schema.is_some());
    }
}

#[tokio::test]
async fn tokens_of_both_requests_are_counted() {
    let model =
        Scripted::new([words("<tool_call>"), words(r#"{"action":"reply","argument":"hi"}"#)]);
    let (stepped, heard) = run(&model, NATIVE, &asks()).await;
    assert_eq!(stepped.usage, Usage { prompt_tokens: 20, completion_tokens: 2 });
    assert_eq!(heard, "hi");
}

#[tokio::test]
async fn other_errors_are_not_hidden() {
    let model = Scripted::new([Err(Error::refused(401, "key".into()))]);
    let error = step(&model, NATIVE, &asks(), &mut |_| {}).await.unwrap_err();
    assert!(matches!(error, Error::Refused { status: 401, .. }), "{error}");
}

#[tokio::test]
async fn the_schema_knows_what_is_offered_and_nothing_else() {
    let model = Scripted::new([words(
        r#"{"action": "write_file", "argument": {"path": "a", "text": "b"}}"#,
    )]);
    let (stepped, _) = run(&model, NONE, &asks()).await;
    assert_eq!(the_call(&stepped), ("write_file", &json!({"path": "a", "text": "b"})));
    let schema = model.asked()[0].schema.clone().unwrap();
    let actions: Vec<_> = schema["anyOf"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            let properties = &one["properties"];
            (properties["action"]["const"].clone(), properties["argument"]["type"].clone())
        })
        .collect();
    let expected = [("reply", "string"), ("run_command", "string"), ("write_file", "object")];
    assert_eq!(actions, expected.map(|(action, kind)| (json!(action), json!(kind))));
}

#[tokio::test]
async fn the_conversation_is_told_in_words() {
    let model = Scripted::new([words(r#"{"action":"reply","argument":"Up 3 minutes."}"#)]);
    let made = ToolCall { id: "x1".into(), ..call("run_command", json!({"command": "uptime"})) };
    let mut asked = asks().messages;
    asked.insert(1, Message::assistant("Hello."));
    asked.extend([Message::calls(vec![made]), Message::result("x1", "up 3 min\n")]);
    asked.push(Message::user("well?"));
    run(&model, NONE, &request(asked)).await;
    let told = &model.asked()[0].messages;
    let talk: Vec<_> = told.iter().map(|m| (m.role, m.content.as_str())).collect();
    let shown = [
        (Role::User, "which kernel is this?"),
        (Role::Assistant, r#"{"action":"run_command","argument":"uname -r"}"#),
        (Role::User, "Result of run_command:\n6.1.0"),
        (Role::Assistant, r#"{"action":"reply","argument":"It is 6.1.0."}"#),
        (Role::User, "…"),
        (Role::Assistant, r#"{"action":"reply","argument":"Hello."}"#),
        (Role::User, "what is your uptime?"),
        (Role::Assistant, r#"{"action":"run_command","argument":"uptime"}"#),
        (Role::User, "Result of run_command:\nup 3 min\nwell?"),
    ];
    assert_eq!(talk[talk.len() - shown.len()..], shown);
    assert!(told.iter().all(|message| message.tool_calls.is_empty()));
    assert!(told.windows(2).all(|pair| pair[0].role != pair[1].role));
    for part in ["You are worker.", "- run_command: Run a shell command", "write_file"] {
        assert!(talk[0].1.contains(part), "{part:?} is not in {}", talk[0].1);
    }
}

#[tokio::test]
async fn a_call_that_was_just_answered_is_not_made_again() {
    let mut asked = asks().messages;
    asked.push(Message::calls(vec![call("run_command", json!({"command": "uptime"}))]));
    asked.push(Message::result("1", "up 3 min"));
    let again = r#"{"action":"run_command","argument":"uptime"}"#;
    let said = r#"{"action":"reply","argument":"3 minutes"}"#;

    let model = Scripted::new([words(again), words(said)]);
    let (stepped, _) = run(&model, NONE, &request(asked.clone())).await;
    assert_eq!(stepped.step, Step::Say("3 minutes".into()));
    let forced = model.asked()[1].schema.clone().unwrap();
    assert_eq!(forced["properties"]["action"]["const"], "reply");

    let same = || calls("run_command", json!({"command": "uptime"}));
    let model = Scripted::new([same(), words(again), words(said)]);
    let (stepped, _) = run(&model, NATIVE, &request(asked.clone())).await;
    assert_eq!(stepped.step, Step::Say("3 minutes".into()));

    // Asked anew, it may look anew.
    asked.push(Message::user("and now?"));
    let model = Scripted::new([same()]);
    let (stepped, _) = run(&model, NATIVE, &request(asked)).await;
    assert_eq!(the_call(&stepped).0, "run_command");
}

#[tokio::test]
async fn what_was_not_offered_is_never_called() {
    for content in [
        r#"{"action":"rm","argument":"-rf"}"#,
        r#"{"action":"write_file","argument":"a"}"#,
        r#"{"action":"reply","argument":" "}"#,
        r#"{"action":"reply"}"#,
        r#"{"action":"#,
        "",
    ] {
        let model = Scripted::new([words(content)]);
        let error = step(&model, NONE, &asks(), &mut |_| {}).await.unwrap_err();
        assert!(matches!(error, Error::Senseless { .. }), "{content}: {error}");
    }
}

#[tokio::test]
async fn a_reply_that_is_cut_off_is_said_as_far_as_it_goes() {
    let cut = ChatReply {
        content: r#"{"action": "reply", "argument": "Once upon a "#.into(),
        truncated: true,
        ..ChatReply::default()
    };
    let model = Scripted::new([Ok(cut)]);
    let (stepped, heard) = run(&model, NONE, &asks()).await;
    assert_eq!(stepped.step, Step::Say("Once upon a".into()));
    assert!(stepped.truncated);
    assert_eq!(heard, "Once upon a ");
}

#[test]
fn work_per_byte_does_not_grow_with_the_text() {
    let reply = |text: &str| ChatReply { content: text.into(), ..ChatReply::default() };
    let request = ChatRequest { tools: vec![run_command()], ..ChatRequest::default() };
    use fireclaw_testkit::cost::assert_linear;
    assert_linear("spoken", &|text| drop(spoken(text).to_owned()));
    assert_linear("a native reply", &|text| drop(native::judge(&reply(text), &request)));
    assert_linear("a reply by schema", &|text| drop(schema::judge(text, &request.tools)));
}
