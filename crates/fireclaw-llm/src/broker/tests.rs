use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::BoxFuture;
use proptest::prelude::*;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::*;
use crate::{Abilities, ChatReply, Error, Message, OnText, Step, Tool};

const SECOND: Duration = Duration::from_secs(1);

/// A model that takes a second for each answer, and fails as it is told to.
#[derive(Default)]
struct Slow {
    failures: Mutex<VecDeque<Error>>,
    /// Whose requests were begun, in order.
    begun: Mutex<Vec<String>>,
    working: AtomicUsize,
    most_at_once: AtomicUsize,
    with_tools: AtomicUsize,
    seconds: f64,
}

impl Slow {
    fn new() -> Arc<Self> {
        Arc::new(Self { seconds: 1.0, ..Self::default() })
    }

    fn begun(&self) -> Vec<String> {
        self.begun.lock().unwrap().clone()
    }
}

/// Counts a chat as under way until it ends or is dropped.
struct Working<'a>(&'a AtomicUsize);

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl ChatModel for Slow {
    fn models(&self) -> BoxFuture<'_, Result<Vec<ModelInfo>>> {
        unreachable!()
    }

    fn abilities<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Abilities>> {
        Box::pin(async { Ok(Abilities { native_tools: true, context_tokens: None }) })
    }

    fn chat<'a>(
        &'a self,
        request: &'a ChatRequest,
        on_text: OnText<'a>,
    ) -> BoxFuture<'a, Result<ChatReply>> {
        Box::pin(async move {
            self.begun.lock().unwrap().push(request.messages[0].content.clone());
            if let Some(error) = self.failures.lock().unwrap().pop_front() {
                return Err(error);
            }
            let now = self.working.fetch_add(1, Ordering::SeqCst) + 1;
            let _working = Working(&self.working);
            self.most_at_once.fetch_max(now, Ordering::SeqCst);
            on_text("yes, ");
            sleep(Duration::from_secs_f64(self.seconds)).await;
            on_text("yes");
            let usage = Usage { prompt_tokens: 7, completion_tokens: 2 };
            // It cannot call tools, but the schema makes it.
            let content = if request.schema.is_some() {
                r#"{"action":"reply","argument":"yes"}"#
            } else if request.tools.is_empty() {
                "yes, yes"
            } else {
                self.with_tools.fetch_add(1, Ordering::SeqCst);
                "<tool_call>"
            };
            Ok(ChatReply { content: content.into(), usage, ..ChatReply::default() })
        })
    }
}

fn asks(agent: &str) -> ChatRequest {
    ChatRequest { messages: vec![Message::user(agent)], ..ChatRequest::default() }
}

fn ask(broker: &Broker, agent: &str) -> Ticket {
    broker.ask(agent, asks(agent))
}

fn broker(model: &Arc<Slow>, limits: Limits) -> Broker {
    Broker::new(model.clone(), limits)
}

fn refusal(status: u16) -> Error {
    Error::refused(status, String::new())
}

async fn until_started(ticket: &mut Ticket) {
    while !matches!(ticket.next().await.unwrap(), Event::Started) {}
}

#[tokio::test(start_paused = true)]
async fn a_request_tells_how_it_goes() {
    let model = Slow::new();
    let broker = broker(&model, Limits::default());
    let mut first = ask(&broker, "a");
    assert!(matches!(first.next().await, Some(Event::Started)));
    let mut second = ask(&broker, "b");
    let queued = second.next().await;
    assert!(matches!(queued, Some(Event::Queued { position: 1, estimate: None })), "{queued:?}");
    for expected in ["yes, ", "yes"] {
        assert!(matches!(first.next().await, Some(Event::Text(text)) if text == expected));
    }
    let done = first.next().await;
    assert!(matches!(&done, Some(Event::Done(Step::Say(said), _)) if said == "yes, yes"));
    assert!(first.next().await.is_none());

    let third = ask(&broker, "c").next().await;
    let second_of_one = Some(SECOND);
    assert!(
        matches!(third, Some(Event::Queued { position: 1, estimate }) if estimate == second_of_one),
        "{third:?}"
    );
    second.done().await.unwrap();
    let totals = broker.totals();
    let usage = Usage { prompt_tokens: 7, completion_tokens: 2 };
    assert_eq!(totals["a"], Totals { answered: 1, usage, busy: SECOND, ..Totals::default() });
    assert_eq!(totals["c"].cancelled, 1);
    broker.forget("c");
    assert!(!broker.totals().contains_key("c"));
}

