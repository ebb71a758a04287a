//! What the model gets to read, cut to what fits its context.

use std::collections::VecDeque;

use fireclaw_protocol::agent::{Config, Incoming, MAX_LINE, Said};
use fireclaw_protocol::chat::{Message, Tool, ToolCall};
use serde_json::Value;

use crate::history::Exchange;
use crate::{clock, cut};

/// What a message costs besides its text, in bytes: role and separators, about four tokens.
const OVERHEAD: usize = 14;

/// The most tokens that are kept free for the answer.
const MAX_ANSWER: usize = 2048;

/// The smallest budget, in bytes, whatever the configuration says: below it there is no
/// room for a question.
const MIN_BUDGET: usize = 1024;

/// The most of the memory's index in a prompt, in bytes.
const MAX_INDEX: usize = 8 * 1024;

/// The most of a result that is kept of earlier rounds when there is no room, in bytes.
const SHORT_RESULT: usize = 200;

/// Calls that the model made at once, with their results.
#[derive(Debug, Clone)]
pub struct Round {
    pub calls: Vec<ToolCall>,
    /// One for each call.
    pub results: Vec<String>,
}

/// What a prompt is made of.
pub struct Prompt<'a> {
    pub config: &'a Config,
    pub incoming: &'a Incoming,
    pub tools: &'a [Tool],
    /// The index of the memories.
    pub memory: &'a str,
    pub history: &'a VecDeque<Exchange>,
    pub rounds: &'a [Round],
    /// What the model is asked in the end, after the rounds.
    pub last_word: Option<&'a str>,
    /// The time, in seconds since 1970.
    pub now: u64,
}

/// How many bytes a text of the configuration's context may have, besides the tools.
///
/// A token is taken for three and a half bytes. That is what English has; scripts with more
/// bytes to a character also have more tokens to it.
pub fn budget(config: &Config, tools: &[Tool]) -> usize {
    let tokens = usize::try_from(config.context_tokens).unwrap_or(usize::MAX).min(MAX_LINE);
    let tokens = tokens - (tokens / 4).min(MAX_ANSWER);
    (tokens * 7 / 2).min(MAX_LINE).saturating_sub(size_of_tools(tools)).max(MIN_BUDGET)
}

/// How many of the tools fit: they get half of the context at most. The last ones, which
/// are skills, are left out.
pub fn tools_that_fit(config: &Config, tools: &[Tool]) -> usize {
    let half = budget(config, &[]) / 2;
    (0..=tools.len()).rev().find(|n| size_of_tools(&tools[..*n]) <= half).unwrap_or(0)
}

fn size_of_tools(tools: &[Tool]) -> usize {
    tools.iter().map(|tool| serde_json::to_string(tool).map_or(0, |json| json.len())).sum()
}

