//! What may be sent to a server.

use std::fmt;

use super::{LINE_LEN, MAX_CLIENT_TAGS_LEN, MAX_LINE_LEN, MAX_PARAMS, tags};

/// One valid line, without CR and LF. There is no way to make one that a server
/// would take for two, or that is too long.
#[derive(Clone, PartialEq, Eq)]
pub struct Line(String);

/// Why words do not form a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidLine {
    /// The command is neither letters nor three digits.
    #[error("the command is not valid")]
    Command,
    /// A tag's key has other characters than the specification allows.
    #[error("the key of a tag is not valid")]
    TagKey,
    /// CR, LF or NUL.
    #[error("it has a CR, LF or NUL")]
    Control,
    /// A parameter before the last one is empty, has a space or starts with a
    /// colon.
    #[error("a parameter before the last one is not one word")]
    Parameter,
    /// More than [`MAX_PARAMS`] parameters.
    #[error("it has too many parameters")]
    TooManyParameters,
    /// It or its tags are too long.
    #[error("it is too long")]
    TooLong,
}

impl Line {
    /// A line of at most [`LINE_LEN`] bytes, with the CR and LF that are sent
    /// after it.
    ///
    /// # Errors
    /// [`InvalidLine`] for what is not one line of the protocol.
    pub fn new(command: &str, params: &[&str]) -> Result<Self, InvalidLine> {
        Self::compose(&[], command, params, LINE_LEN)
    }

    /// A line with tags, and of at most `limit` bytes without them, for a server
    /// that announces `LINELEN`; [`MAX_LINE_LEN`] is the most in any case.
    ///
    /// # Errors
    /// [`InvalidLine`] for what is not one line of the protocol.
    pub fn compose(
        tags: &[(&str, &str)],
        command: &str,
        params: &[&str],
        limit: usize,
    ) -> Result<Self, InvalidLine> {
        let mut line = String::new();
        for (key, value) in tags {
            if !tags::is_key(key) {
                return Err(InvalidLine::TagKey);
            }
            line.push(if line.is_empty() { '@' } else { ';' });
            line.push_str(key);
            if !value.is_empty() {
                line.push('=');
                tags::escape(value, &mut line);
            }
        }
        if !tags.is_empty() {
            line.push(' ');
        }
        let tags_len = line.len();
        let letters = !command.is_empty() && command.bytes().all(|b| b.is_ascii_alphabetic());
        let digits = command.len() == 3 && command.bytes().all(|b| b.is_ascii_digit());
        if !letters && !digits {
            return Err(InvalidLine::Command);
        }
        line.push_str(command);
        if params.len() > MAX_PARAMS {
            return Err(InvalidLine::TooManyParameters);
        }
        if let Some((last, middle)) = params.split_last() {
            for param in middle {
                if !is_word(param) {
                    return Err(InvalidLine::Parameter);
                }
                line.push(' ');
                line.push_str(param);
            }
            line.push_str(if is_word(last) { " " } else { " :" });
            line.push_str(last);
        }
        if line.contains(['\r', '\n', '\0']) {
            return Err(InvalidLine::Control);
        }
        let body_len = line.len() - tags_len + "\r\n".len();
        if tags_len > MAX_CLIENT_TAGS_LEN || body_len > limit.min(MAX_LINE_LEN) {
            return Err(InvalidLine::TooLong);
        }
        Ok(Self(line))
    }

    /// The line without CR and LF.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The command.
    pub fn command(&self) -> &str {
        let body = match self.0.strip_prefix('@') {
            Some(tagged) => tagged.split_once(' ').map_or("", |(_, body)| body),
            None => &self.0,
        };
        body.split(' ').next().unwrap_or_default()
    }
}

impl fmt::Debug for Line {
    /// Hides what may carry a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.command() {
            secret @ ("PASS" | "AUTHENTICATE") => write!(f, "Line({secret} …)"),
            _ => write!(f, "Line({:?})", self.0),
        }
    }
}

/// Whether a parameter can stand without a colon before it.
fn is_word(param: &str) -> bool {
    !param.is_empty() && !param.starts_with(':') && !param.contains(' ')
}

#[cfg(test)]
mod tests {
    use super::super::Message;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_as_they_are_sent() {
        let line = |command, params: &[&str]| Line::new(command, params).unwrap().0;
        assert_eq!(line("JOIN", &["#a"]), "JOIN #a");
        assert_eq!(line("PRIVMSG", &["#a", "hi there"]), "PRIVMSG #a :hi there");
        assert_eq!(line("PRIVMSG", &["#a", ""]), "PRIVMSG #a :");
        assert_eq!(line("QUIT", &[":)"]), "QUIT ::)");
        let tagged = Line::compose(&[("+typing", "active"), ("x", "")], "TAGMSG", &["a"], LINE_LEN);
        assert_eq!(tagged.clone().unwrap().0, "@+typing=active;x TAGMSG a");
        assert_eq!(tagged.unwrap().command(), "TAGMSG");
    }

    #[test]
    fn refused() {
        let new = |command, params: &[&str]| Line::new(command, params).unwrap_err();
        assert_eq!(new("PRIVMSG", &["a", "b\r\nQUIT"]), InvalidLine::Control);
        assert_eq!(new("PRIVMSG", &["a b", "c"]), InvalidLine::Parameter);
        assert_eq!(new("PRIVMSG", &[":a", "c"]), InvalidLine::Parameter);
        assert_eq!(new("PRIVMSG", &["", "c"]), InvalidLine::Parameter);
        assert_eq!(new("QUIT\r\nX", &[]), InvalidLine::Command);
        assert_eq!(new("A", &["x"; 16]), InvalidLine::TooManyParameters);
        assert_eq!(new("QUIT", &["x".repeat(506).as_str()]), InvalidLine::TooLong);
        assert!(Line::new("QUIT", &["x".repeat(505).as_str()]).is_ok());
        let tag = Line::compose(&[("a b", "")], "A", &[], LINE_LEN);
        assert_eq!(tag, Err(InvalidLine::TagKey));
    }

    #[test]
    fn debug_hides_passwords() {
        for (command, param) in [("PASS", "hunter2"), ("AUTHENTICATE", "aHVudGVyMg==")] {
            let shown = format!("{:?}", Line::new(command, &[param]).unwrap());
            assert!(!shown.contains(param), "{shown}");
        }
    }

    proptest! {
        #[test]
        fn a_line_is_one_line_within_bounds_and_reads_back(
            tags in prop::collection::vec(("\\+?[a-z/.-]{1,5}", any::<String>()), 0..3),
            command in "[A-Za-z]{1,8}|[0-9]{3}|.{0,3}",
            params in prop::collection::vec(prop_oneof!["[ -~]{0,12}", any::<String>(), "#[a-z]{1,8}"], 0..17),
        ) {
            let tags: Vec<_> = tags.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            let params: Vec<_> = params.iter().map(String::as_str).collect();
            if let Ok(line) = Line::compose(&tags, &command, &params, LINE_LEN) {
                prop_assert!(!line.as_str().contains(['\r', '\n', '\0']));
                prop_assert!(line.as_str().len() <= MAX_CLIENT_TAGS_LEN + LINE_LEN - 2);
                let read = Message::parse(line.as_str().as_bytes()).unwrap();
                prop_assert_eq!(&read.command, &command.to_ascii_uppercase());
                prop_assert_eq!(&read.params, &params);
                prop_assert!(read.source.is_none());
                let read_tags: Vec<_> = read.tags.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
                prop_assert_eq!(read_tags, tags);
            }
        }
    }
}
