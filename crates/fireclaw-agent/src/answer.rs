//! One message, from what was asked to what is said.

use std::io;

use fireclaw_protocol::agent::{Action, Incoming, MAX_LINE, Step};
use fireclaw_protocol::chat::{Message, Tool, ToolCall};

use crate::context::{AgentContext, Current};
use crate::history::{Exchange, Made};
use crate::host::Reply;
use crate::journal::Journal;
use crate::prompt::{self, Prompt};
use crate::queue::conversation_of;
use crate::repeats::{Repeat, Repeats};
use crate::rounds::Round;
use crate::shape::{Shape, shape};
use crate::told::Told;
use crate::{clock, cut, files, tools};

/// The most rounds of tools for one message, whatever the configuration says.
const MAX_ROUNDS: u32 = 64;

/// How many calls of one step are run.
const MAX_CALLS: usize = 8;

/// What is said when the model wrote nothing.
const NO_ANSWER: &str = "(The model gave an empty answer. Ask again, or in other words.)";

/// Answers a message: says it, and remembers what was said.
pub async fn answer(shared: &AgentContext, incoming: &Incoming) {
    let conversation = conversation_of(incoming);
    let (is_answered, note) = {
        let mut history = shared.history.borrow_mut();
        let (exchanges, note) = history.of(&conversation);
        (exchanges.iter().any(|e| e.id == incoming.id), note)
    };
    note.into_iter().for_each(|note| shared.note(note));
    // The host sends again what was not done when either of us ended; the answer may have
    // been said by then.
    if is_answered {
        return;
    }
    shared.look_for_skills();
    let journal = Journal(incoming);
    journal.asked();
    let mut rounds = Vec::new();
    let Some(answer) = find_answer(shared, incoming, &mut rounds).await else { return };
    let answer = match without_nick(shared, incoming, &answer) {
        "" => NO_ANSWER,
        answer => answer,
    };
    journal.answered(answer);
    let text = said(shared, incoming, answer);
    shared.host.send(&Action::Say { message: incoming.id, text }).await;
    let exchange = Exchange {
        id: incoming.id,
        at: clock::seconds(),
        from: cut::line(&incoming.from, 64),
        text: incoming.text.clone(),
        calls: Made::of(&rounds),
        answer: answer.to_owned(),
    };
    let kept = shared.history.borrow_mut().append(&conversation, exchange);
    tell_of_forgetting(shared, incoming, kept).await;
}

/// An answer without the nick that models copy from the lines before it: their own, or in
/// private that of the only one who may have asked.
fn without_nick<'a>(shared: &AgentContext, incoming: &Incoming, answer: &'a str) -> &'a str {
    let answer = answer.trim();
    let Some(current) = shared.current() else { return answer };
    let asker = incoming.private.then_some(incoming.from.as_str());
    let nicks = [Some(current.config.nick.as_str()), Some(current.config.name.as_str()), asker];
    let rest = nicks.into_iter().flatten().filter(|nick| !nick.is_empty()).find_map(|nick| {
        let (start, rest) = answer.split_at_checked(nick.len())?;
        start.eq_ignore_ascii_case(nick).then(|| rest.strip_prefix(':')).flatten()
    });
    rest.map_or(answer, str::trim_start)
}

/// What the model answers in the end. Nothing if it cannot be asked: then the host has
/// told who asked.
async fn find_answer(
    shared: &AgentContext,
    incoming: &Incoming,
    rounds: &mut Vec<Round>,
) -> Option<String> {
    let mut repeats = Repeats::default();
    let mut used = 0;
    loop {
        // Anew in each round: it may have changed meanwhile.
        let current = shared.current()?;
        let most = current.config.max_rounds.min(MAX_ROUNDS);
        let offered = match current.config.tools && used < most {
            true => offered(shared, &current),
            false => Vec::new(),
        };
        if offered.is_empty() {
            return last_word(shared, &current, incoming, rounds).await;
        }
        let calls = match think(shared, &current, incoming, rounds, &offered, None).await {
            Ok(Step::Say(text)) if text.trim().is_empty() => Vec::new(),
            Ok(Step::Say(text)) => return Some(text),
            Ok(Step::Call(calls)) => calls,
            Err(problem) => {
                crate::log!("message {}: the model failed: {problem}", incoming.id);
                return None;
            }
        };
        used += 1;
        let goes_on = match calls.is_empty() {
            true => false,
            false => {
                let (round, goes_on) =
                    run_calls(shared, &current, incoming, &offered, calls, &mut repeats).await;
                rounds.push(round);
                goes_on
            }
        };
        if !goes_on {
            return last_word(shared, &current, incoming, rounds).await;
        }
    }
}

/// The tools that the model may call now.
fn offered(shared: &AgentContext, current: &Current) -> Vec<Tool> {
    let mut offered = tools::offered(&current.config, shared.skills.borrow().all());
    let fit = prompt::tools_that_fit(&current.config, &offered);
    for left_out in offered.drain(fit..) {
        let tokens = current.config.context_tokens;
        shared.note(format!(
            "the tool {} is not offered: a context of {tokens} tokens has no room for it",
            left_out.name
        ));
    }
    offered
}