impl Prompt<'_> {
    /// The conversation in at most `budget` bytes, but for [`MIN_BUDGET`]. What is oldest
    /// is left out first; what is left out in the middle of a text has a mark.
    pub fn messages(&self, budget: usize) -> Vec<Message> {
        let budget = budget.max(MIN_BUDGET);
        let system = self.system(budget / 2);
        let mut room = budget.saturating_sub(system.len() + OVERHEAD);
        let mut take = |size: usize| room = room.saturating_sub(size + OVERHEAD);

        let last_word = self.last_word.unwrap_or_default();
        take(last_word.len());
        let question = format!("{}: {}", self.incoming.from, self.incoming.text);
        let question = cut::middle(&question, (budget - system.len().min(budget)) / 2);
        take(question.len());
        let rounds = fit_rounds(self.rounds, room);
        room = room.saturating_sub(rounds.iter().map(size_of_round).sum());
        let recent = self.recent(room / 3);
        room = room.saturating_sub(recent.len());
        let history = self.fit_history(room);

        let mut messages = vec![Message::system(system)];
        messages.extend(history);
        messages.push(Message::user(recent + &question));
        for round in rounds {
            messages.push(Message::calls(round.calls.clone()));
            let results = round.calls.iter().zip(round.results);
            messages.extend(results.map(|(call, result)| Message::result(&call.id, result)));
        }
        if self.last_word.is_some() {
            messages.push(Message::user(last_word));
        }
        messages
    }

    /// Who the model is, where, and what it knows.
    fn system(&self, max: usize) -> String {
        let environment = self.environment();
        let room = max.saturating_sub(environment.len());
        let mut system = cut::middle(self.config.persona.trim(), room / 2);
        if !system.is_empty() {
            system.push_str("\n\n");
        }
        system.push_str(&environment);
        if !self.memory.trim().is_empty() {
            let title = "\n\nYour memory's index, /workspace/MEMORY.md:\n";
            let room = (room / 2).saturating_sub(title.len() + 2).min(MAX_INDEX);
            system.push_str(title);
            system.push_str(&cut::middle(self.memory.trim(), room));
        }
        cut::middle(&system, max)
    }

    fn environment(&self) -> String {
        let Config { name, nick, model, max_lines, .. } = self.config;
        let place = match self.incoming.private {
            true => format!("in private with {}", cut::line(&self.incoming.from, 64)),
            false => format!("in the channel {}", cut::line(&self.incoming.place, 64)),
        };
        let nick = cut::line(nick, 64);
        let mut text = format!(
            "You are {nick}{}, an AI agent on IRC, and talk {place}. Each message begins with the nick of who wrote it; do not put yours before your answer. Answer in plain text without Markdown, shortly: at most {} lines. It is {}.",
            match name == &nick {
                true => String::new(),
                false => format!(" (your agent's name is {})", cut::line(name, 64)),
            },
            (*max_lines).max(1),
            clock::words(self.now),
        );
        if !model.is_empty() {
            text.push_str(&format!(" Your language model is {}.", cut::line(model, 80)));
        }
        text.push_str(
            " You run in a Linux virtual machine of your own, as user agent; your files are in /workspace.",
        );
        if !self.tools.is_empty() {
            let names: Vec<&str> = self.tools.iter().map(|tool| tool.name.as_str()).collect();
            text.push_str(&format!(
                " Your tools: {}. Use one when the answer depends on this machine, on files or on memory; do not guess what a tool can tell you. When you know enough, answer.",
                names.join(", ")
            ));
        }
        text
    }

    /// What was said just before, but for what is in the history, newest lines first taken.
    /// It is no message of its own: many models want users and assistants to alternate.
    fn recent(&self, max: usize) -> String {
        const TITLE: &str = "(Said here just before, for your information:\n";
        const END: &str = ")\n\n";
        let Some(mut room) = max.checked_sub(TITLE.len() + END.len()) else {
            return String::new();
        };
        let is_known = |said: &&Said| {
            let answered = |e: &Exchange| e.from == said.from && said.text.ends_with(&e.text);
            self.history.iter().rev().take(20).any(answered)
        };
        let mut lines = Vec::new();
        for said in self.incoming.recent.iter().rev().filter(|said| !is_known(said)) {
            let line = format!("{}: {}\n", said.from, cut::middle(&said.text, 500));
            let Some(left) = room.checked_sub(line.len()) else { break };
            room = left;
            lines.push(line);
        }
        if lines.is_empty() {
            return String::new();
        }
        lines.reverse();
        format!("{TITLE}{}{END}", lines.concat())
    }

    /// The newest exchanges that fit, oldest first. A long one takes a quarter at most.
    fn fit_history(&self, mut room: usize) -> Vec<Message> {
        let most = room / 4;
        let mut messages = Vec::new();
        for exchange in self.history.iter().rev() {
            let question = format!("{}: {}", exchange.from, exchange.text);
            let pair = [cut::middle(&question, most / 2), cut::middle(&exchange.answer, most / 2)];
            let size = pair.iter().map(|text| text.len() + OVERHEAD).sum();
            let Some(left) = room.checked_sub(size) else { break };
            room = left;
            let [question, answer] = pair;
            messages.push(Message::assistant(answer));
            messages.push(Message::user(question));
        }
        messages.reverse();
        messages
    }
}

/// The newest rounds that fit. The last one is always there, shortened if it must be;
/// earlier ones are shortened before they are left out.
fn fit_rounds(rounds: &[Round], mut room: usize) -> Vec<Round> {
    let mut kept = Vec::new();
    for (age, round) in rounds.iter().rev().enumerate() {
        let fits = |round: &Round| size_of_round(round) <= room;
        let shorter = match age {
            _ if fits(round) => round.clone(),
            0 => shorten(round, room),
            _ => shorten(round, (SHORT_RESULT + OVERHEAD) * (round.calls.len() + 1)),
        };
        if age > 0 && !fits(&shorter) {
            break;
        }
        room = room.saturating_sub(size_of_round(&shorter));
        kept.push(shorter);
    }
    kept.reverse();
    kept
}

