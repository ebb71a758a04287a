//! What the log says of a message: who asked what, what was called, what came of it.
//!
//! `!logs` shows the log in the control channel. So of what is said in private it has only
//! how long it is.

use fireclaw_protocol::agent::Incoming;
use fireclaw_protocol::chat::ToolCall;

use crate::cut;
use crate::told::Told;

/// The most of a question, a call, a result or an answer that is in the log, in bytes: a
/// line of the log is read on IRC.
const MAX_TEXT: usize = 300;

/// Writes about one message. The host puts the date before each line.
pub struct Journal<'a>(pub &'a Incoming);

impl Journal<'_> {
    pub fn asked(&self) {
        crate::log!("{}", self.question());
    }

    pub fn called(&self, call: &ToolCall, told: &Told) {
        crate::log!("{}", self.call(call));
        crate::log!("{}", self.result(call, told));
    }

    pub fn answered(&self, answer: &str) {
        crate::log!("message {} is answered: {}", self.0.id, self.words(answer));
    }

    fn question(&self) -> String {
        let Incoming { id, conversation, private, from, text, .. } = self.0;
        let conversation = match private {
            true => "in private".to_owned(),
            false => format!("in {}", cut::escaped(conversation, 64)),
        };
        format!("message {id} from {} {conversation}: {}", cut::escaped(from, 64), self.words(text))
    }

    fn call(&self, call: &ToolCall) -> String {
        let name = cut::escaped(&call.name, 64);
        format!("message {} calls {name}: {}", self.0.id, self.words(&call.arguments.to_string()))
    }

    fn result(&self, call: &ToolCall, told: &Told) -> String {
        let name = cut::escaped(&call.name, 64);
        format!("message {}, {name} gave: {}", self.0.id, self.words(told.text()))
    }

    fn words(&self, text: &str) -> String {
        match self.0.private {
            true => format!("({} bytes)", text.len()),
            false => cut::escaped(&cut::middle(text, MAX_TEXT), MAX_TEXT),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn incoming(private: bool, text: &str) -> Incoming {
        Incoming {
            id: 7,
            conversation: if private { "ann" } else { "#agents" }.into(),
            private,
            from: "ann".into(),
            text: text.into(),
            from_agent: false,
            recent: Vec::new(),
        }
    }

    fn call(command: &str) -> ToolCall {
        let arguments = json!({"command": command});
        ToolCall { id: "1".into(), name: "run_command".into(), arguments }
    }

    #[test]
    fn the_log_has_question_call_and_result() {
        let incoming = incoming(false, "what's\nyour uptime?");
        let journal = Journal(&incoming);
        assert_eq!(journal.question(), "message 7 from ann in #agents: what's your uptime?");
        assert_eq!(
            journal.call(&call("uptime -p")),
            r#"message 7 calls run_command: {"command":"uptime -p"}"#
        );
        assert_eq!(
            journal.result(&call("uptime -p"), &Told::data("up\u{1b}[2J 3 minutes")),
            "message 7, run_command gave: up\\u{1b}[2J 3 minutes"
        );
    }

    #[test]
    fn what_is_said_in_private_is_not_in_the_log() {
        let incoming = incoming(true, "the door code is 4711");
        let journal = Journal(&incoming);
        let lines = [
            journal.question(),
            journal.call(&call("echo 4711")),
            journal.result(&call("echo 4711"), &Told::data("4711")),
            journal.words("It is 4711."),
        ];
        assert!(lines.iter().all(|line| !line.contains("4711")), "{lines:?}");
        assert_eq!(lines[0], "message 7 from ann in private: (21 bytes)");
    }

    proptest! {
        #[test]
        fn every_line_is_one_short_line(text in "(\\PC|[\\x00-\\x1f\\x7f\u{202e}\u{2028}]){0,900}") {
            let incoming = incoming(false, &text);
            let journal = Journal(&incoming);
            let told = Told::data(text.clone());
            for line in [journal.question(), journal.call(&call(&text)), journal.result(&call(&text), &told)] {
                prop_assert!(line.len() <= MAX_TEXT + 200, "{}", line.len());
                let is_hidden = |c: char| c.is_control() || "\u{202e}\u{2028}".contains(c);
                prop_assert!(!line.contains(is_hidden));
            }
        }
    }
}
