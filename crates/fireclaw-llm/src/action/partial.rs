//! The words of a reply while its JSON is still being written.

/// What `{"action": "reply", "argument": "` consists of; white space may be between.
const OPENING: [&str; 8] = ["{", "\"action\"", ":", "\"reply\"", ",", "\"argument\"", ":", "\""];

/// How long the opening may be. With longer white space it is no opening, and what comes
/// before is not looked at again and again.
const MAX_OPENING: usize = 256;

/// Reads the argument of a `reply` from JSON that comes piece by piece.
#[derive(Debug, Default)]
pub struct ReplyText {
    json: String,
    /// Where in the JSON the words go on, once the opening is there.
    at: Option<usize>,
    ended: bool,
    said: String,
}

impl ReplyText {
    /// Takes the next piece, and gives the words that it added.
    pub fn feed(&mut self, piece: &str) -> String {
        if self.ended {
            return String::new();
        }
        let begins = self.at.is_none() && self.json.is_empty();
        self.json.push_str(if begins { piece.trim_start() } else { piece });
        if self.at.is_none() {
            self.at = opening(&self.json);
            self.ended = self.at.is_none() && self.json.len() > MAX_OPENING;
        }
        let mut words = String::new();
        while let Some(at) = self.at.filter(|_| !self.ended) {
            match next(&self.json[at..]) {
                Next::Char(c, length) => {
                    words.push(c);
                    self.at = Some(at + length);
                }
                Next::End => self.ended = true,
                Next::More => break,
            }
        }
        if let Some(at) = &mut self.at {
            // What was read is not kept.
            self.json.drain(..*at);
            *at = 0;
        }
        self.said.push_str(&words);
        words
    }

    /// All words until now.
    pub fn so_far(&self) -> &str {
        &self.said
    }
}

fn opening(json: &str) -> Option<usize> {
    let mut rest = json;
    for token in OPENING {
        rest = rest.trim_start().strip_prefix(token)?;
    }
    Some(json.len() - rest.len())
}

enum Next {
    Char(char, usize),
    End,
    More,
}

/// The first character of the inside of a JSON string.
fn next(rest: &str) -> Next {
    let mut chars = rest.chars();
    match chars.next() {
        None => Next::More,
        Some('"') => Next::End,
        Some('\\') => match chars.next() {
            None => Next::More,
            Some('u') => unicode(rest),
            Some(c) => Next::Char(
                match c {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    'b' => '\u{8}',
                    'f' => '\u{c}',
                    other => other,
                },
                1 + c.len_utf8(),
            ),
        },
        Some(c) => Next::Char(c, c.len_utf8()),
    }
}

/// `\uXXXX`, or two of them for what lies beyond the first 65536 characters.
fn unicode(rest: &str) -> Next {
    let unit = |at: usize| {
        let digits = rest.get(at..at + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(digits, 16).ok()
    };
    let Some(first) = unit(0) else {
        return if rest.len() < 6 { Next::More } else { Next::Char('\u{fffd}', 2) };
    };
    if !(0xd800..0xdc00).contains(&first) {
        return Next::Char(char::from_u32(first.into()).unwrap_or('\u{fffd}'), 6);
    }
    match unit(6) {
        Some(second) => match char::decode_utf16([first, second]).next() {
            Some(Ok(c)) => Next::Char(c, 12),
            _ => Next::Char('\u{fffd}', 6),
        },
        None if rest.len() < 12 => Next::More,
        None => Next::Char('\u{fffd}', 6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn other_actions_say_nothing() {
        let mut text = ReplyText::default();
        assert_eq!(text.feed(r#"{"action": "run_command", "argument": "uptime"}"#), "");
    }

    #[test]
    fn a_broken_escape_ends_nothing() {
        let mut text = ReplyText::default();
        text.feed(r#"{"action":"reply","argument":"a\ud83dé\uzzzzz\ud83d\u0041b"}"#);
        assert!(text.so_far().starts_with('a') && text.so_far().ends_with('b'));
    }

    #[test]
    fn reading_costs_no_more_for_each_byte_of_a_longer_reply() {
        let mut work = 0;
        for piece in [" ", "x", "\\"] {
            let mut text = ReplyText::default();
            for begin in ["", "{\"action\": \"reply\", \"argument\": \""] {
                text.feed(begin);
                for _ in 0..20_000 {
                    text.feed(piece);
                    // What is looked at in each call.
                    work = work.max(text.json.len());
                }
            }
        }
        assert!(work <= MAX_OPENING + 64, "{work} bytes are looked at for one");
    }

    proptest! {
        #[test]
        fn words_come_whole_however_they_are_cut(
            words in "(\\PC|[\n\t\"\\\\\u{1F600}]){0,40}",
            cuts in prop::collection::vec(1usize..7, 1..80),
            ascii in any::<bool>(),
        ) {
            let mut json = json!({"action": "reply", "argument": words}).to_string();
            if ascii {
                json = json.chars().map(|c| if c.is_ascii() { c.to_string() } else {
                    c.encode_utf16(&mut [0; 2]).iter().map(|u| format!("\\u{u:04x}")).collect()
                }).collect();
            }
            let mut text = ReplyText::default();
            let mut heard = String::new();
            let mut chars = json.chars();
            for cut in cuts.iter().cycle() {
                let piece: String = chars.by_ref().take(*cut).collect();
                if piece.is_empty() { break }
                heard.push_str(&text.feed(&piece));
            }
            prop_assert_eq!(&heard, &words);
            prop_assert_eq!(text.so_far(), words);
        }

        #[test]
        fn any_json_is_read_without_panic(rest in "\\PC{0,40}|(\\\\u[0-9a-fé]{0,4}|[a\"]){0,20}") {
            let mut text = ReplyText::default();
            text.feed(&format!("{{\"action\":\"reply\",\"argument\":\"{rest}"));
        }
    }
}
