//! Why a model did not answer.

use std::time::Duration;

use fireclaw_host::PathError;

/// The most characters of somebody else's words in an error.
const MAX_WORDS: usize = 300;

/// An error of this crate. Its text can be shown to people on IRC.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server does not have the model.
    #[error("model {model} is not there")]
    ModelMissing {
        /// The name asked for, escaped.
        model: String,
        /// The names that there are, escaped.
        known: Vec<String>,
    },
    /// Nothing answers at the server's address.
    #[error("the model server does not answer")]
    Down {
        /// The server's address.
        url: String,
        /// What the system said.
        reason: String,
    },
    /// The agent has too many requests in the queue already.
    #[error("the model is busy: {agent} already has {waiting} requests waiting")]
    Busy {
        /// Who asked.
        agent: String,
        /// How many requests wait.
        waiting: usize,
    },
    /// The answer took too long.
    #[error("the model did not answer within {seconds} s")]
    TimedOut {
        /// The limit.
        seconds: u64,
    },
    /// The asker gave up, or the broker is gone.
    #[error("the request to the model was cancelled")]
    Cancelled,
    /// The request is larger than may be asked.
    #[error("the request to the model is too large: {bytes} bytes (limit {limit})")]
    TooLarge {
        /// The size of messages and tools together.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The server refused.
    #[error("the model server refused ({status}): {message}")]
    Refused {
        /// The HTTP status, or 200 if it refused amid the answer.
        status: u16,
        /// The server's own words, escaped and cut.
        message: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// The server's answer cannot be understood.
    #[error("the model server sent an unreadable answer: {problem}")]
    BadReply {
        /// The server's address.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The connection broke amid the answer.
    #[error("the model server closed the connection mid-answer")]
    BrokeOff {
        /// The server's address.
        url: String,
        /// What the system said.
        reason: String,
    },
    /// The model would do nothing but what makes no sense.
    #[error("the model gave no usable answer: {problem}")]
    Senseless {
        /// What it did.
        problem: String,
    },
    /// The URL cannot be a model server's.
    #[error("{url:?} cannot be the URL of a model server: {problem}")]
    BadUrl {
        /// What was given.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The HTTP client could not be made.
    #[error("cannot prepare the HTTP client: {reason}")]
    Client {
        /// What the library said.
        reason: String,
    },
    /// A JSON schema is more than a server's grammar code is trusted with.
    #[error("the JSON schema of {what} cannot be used: {problem}")]
    BadSchema {
        /// Whose it is, escaped.
        what: String,
        /// Which bound it breaks.
        problem: String,
    },
    /// A file or directory of ours could not be used.
    #[error(transparent)]
    File(#[from] PathError),
}

/// The result of asking a model.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Trying again later may help, without a change of the request.
    pub fn is_transient(&self) -> bool {
        // 502 and 503: a proxy without its server, a server that still loads the model.
        matches!(self, Self::Down { .. } | Self::Refused { status: 429 | 502 | 503, .. })
    }

    /// A refusal without a wish when to be asked again.
    pub(crate) fn refused(status: u16, message: String) -> Self {
        Self::Refused { status, message, retry_after: None }
    }

    /// When the server wants to be asked again.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// What whoever runs the server should see beside the error: the address and what the
    /// system said. Not for people on IRC.
    pub fn detail(&self) -> Option<String> {
        match self {
            Self::Down { url, reason } | Self::BrokeOff { url, reason } => {
                Some(format!("{url}: {reason}"))
            }
            Self::BadReply { url, problem } => Some(format!("{url}: {problem}")),
            _ => None,
        }
    }
}

/// Makes somebody else's words fit for one line of a log or a chat: control characters
/// are escaped, and what is too long is cut.
pub fn escape(words: &str) -> String {
    let words = words.trim();
    let mut out = String::new();
    for (n, c) in words.chars().enumerate() {
        if n == MAX_WORDS {
            out.push('…');
            break;
        }
        match c {
            '\n' => out.push(' '),
            c if c.is_control() || fireclaw_host::is_hidden(c) || is_mark(c) => {
                out.extend(c.escape_unicode())
            }
            c => out.push(c),
        }
    }
    out
}

/// Marks that are drawn over the character before, of which any number may follow.
fn is_mark(c: char) -> bool {
    matches!(c, '\u{300}'..='\u{36f}' | '\u{483}'..='\u{489}' | '\u{1ab0}'..='\u{1aff}'
        | '\u{1dc0}'..='\u{1dff}' | '\u{20d0}'..='\u{20ff}' | '\u{fe00}'..='\u{fe0f}'
        | '\u{fe20}'..='\u{fe2f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_others_are_escaped_and_cut() {
        assert_eq!(escape("a\r\nb\x1b[31m\u{202e}"), "a\\u{d} b\\u{1b}[31m\\u{202e}");
        assert_eq!(escape("a\u{ad}b\u{61c}c\u{e0041}"), "a\\u{ad}b\\u{61c}c\\u{e0041}");
        assert_eq!(escape(&"x".repeat(1000)).chars().count(), MAX_WORDS + 1);
    }

    #[test]
    fn work_per_byte_does_not_grow_with_the_text() {
        fireclaw_testkit::cost::assert_linear("escape", &|text| drop(escape(text)));
    }
}