/// Asks the model for an answer without tools.
async fn last_word(
    shared: &AgentContext,
    current: &Current,
    incoming: &Incoming,
    rounds: &[Round],
) -> Option<String> {
    const ASK: &str =
        "Answer now with what you know, without tools. If it is not enough, say what is missing.";
    let ask = (!rounds.is_empty()).then_some(ASK);
    match think(shared, current, incoming, rounds, &[], ask).await {
        Ok(Step::Say(text)) if !text.trim().is_empty() => Some(text),
        Err(problem) if rounds.is_empty() => {
            crate::log!("message {}: the model failed: {problem}", incoming.id);
            None
        }
        // The host said why, perhaps; but not that there was work done before.
        _ if !rounds.is_empty() => Some(format!(
            "I did not come to an answer: I used tools {} times and could not make sense of what they told me.",
            rounds.iter().map(|round| round.calls.len()).sum::<usize>()
        )),
        _ => Some(String::new()),
    }
}

async fn think(
    shared: &AgentContext,
    current: &Current,
    incoming: &Incoming,
    rounds: &[Round],
    tools: &[Tool],
    last_word: Option<&str>,
) -> Result<Step, String> {
    let messages = messages(shared, current, incoming, rounds, tools, last_word);
    let think = |ask| Action::Think { ask, message: incoming.id, messages, tools: tools.to_vec() };
    match shared.host.ask(think).await {
        Reply::Thought(step) => Ok(step),
        Reply::Failed(reason) => Err(reason),
        other => Err(format!("the host answered with something else: {other:?}")),
    }
}

/// The prompt, made smaller until it fits a line: some characters take more room there.
fn messages(
    shared: &AgentContext,
    current: &Current,
    incoming: &Incoming,
    rounds: &[Round],
    tools: &[Tool],
    last_word: Option<&str>,
) -> Vec<Message> {
    /// What a line has besides messages and tools, in bytes.
    const FRAME: usize = 200;
    let conversation = conversation_of(incoming);
    let memory = shared.memory.indexes(&conversation);
    let mut history = shared.history.borrow_mut();
    let prompt = Prompt {
        config: &current.config,
        incoming,
        tools,
        memory: &memory,
        history: history.of(&conversation).0,
        rounds,
        last_word,
        now: clock::seconds(),
    };
    let size = |value: Result<String, _>| value.map_or(0, |json: String| json.len());
    let room = MAX_LINE.saturating_sub(size(serde_json::to_string(tools)) + FRAME);
    let mut budget = prompt::budget(&current.config, tools);
    loop {
        let messages = prompt.messages(budget);
        if size(serde_json::to_string(&messages)) <= room || budget < FRAME {
            return messages;
        }
        budget = budget / 4 * 3;
    }
}

/// Runs calls one after the other. Says whether it makes sense to go on.
async fn run_calls(
    shared: &AgentContext,
    current: &Current,
    incoming: &Incoming,
    offered: &[Tool],
    mut calls: Vec<ToolCall>,
    repeats: &mut Repeats,
) -> (Round, bool) {
    let too_many = calls.len().saturating_sub(MAX_CALLS);
    calls.truncate(MAX_CALLS);
    let mut results = Vec::new();
    let mut goes_on = true;
    for call in &calls {
        results.push(match repeats.check(call) {
            Repeat::Run => {
                let told = tools::call(shared, current, incoming, offered, call).await;
                repeats.ran(call, &told);
                Journal(incoming).called(call, &told);
                told
            }
            Repeat::Tell(told) => told.within(
                "You made this call before, so it was not run again. Its result was:\n",
                "\nAnswer now, or do something else.",
            ),
            Repeat::End => {
                goes_on = false;
                Told::note("You made this call twice before, so it was not run again.")
            }
        });
    }
    if let (Some(last), 1..) = (results.last_mut(), too_many) {
        let after = format!("\n({too_many} more calls were too many at once and not run.)");
        *last = last.within("", &after);
    }
    (Round { calls, results }, goes_on)
}

/// What is said of an answer; a long one goes to a file.
fn said(shared: &AgentContext, incoming: &Incoming, answer: &str) -> String {
    let max_lines = shared.current().map_or(1, |current| current.config.max_lines);
    match shape(answer, max_lines) {
        Shape::Whole(text) => text,
        Shape::Start(start) => {
            let name = format!("answers/{}-{}.md", clock::date(clock::seconds()), incoming.id);
            let path = shared.paths.workspace.join(name);
            let end = match files::replace(&path, format!("{answer}\n").as_bytes()) {
                Ok(()) => format!("... all of it: {}", path.display()),
                Err(e) => format!("... the rest is lost, it could not be written to a file: {e}"),
            };
            match max_lines {
                0 | 1 => format!("{start} {end}"),
                _ => format!("{start}\n{end}"),
            }
        }
    }
}

/// Says once that nothing can be remembered, until something can be again.
async fn tell_of_forgetting(shared: &AgentContext, incoming: &Incoming, kept: io::Result<()>) {
    let Err(problem) = kept else { return shared.told_forgetful.set(false) };
    crate::log!("message {} is not in the history: {problem}", incoming.id);
    if !shared.told_forgetful.replace(true) {
        let text = format!(
            "(I could not write this down: {problem}. I will forget it when I am started anew.)"
        );
        shared.host.send(&Action::Say { message: incoming.id, text }).await;
    }
}
