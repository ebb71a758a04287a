//! Lines that were one text before a client split them.

use std::time::{Duration, Instant};

use fireclaw_chat::{Case, addressed};

use super::event::{Chat, ChatKind, Event};

/// How long after a line another of the same paste may come: clients send the first few at
/// once, and no person types one as fast.
const GAP: Duration = Duration::from_millis(300);

/// How many lines irssi, and others like it, send at once, and how long they wait before
/// each further one (`cmds_max_at_once`, `cmd_queue_speed` of 2.2 s), with some to spare.
const AT_ONCE: usize = 5;
const THROTTLED_GAP: Duration = Duration::from_millis(2800);

/// The most lines and bytes of one message. What comes after begins another.
const MAX_LINES: usize = 100;
const MAX_LEN: usize = 32 * 1024;

/// A message that may not be all of it yet.
#[derive(Debug, Default)]
pub(super) struct Paste {
    held: Option<Held>,
}

#[derive(Debug)]
struct Held {
    chat: Chat,
    lines: usize,
    until: Instant,
}

impl Paste {
    /// Takes an event, and gives those that are complete, in order. `us` is this client's
    /// nick: a line that addresses it begins a message of its own.
    pub fn add(&mut self, event: Event, us: (&str, Case), now: Instant) -> Vec<Event> {
        let chat = match event {
            Event::Message(chat) if chat.kind == ChatKind::Message && !chat.is_history => chat,
            other => return self.take().into_iter().chain([other]).collect(),
        };
        if let Some(held) = &mut self.held
            && now <= held.until
            && held.lines < MAX_LINES
            && held.chat.text.len() + chat.text.len() < MAX_LEN
            && continues(&held.chat, &chat, us)
        {
            held.chat.text.push('\n');
            held.chat.text.push_str(&chat.text);
            held.lines += 1;
            held.until = now + if held.lines >= AT_ONCE { THROTTLED_GAP } else { GAP };
            return Vec::new();
        }
        let before = self.take();
        self.held = Some(Held { chat, lines: 1, until: now + GAP });
        before.into_iter().collect()
    }

    /// What is complete now.
    pub fn due(&mut self, now: Instant) -> Option<Event> {
        self.held.take_if(|held| now >= held.until).map(|held| Event::Message(held.chat))
    }

    /// What there is, complete or not.
    pub fn take(&mut self) -> Option<Event> {
        self.held.take().map(|held| Event::Message(held.chat))
    }

    /// When the message that is held will be complete.
    pub fn until(&self) -> Option<Instant> {
        self.held.as_ref().map(|held| held.until)
    }
}

/// Whether a line goes on with a message: from the same person to the same people, and
/// neither an address nor a word that stops what is being done.
fn continues(before: &Chat, line: &Chat, (nick, case): (&str, Case)) -> bool {
    before.from == line.from
        && before.reply_to == line.reply_to
        && before.account == line.account
        && !is_stop(&before.text, nick, case)
        && addressed(&line.text, nick, case).is_none()
        && !is_stop(&line.text, nick, case)
}

fn is_stop(text: &str, nick: &str, case: Case) -> bool {
    addressed(text, nick, case).unwrap_or(text).trim().eq_ignore_ascii_case("stop")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::event::Rank;
    use crate::message::Source;
    use std::time::SystemTime;

    const US: (&str, Case) = ("worker", Case::ASCII);

    fn line(from: &str, reply_to: &str, text: &str) -> Event {
        Event::Message(Chat {
            from: Source::parse(&format!("{from}!u@h")),
            account: None,
            rank: Rank::Member,
            target: reply_to.to_owned(),
            reply_to: reply_to.to_owned(),
            is_channel: true,
            text: text.to_owned(),
            time: SystemTime::UNIX_EPOCH,
            kind: ChatKind::Message,
            is_history: false,
        })
    }

    fn texts(events: impl IntoIterator<Item = Event>) -> Vec<String> {
        let text = |event| match event {
            Event::Message(chat) => chat.text,
            other => format!("{other:?}"),
        };
        events.into_iter().map(text).collect()
    }

    #[test]
    fn the_lines_of_a_paste_are_one_message() {
        let (mut paste, mut now) = (Paste::default(), Instant::now());
        for text in ["worker: fix this:", "fn main() {", "}"] {
            assert!(paste.add(line("ann", "#a", text), US, now).is_empty());
            now += GAP / 2;
        }
        assert_eq!(paste.due(now), None);
        now = paste.until().unwrap();
        assert_eq!(texts(paste.due(now)), ["worker: fix this:\nfn main() {\n}"]);
        assert_eq!((paste.due(now), paste.until()), (None, None));
    }

    #[test]
    fn a_client_that_sends_slowly_after_a_few_lines_is_waited_for() {
        let (mut paste, mut now) = (Paste::default(), Instant::now());
        for n in 0..8 {
            now += if n < AT_ONCE { Duration::ZERO } else { Duration::from_millis(2200) };
            assert!(paste.add(line("ann", "#a", &n.to_string()), US, now).is_empty(), "{n}");
        }
        assert_eq!(texts(paste.take()), ["0\n1\n2\n3\n4\n5\n6\n7"]);
    }

    #[test]
    fn others_other_places_and_new_addresses_are_messages_of_their_own() {
        let now = Instant::now();
        for next in [
            line("bob", "#a", "x"),
            line("ann", "#b", "x"),
            line("ann", "@#a", "x"),
            line("ann", "#a", "worker: x"),
            line("ann", "#a", "stop"),
            Event::Quit { nick: "ann".into(), reason: String::new() },
        ] {
            let mut paste = Paste::default();
            paste.add(line("ann", "#a", "worker: first"), US, now);
            let shown = format!("{next:?}");
            assert_eq!(texts(paste.add(next, US, now))[0], "worker: first", "{shown}");
        }
        let mut paste = Paste::default();
        paste.add(line("ann", "#a", "worker: stop"), US, now);
        assert_eq!(texts(paste.add(line("ann", "#a", "x"), US, now)), ["worker: stop"]);
        // Later is another message too.
        assert_eq!(texts(paste.add(line("ann", "#a", "y"), US, now + 2 * GAP)), ["x"]);
    }

    #[test]
    fn it_has_an_end() {
        let (mut paste, now) = (Paste::default(), Instant::now());
        let mut given = Vec::new();
        for _ in 0..1000 {
            given.extend(texts(paste.add(line("ann", "#a", &"x".repeat(400)), US, now)));
        }
        given.extend(texts(paste.take()));
        assert_eq!(given.iter().map(|text| text.lines().count()).sum::<usize>(), 1000);
        assert!(given.iter().all(|text| text.len() <= MAX_LEN));
    }
}