#[tokio::test(start_paused = true)]
async fn a_chatty_agent_does_not_starve_another() {
    let model = Slow::new();
    let broker = broker(&model, Limits::default());
    let chatty = broker.clone();
    // Keeps its queue full, whatever happens.
    let flood = tokio::spawn(async move {
        let mut tickets = VecDeque::new();
        loop {
            while tickets.len() < 8 {
                tickets.push_back(ask(&chatty, "chatty"));
            }
            let _ = tickets.pop_front().unwrap().done().await;
        }
    });
    for _ in 0..20 {
        sleep(Duration::from_millis(fastrand::u64(0..3000))).await;
        let asked = Instant::now();
        ask(&broker, "quiet").done().await.unwrap();
        // What runs, at most one of the other's, and its own.
        assert!(asked.elapsed() <= 3 * SECOND, "it took {:?}", asked.elapsed());
    }
    flood.abort();
    let begun = model.begun();
    assert!(begun.iter().filter(|agent| *agent == "chatty").count() >= 20);
}

#[tokio::test(start_paused = true)]
async fn positions_follow_the_turns() {
    let model = Slow::new();
    let broker = broker(&model, Limits::default());
    let running = ask(&broker, "a");
    let mut waiting = vec![ask(&broker, "a"), ask(&broker, "a"), ask(&broker, "b")];
    let mut last = Vec::new();
    for ticket in &mut waiting {
        let mut position = 0;
        while let Ok(Some(event)) =
            tokio::time::timeout(Duration::from_millis(1), ticket.next()).await
        {
            if let Event::Queued { position: told, .. } = event {
                position = told;
            }
        }
        last.push(position);
    }
    // The other agent's goes before the second of the first.
    assert_eq!(last, [1, 3, 2]);
    drop(running);
    for ticket in waiting {
        ticket.done().await.unwrap();
    }
    assert_eq!(model.begun(), ["a", "a", "b", "a"]);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_ticket_frees_its_place_and_stops_the_model() {
    let model = Slow::new();
    let broker = broker(&model, Limits::default());
    let mut running = ask(&broker, "a");
    until_started(&mut running).await;
    assert!(matches!(running.next().await, Some(Event::Text(_))));
    let waiting = ask(&broker, "a");
    let next = ask(&broker, "b");
    drop(waiting);
    drop(running);
    let asked = Instant::now();
    next.done().await.unwrap();
    assert_eq!(asked.elapsed(), SECOND);
    assert_eq!(model.working.load(Ordering::SeqCst), 0);
    assert_eq!(model.begun(), ["a", "b"]);
    assert_eq!(broker.totals()["a"].cancelled, 2);
}

#[tokio::test(start_paused = true)]
async fn what_may_wait_is_bounded() {
    let model = Slow::new();
    let limits = Limits { max_queue_per_agent: 2, max_request_bytes: 200, ..Limits::default() };
    let broker = broker(&model, limits);
    let held: Vec<_> = (0..3).map(|_| ask(&broker, "a")).collect();
    let error = ask(&broker, "a").done().await.unwrap_err();
    assert!(matches!(error, Error::Busy { waiting: 2, .. }), "{error}");
    let long = ask(&broker, &"x".repeat(200)).done().await.unwrap_err();
    assert!(matches!(long, Error::TooLarge { .. }), "{long}");
    drop(held);
    ask(&broker, "a").done().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn limits_lower_what_is_asked() {
    let limits = Limits::default();
    let mut request =
        ChatRequest { max_tokens: Some(1 << 20), num_ctx: Some(1 << 20), ..asks("a") };
    limits.apply(&mut request).unwrap();
    assert_eq!(request.max_tokens, Some(limits.max_tokens_per_reply));
    assert_eq!(request.num_ctx, Some(limits.max_context_tokens));
    let mut request = ChatRequest { max_tokens: Some(5), ..asks("a") };
    limits.apply(&mut request).unwrap();
    assert_eq!((request.max_tokens, request.num_ctx), (Some(5), None));
}

#[tokio::test(start_paused = true)]
async fn a_busy_server_is_tried_again_and_not_for_ever() {
    let down = || Error::Down { url: "http://x".into(), reason: String::new() };
    let model = Slow::new();
    model.failures.lock().unwrap().extend([down(), refusal(503), refusal(429), refusal(502)]);
    let broker = broker(&model, Limits::default());
    ask(&broker, "a").done().await.unwrap();
    assert_eq!(model.begun().len(), 5);

    model.failures.lock().unwrap().extend((0..20).map(|_| down()));
    let error = ask(&broker, "a").done().await.unwrap_err();
    assert!(matches!(error, Error::Down { .. }), "{error}");
    assert_eq!(model.begun().len(), 10);

    model.failures.lock().unwrap().clear();
    model.failures.lock().unwrap().push_back(refusal(403));
    ask(&broker, "a").done().await.unwrap_err();
    assert_eq!(model.begun().len(), 11);
    assert_eq!(broker.totals()["a"].failed, 2);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_takes_too_long_is_given_up() {
    let model = Arc::new(Slow { seconds: 1e6, ..Slow::default() });
    let broker = broker(&model, Limits { max_seconds_per_request: 5, ..Limits::default() });
    let asked = Instant::now();
    let error = ask(&broker, "a").done().await.unwrap_err();
    assert!(matches!(error, Error::TimedOut { seconds: 5 }), "{error}");
    assert_eq!(asked.elapsed(), 5 * SECOND);
    assert_eq!(model.working.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_models_own_tool_calling_is_given_up_after_it_failed() {
    let model = Slow::new();
    let broker = broker(&model, Limits::default());
    let tool = Tool {
        name: "uptime".into(),
        description: String::new(),
        parameters: json!({"type": "object"}),
        examples: Vec::new(),
    };
    for _ in 0..5 {
        let request = ChatRequest { tools: vec![tool.clone()], ..asks("a") };
        let (step, _) = broker.ask("a", request).done().await.unwrap();
        assert_eq!(step, Step::Say("yes".into()));
    }
    assert_eq!(model.with_tools.load(Ordering::SeqCst), 2);
}

#[derive(Debug, Clone)]
enum Act {
    Ask(u8),
    Drop(usize),
    Wait(u64),
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn slots_are_neither_lost_nor_exceeded(
        slots in 1usize..4,
        acts in prop::collection::vec(prop_oneof![
            (0u8..4).prop_map(Act::Ask),
            (0usize..8).prop_map(Act::Drop),
            (0u64..1500).prop_map(Act::Wait),
        ], 0..60),
    ) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let (most, asked, totals) = runtime.block_on(async {
            let model = Slow::new();
            let broker = broker(&model, Limits { slots, ..Limits::default() });
            let mut tickets: Vec<Ticket> = Vec::new();
            let mut asked = 0;
            for act in acts {
                match act {
                    Act::Ask(agent) => {
                        let ticket = ask(&broker, &agent.to_string());
                        asked += u64::from(ticket_is_in(&ticket));
                        tickets.push(ticket);
                    }
                    Act::Drop(n) if n < tickets.len() => drop(tickets.remove(n)),
                    Act::Drop(_) => {}
                    Act::Wait(ms) => sleep(Duration::from_millis(ms)).await,
                }
            }
            // Whatever happened before, everybody still waiting is served.
            for ticket in tickets {
                let _ = ticket.done().await;
            }
            sleep(SECOND).await;
            assert_eq!(model.working.load(Ordering::SeqCst), 0);
            let started = Instant::now();
            ask(&broker, "last").done().await.unwrap();
            assert_eq!(started.elapsed(), SECOND);
            (model.most_at_once.load(Ordering::SeqCst), asked + 1, broker.totals())
        });
        prop_assert!(most <= slots);
        let ended: u64 = totals.values().map(|t| t.answered + t.failed + t.cancelled).sum();
        prop_assert_eq!(ended, asked);
    }
}

fn ticket_is_in(ticket: &Ticket) -> bool {
    !format!("{ticket:?}").contains("refused: Some")
}
