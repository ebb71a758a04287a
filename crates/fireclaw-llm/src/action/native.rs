//! A step by the server's own tool calling.

use crate::calls::{Content, may_be_call, read};
use crate::{ChatModel, ChatReply, ChatRequest, Error, OnText, Result, ToolCall, Usage};

use super::{Mode, Step, Stepped, spoken, tools};

/// Asks for words, where no tools are offered.
pub async fn say(
    model: &dyn ChatModel,
    request: &ChatRequest,
    on_text: OnText<'_>,
) -> Result<Stepped> {
    let reply = model.chat(request, on_text).await?;
    let said = spoken(&reply.content);
    if said.is_empty() {
        return Err(Error::Senseless { problem: "it said nothing".into() });
    }
    Ok(stepped(Step::Say(said.to_owned()), &reply))
}

/// Asks for words or calls. There is no step if the model's calls make no sense.
pub async fn step(
    model: &dyn ChatModel,
    request: &ChatRequest,
    on_text: OnText<'_>,
) -> Result<(Option<Stepped>, Usage)> {
    let mut heard = Heard::Undecided;
    let reply = model
        .chat(request, &mut |text| {
            if let Some(words) = heard.words(text) {
                on_text(&words);
            }
        })
        .await?;
    let step = judge(&reply, request);
    if let (Heard::Withheld, Some(Step::Say(said))) = (&heard, &step) {
        on_text(said);
    }
    Ok((step.map(|step| stepped(step, &reply)), reply.usage))
}

fn stepped(step: Step, reply: &ChatReply) -> Stepped {
    Stepped { step, mode: Mode::Native, usage: reply.usage, truncated: reply.truncated }
}

pub(super) fn judge(reply: &ChatReply, request: &ChatRequest) -> Option<Step> {
    let said = spoken(&reply.content);
    let calls = match reply.tool_calls.as_slice() {
        [] => match read(said) {
            Content::Text => {
                return (!said.is_empty()).then(|| Step::Say(said.to_owned()));
            }
            Content::Calls(calls) => calls,
            Content::Broken => return None,
        },
        calls => calls.to_vec(),
    };
    let mut fitting: Vec<ToolCall> = Vec::new();
    for call in calls {
        let call = tools::fit(&request.tools, call)?;
        if !fitting.iter().any(|other| other.is_same(&call)) {
            fitting.push(call);
        }
    }
    Some(Step::Call(fitting))
}

/// Withholds what may become a call.
enum Heard {
    /// Nothing but white space has come.
    Undecided,
    Words,
    Withheld,
}

impl Heard {
    fn words(&mut self, text: &str) -> Option<String> {
        if matches!(self, Self::Undecided) && !text.trim().is_empty() {
            *self = if may_be_call(text) { Self::Withheld } else { Self::Words };
        }
        matches!(self, Self::Words).then(|| text.to_owned())
    }
}