fn size_of_round(round: &Round) -> usize {
    let calls = round.calls.iter().map(size_of_call).sum::<usize>();
    let results = round.results.iter().map(|result| result.len() + OVERHEAD).sum::<usize>();
    OVERHEAD + calls + results
}

fn size_of_call(call: &ToolCall) -> usize {
    // The id is in the call and in the result.
    OVERHEAD + 2 * call.id.len() + call.name.len() + call.arguments.to_string().len()
}

/// A round in about `max` bytes: what is left of the longest texts in it is the same.
fn shorten(round: &Round, max: usize) -> Round {
    let mut round = round.clone();
    let mut most = max;
    while size_of_round(&round) > max && most > 0 {
        most /= 2;
        round.results.iter_mut().for_each(|result| *result = cut::middle(result, most));
        round.calls.iter_mut().for_each(|call| shorten_value(&mut call.arguments, most));
    }
    round
}

fn shorten_value(value: &mut Value, most: usize) {
    match value {
        Value::String(text) => *text = cut::middle(text, most),
        Value::Array(values) => values.iter_mut().for_each(|value| shorten_value(value, most)),
        Value::Object(values) => values.values_mut().for_each(|value| shorten_value(value, most)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fireclaw_protocol::chat::Role;
    use proptest::prelude::*;
    use serde_json::json;

    fn config() -> Config {
        Config {
            name: "worker".into(),
            nick: "worker".into(),
            persona: "You are helpful.".into(),
            model: "m".into(),
            context_tokens: 4096,
            tools: true,
            max_rounds: 5,
            command_seconds: 10,
            max_lines: 6,
            rules: Vec::new(),
            may_fetch: false,
        }
    }

    fn incoming(text: &str, recent: &[&str]) -> Incoming {
        let said = |text: &&str| Said { from: "bob".into(), text: (*text).to_owned() };
        Incoming {
            id: 1,
            place: "#agents".into(),
            private: false,
            from: "ann".into(),
            text: text.into(),
            from_agent: false,
            recent: recent.iter().map(said).collect(),
        }
    }

    fn exchange(text: &str, answer: &str) -> Exchange {
        Exchange { id: 0, at: 0, from: "bob".into(), text: text.into(), answer: answer.into() }
    }

    fn round(argument: &str, result: &str) -> Round {
        let arguments = json!({"command": argument});
        let call = ToolCall { id: "c1".into(), name: "run_command".into(), arguments };
        Round { calls: vec![call], results: vec![result.into()] }
    }

    #[test]
    fn everything_is_in_its_place() {
        let (config, history) = (config(), [exchange("one", "two")].into());
        let incoming = incoming("what now?", &["worker: one", "and more"]);
        let rounds = [round("uptime", "up")];
        let prompt = Prompt {
            config: &config,
            incoming: &incoming,
            tools: &[],
            memory: "- [a](memory/a.md): b",
            history: &history,
            rounds: &rounds,
            last_word: Some("Answer now."),
            now: 0,
        };
        let messages = prompt.messages(budget(&config, &[]));
        let system = &messages[0].content;
        assert!(system.starts_with("You are helpful.\n\nYou are worker, an AI agent"), "{system}");
        assert!(system.contains("channel #agents") && system.contains("1970-01-01 00:00 UTC"));
        assert!(system.ends_with("- [a](memory/a.md): b"));
        let rest = [
            Message::user("bob: one"),
            Message::assistant("two"),
            // What the history has is not said twice.
            Message::user(
                "(Said here just before, for your information:\nbob: and more\n)\n\nann: what now?",
            ),
            Message::calls(rounds[0].calls.clone()),
            Message::result("c1", "up"),
            Message::user("Answer now."),
        ];
        assert_eq!(messages[1..], rest);
    }

    #[test]
    fn the_oldest_go_first() {
        let config = config();
        let history: VecDeque<Exchange> =
            (0..500).map(|n| exchange(&format!("question {n}"), &"long ".repeat(20))).collect();
        let incoming = incoming("now?", &[]);
        let (tools, rounds) = (&[], &[]);
        let prompt = Prompt {
            config: &config,
            incoming: &incoming,
            tools,
            memory: "",
            history: &history,
            rounds,
            last_word: None,
            now: 0,
        };
        let messages = prompt.messages(budget(&config, &[]));
        assert!(messages.len() > 20 && messages.len() < 500);
        assert!(messages[messages.len() - 3].content.ends_with("question 499"));
        let huge = Incoming { text: "x".repeat(100_000), ..incoming.clone() };
        let messages = Prompt { incoming: &huge, ..prompt }.messages(budget(&config, &[]));
        let last = &messages[messages.len() - 1].content;
        assert!(last.starts_with("ann: xxx") && last.contains("bytes left out"));
        assert!(messages.len() > 3, "a huge question leaves room for some history");
    }

    #[test]
    fn tools_get_half_at_most() {
        let tool = Tool {
            name: "t".into(),
            description: "d".repeat(1000),
            parameters: json!({}),
            examples: Vec::new(),
        };
        let tools = vec![tool; 20];
        assert_eq!(tools_that_fit(&Config { context_tokens: 2048, ..config() }, &tools), 2);
        assert_eq!(tools_that_fit(&Config { context_tokens: 100_000, ..config() }, &tools), 20);
        assert_eq!(budget(&Config { context_tokens: 0, ..config() }, &tools), MIN_BUDGET);
        assert!(budget(&Config { context_tokens: u32::MAX, ..config() }, &[]) <= MAX_LINE);
    }

    fn size(messages: &[Message]) -> usize {
        let calls = |m: &Message| m.tool_calls.iter().map(size_of_call).sum::<usize>();
        messages.iter().map(|m| OVERHEAD + m.content.len() + calls(m)).sum()
    }

    proptest! {
        #[test]
        fn never_more_than_the_budget(
            persona in 0_usize..20_000,
            text in 0_usize..100_000,
            memory in 0_usize..20_000,
            recent in prop::collection::vec(0_usize..3000, 0..10),
            past in prop::collection::vec((0_usize..9000, 0_usize..9000), 0..30),
            rounds in prop::collection::vec((0_usize..9000, 0_usize..20_000), 0..6),
            budget in 4096_usize..60_000,
            last: bool,
        ) {
            let config = Config { persona: "p".repeat(persona), ..config() };
            let recent: Vec<String> = recent.into_iter().map(|n| "é".repeat(n)).collect();
            let recent: Vec<&str> = recent.iter().map(String::as_str).collect();
            let incoming = incoming(&"é".repeat(text / 2), &recent);
            let memory = "m".repeat(memory);
            let history: VecDeque<Exchange> =
                past.into_iter().map(|(q, a)| exchange(&"q".repeat(q), &"a".repeat(a))).collect();
            let rounds: Vec<Round> =
                rounds.into_iter().map(|(c, r)| round(&"c".repeat(c), &"r".repeat(r))).collect();
            let prompt = Prompt {
                config: &config,
                incoming: &incoming,
                tools: &[],
                memory: &memory,
                history: &history,
                rounds: &rounds,
                last_word: last.then_some("Answer now."),
                now: 0,
            };
            let messages = prompt.messages(budget);
            prop_assert!(size(&messages) <= budget, "{} > {budget}", size(&messages));
            // The system's words, then users and assistants in turn up to the question.
            let end = messages.iter().position(|m| !m.tool_calls.is_empty());
            let end = end.unwrap_or(messages.len() - usize::from(last && rounds.is_empty()));
            let end = if last && rounds.is_empty() { messages.len() - 1 } else { end };
            for (at, message) in messages[..end].iter().enumerate() {
                let expected = match at {
                    0 => Role::System,
                    at if at % 2 == 1 => Role::User,
                    _ => Role::Assistant,
                };
                prop_assert_eq!(message.role, expected);
            }
            prop_assert_eq!(messages[end - 1].role, Role::User);
            prop_assert!(messages[end - 1].content.contains("ann: "));
            prop_assert_eq!(messages.iter().any(|m| m.role == Role::Tool), !rounds.is_empty());
        }
    }
}
