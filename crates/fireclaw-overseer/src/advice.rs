//! What people in the control channel can do about what they are told, in the commands that
//! they have there.

use fireclaw_daemon::{Condition, Error, Event, Question};

/// An event with what can be done about it.
pub fn event(event: &Event) -> String {
    let text = event.text();
    match event {
        Event::Lost { retry_in: None, .. } => {
            format!("{text}. !resume tries again, !destroy ends it")
        }
        Event::FailedToRestore { .. } => {
            format!("{text}. Fix that, then !resume it, or !destroy it")
        }
        Event::NoModel { is_missing: true, .. } => format!("{text}; {MODELS}"),
        Event::PolicyDeferred { .. } => format!("{text}; !destroy and !invoke"),
        Event::Spared { sandboxes } => format!("{text}. {}", spared(sandboxes)),
        _ => text,
    }
}

/// An error with what can be done about it.
pub fn error(error: &Error) -> String {
    match error {
        // What is open now was maybe not what was read.
        Error::Unconfirmed { question: asked, problem } => {
            format!("#{}: {problem}\n{}", asked.id, question(asked).unwrap_or_default())
        }
        Error::NotNow { condition: Condition::Paused, .. } => format!("{error}; !resume it"),
        Error::NotNow { problem: Some(_), .. } => {
            format!("{error}; fix that, then !resume it, or !destroy it")
        }
        Error::NotNow { condition: Condition::Failed, .. } => {
            format!("{error}; !resume it to try again")
        }
        Error::NotNow { .. } => format!("{error}; wait until it is ready"),
        Error::TooManyQuestions => format!("{error}; !questions lists them"),
        _ if error.is_missing_model() => format!("{error}; {MODELS}"),
        _ => error.to_string(),
    }
}

/// A question, and how it is answered. None if nobody would read that much.
pub fn question(question: &Question) -> Option<String> {
    let (lines, id, digest) = (question.lines()?, question.id, question.digest());
    Some(format!("{}\n#{id} (!ok {id} {digest}, or !no {id} reason)", lines.join("\n")))
}

const MODELS: &str = "!models lists the available models";

/// What to do about VMs that the state does not know.
fn spared(sandboxes: &[String]) -> String {
    let first = sandboxes.first().map_or("", String::as_str);
    format!(
        "To recover them, stop the overseer and restore state.db from a backup; to kill one: \
         kill $(pgrep -f {first})"
    )
}
