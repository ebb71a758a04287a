//! What a server sends.

use super::source::Source;
use super::{MAX_LINE_LEN, MAX_PARAMS, MAX_TAGS_LEN, tags};

/// One message from a server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Message {
    /// Tags in their order, values without escapes; a key may come twice.
    pub tags: Vec<(String, String)>,
    /// Who it comes from, if the server says so.
    pub source: Option<Source>,
    /// The command in upper case, or three digits.
    pub command: String,
    /// The parameters, at most [`MAX_PARAMS`].
    pub params: Vec<String>,
}

/// Why bytes are not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// Tags or the rest are longer than the protocol allows.
    #[error("the line is too long")]
    TooLong,
    /// CR, LF or NUL stands inside the line.
    #[error("the line has a CR, LF or NUL inside")]
    Control,
    /// The command is missing or neither letters nor three digits.
    #[error("the line has no valid command")]
    Command,
}

impl Message {
    /// Reads one line, with or without its CR and LF. Bytes that are not UTF-8
    /// become U+FFFD, as old clients still send Latin-1.
    ///
    /// # Errors
    /// [`ParseError`] if it is not a message; such a line is to be skipped.
    pub fn parse(line: &[u8]) -> Result<Self, ParseError> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.len() > MAX_TAGS_LEN + MAX_LINE_LEN - 2 {
            return Err(ParseError::TooLong);
        }
        if line.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)) {
            return Err(ParseError::Control);
        }
        let (tags, body) = match line.strip_prefix(b"@") {
            None => (&[][..], line),
            Some(tagged) => {
                let end = tagged.iter().position(|b| *b == b' ').ok_or(ParseError::Command)?;
                (&tagged[..end], &tagged[end..])
            }
        };
        if tags.len() + 2 > MAX_TAGS_LEN || body.len() > MAX_LINE_LEN - 2 {
            return Err(ParseError::TooLong);
        }
        let tags = read_tags(&String::from_utf8_lossy(tags));
        let body = String::from_utf8_lossy(body);
        let mut rest = body.trim_start_matches(' ');
        let mut source = None;
        if let Some(named) = rest.strip_prefix(':') {
            let (name, after) = named.split_once(' ').ok_or(ParseError::Command)?;
            source = Some(Source::parse(name));
            rest = after.trim_start_matches(' ');
        }
        let (command, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        let letters = !command.is_empty() && command.bytes().all(|b| b.is_ascii_alphabetic());
        let digits = command.len() == 3 && command.bytes().all(|b| b.is_ascii_digit());
        if !letters && !digits {
            return Err(ParseError::Command);
        }
        Ok(Self { tags, source, command: command.to_ascii_uppercase(), params: read_params(rest) })
    }

    /// The value of a tag, if it is there; the last one counts.
    pub fn tag(&self, key: &str) -> Option<&str> {
        self.tags.iter().rev().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    /// A parameter, empty if there are not so many.
    pub fn param(&self, index: usize) -> &str {
        self.params.get(index).map_or("", String::as_str)
    }

    /// The last parameter, which carries text meant for people.
    pub fn trailing(&self) -> &str {
        self.params.last().map_or("", String::as_str)
    }

    /// The nick of the source, empty if there is none.
    pub fn nick(&self) -> &str {
        self.source.as_ref().map_or("", |source| source.nick.as_str())
    }
}

/// Tags with a key that the specification does not allow are left out.
fn read_tags(section: &str) -> Vec<(String, String)> {
    section
        .split(';')
        .map(|tag| tag.split_once('=').unwrap_or((tag, "")))
        .filter(|(key, _)| tags::is_key(key))
        .map(|(key, value)| (key.to_owned(), tags::unescape(value)))
        .collect()
}

fn read_params(mut rest: &str) -> Vec<String> {
    let mut params = Vec::new();
    loop {
        rest = rest.trim_start_matches(' ');
        if let Some(trailing) = rest.strip_prefix(':') {
            params.push(trailing.to_owned());
            return params;
        }
        if rest.is_empty() {
            return params;
        }
        // The last one takes what is left, with or without its colon.
        if params.len() == MAX_PARAMS - 1 {
            params.push(rest.to_owned());
            return params;
        }
        let (param, after) = rest.split_once(' ').unwrap_or((rest, ""));
        params.push(param.to_owned());
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(line: &str) -> Message {
        Message::parse(line.as_bytes()).unwrap()
    }

    #[test]
    fn tags_source_command_and_parameters() {
        let message = parse(
            "@time=2026-01-02T03:04:05.678Z;account=ada;+a/b=x\\sy\\:z\\\\\\q\\;bad_key=1;empty \
             :ada!~a@host  privmsg  #c  :hi : there \r\n",
        );
        assert_eq!(message.tag("account"), Some("ada"));
        assert_eq!(message.tag("+a/b"), Some("x y;z\\q"));
        assert_eq!(message.tag("empty"), Some(""));
        assert_eq!(message.tag("bad_key"), None);
        assert_eq!(message.nick(), "ada");
        assert_eq!(message.command, "PRIVMSG");
        assert_eq!(message.params, ["#c", "hi : there "]);
    }

    #[test]
    fn odd_but_valid() {
        assert_eq!(parse("PING").params.len(), 0);
        assert_eq!(parse("PING :").params, [""]);
        assert_eq!(parse(":s 001 a").command, "001");
        assert_eq!(parse("A b:c d:").params, ["b:c", "d:"]);
        assert_eq!(parse("A 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16").params[14], "15 16");
        let latin1 = Message::parse(b"PRIVMSG a :caf\xe9").unwrap();
        assert_eq!(latin1.trailing(), "caf\u{fffd}");
    }

    #[test]
    fn refused() {
        for (line, why) in [
            (&b""[..], ParseError::Command),
            (b"@a=b", ParseError::Command),
            (b":source", ParseError::Command),
            (b"@a=b :source ", ParseError::Command),
            (b"12 a", ParseError::Command),
            (b"P1NG a", ParseError::Command),
            (b"PRIVMSG a :b\rQUIT", ParseError::Control),
            (b"PRIVMSG a :b\0", ParseError::Control),
            (&[b'A'; MAX_LINE_LEN - 1], ParseError::TooLong),
        ] {
            assert_eq!(Message::parse(line), Err(why), "{:?}", String::from_utf8_lossy(line));
        }
        let tags = |n| [b"@".to_vec(), vec![b'a'; n], b" PING".to_vec()].concat();
        assert!(Message::parse(&tags(MAX_TAGS_LEN - 2)).is_ok());
        assert_eq!(Message::parse(&tags(MAX_TAGS_LEN - 1)), Err(ParseError::TooLong));
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_fail_within_bounds(line in prop::collection::vec(any::<u8>(), 0..9000)) {
            if let Ok(message) = Message::parse(&line) {
                prop_assert!(message.params.len() <= MAX_PARAMS);
                prop_assert!(message.params.iter().all(|p| !p.contains(['\r', '\n', '\0'])));
            }
        }

        #[test]
        fn any_text_with_the_shape_of_a_line(line in "(@[a-z=;\\\\+]{0,9} )?(:[a-z!@]{0,9} )?[A-Z0-9]{0,4}( :?[^ ]{0,9}){0,20}") {
            let _ = Message::parse(line.as_bytes());
        }
    }
}
