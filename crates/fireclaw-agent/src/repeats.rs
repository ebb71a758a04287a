//! Models that make the same call for ever.

use fireclaw_protocol::chat::ToolCall;

use crate::told::Told;

/// What is to be done with a call.
#[derive(Debug, PartialEq, Eq)]
pub enum Repeat {
    /// It is new.
    Run,
    /// It was made once before, with this result.
    Tell(Told),
    /// It was made twice before: there is no sense in going on.
    End,
}

/// The calls that were made for one message.
#[derive(Debug, Default)]
pub struct Repeats(Vec<Made>);

#[derive(Debug)]
struct Made {
    name: String,
    /// As JSON, where the order of an object's members does not matter.
    arguments: String,
    result: Told,
    again: u32,
}

impl Repeats {
    /// Counts a call.
    pub fn check(&mut self, call: &ToolCall) -> Repeat {
        let arguments = call.arguments.to_string();
        let made = self.0.iter_mut().find(|m| m.name == call.name && m.arguments == arguments);
        let Some(made) = made else { return Repeat::Run };
        made.again += 1;
        match made.again {
            1 => Repeat::Tell(made.result.clone()),
            _ => Repeat::End,
        }
    }

    /// Keeps the result of a call that was run.
    pub fn ran(&mut self, call: &ToolCall, result: &Told) {
        let (name, arguments) = (call.name.clone(), call.arguments.to_string());
        self.0.push(Made { name, arguments, result: result.clone(), again: 0 });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn call(arguments: Value) -> ToolCall {
        ToolCall { id: "1".into(), name: "t".into(), arguments }
    }

    #[test]
    fn the_third_time_is_the_end() {
        let mut repeats = Repeats::default();
        let first = call(json!({"a": 1, "b": 2}));
        assert_eq!(repeats.check(&first), Repeat::Run);
        repeats.ran(&first, &Told::data("r"));
        assert_eq!(repeats.check(&call(json!({"a": 1}))), Repeat::Run);
        assert_eq!(repeats.check(&call(json!({"b": 2, "a": 1}))), Repeat::Tell(Told::data("r")));
        assert_eq!(repeats.check(&first), Repeat::End);
    }
}
