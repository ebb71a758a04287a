//! Agents that hear each other: through how many of them a message has come.
//!
//! A message of a person has gone through none. What an agent says in answer to
//! a message has gone through one more than that. Beyond a limit it is not
//! handed on, and the two that went in circles do not hear each other for a
//! while; hand-offs that end in time get through.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

/// Who said what last, and who is not to hear whom.
#[derive(Debug)]
pub struct Talk {
    max_hops: u32,
    pause: Duration,
    /// By agent and conversation: the hops of what it last said there.
    said: HashMap<(String, String), u32>,
    /// By the two agents: until when they do not hear each other.
    paused: HashMap<(String, String), Instant>,
}

/// What becomes of something that one agent says to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is heard, with so many hops.
    Heard(u32),
    /// It would go in circles: this is to be announced, once.
    Circle,
    /// It comes from a circle that was announced.
    Silent,
}

impl Talk {
    /// Nobody has said anything.
    pub fn new(max_hops: u32, pause: Duration) -> Self {
        Self { max_hops, pause, said: HashMap::new(), paused: HashMap::new() }
    }

    /// An agent says something in a conversation, in answer to something with so many hops.
    pub fn says(&mut self, agent: &str, conversation: &str, hops: u32) {
        self.said.insert((agent.to_owned(), conversation.to_owned()), hops + 1);
    }

    /// Whether one agent hears what another says to it in a conversation.
    pub fn hears(
        &mut self,
        listener: &str,
        speaker: &str,
        conversation: &str,
        now: Instant,
    ) -> Verdict {
        let pair = match listener < speaker {
            true => (listener.to_owned(), speaker.to_owned()),
            false => (speaker.to_owned(), listener.to_owned()),
        };
        self.paused.retain(|_, until| *until > now);
        if self.paused.contains_key(&pair) {
            return Verdict::Silent;
        }
        // An agent that speaks without having been spoken to starts anew.
        let hops =
            self.said.get(&(speaker.to_owned(), conversation.to_owned())).copied().unwrap_or(1);
        if hops <= self.max_hops {
            return Verdict::Heard(hops);
        }
        self.paused.insert(pair, now + self.pause);
        Verdict::Circle
    }

    /// Forgets an agent.
    pub fn forget(&mut self, agent: &str) {
        self.said.retain(|(who, _), _| who != agent);
        self.paused.retain(|(a, b), _| a != agent && b != agent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hand_off_gets_through_and_a_circle_is_cut_once() {
        let mut talk = Talk::new(4, Duration::from_secs(10));
        let start = Instant::now();
        // A person speaks to a: 0 hops.
        let (mut speaker, mut listener, mut hops) = ("a", "b", 0);
        let mut heard = 0;
        loop {
            talk.says(speaker, "#x", hops);
            match talk.hears(listener, speaker, "#x", start) {
                Verdict::Heard(now) => hops = now,
                verdict => {
                    assert_eq!(verdict, Verdict::Circle);
                    break;
                }
            }
            heard += 1;
            std::mem::swap(&mut speaker, &mut listener);
        }
        assert_eq!(heard, 4);
        // Neither hears the other for a while, and nobody is told again.
        assert_eq!(talk.hears("a", "b", "#x", start), Verdict::Silent);
        assert_eq!(talk.hears("b", "a", "#x", start), Verdict::Silent);
        // A third one does.
        talk.says("a", "#x", 0);
        assert_eq!(talk.hears("c", "a", "#x", start), Verdict::Heard(1));
        // And when the pause is over, a person can have them talk again.
        let later = start + Duration::from_secs(11);
        talk.says("a", "#x", 0);
        assert_eq!(talk.hears("b", "a", "#x", later), Verdict::Heard(1));
    }

    #[test]
    fn what_is_forgotten_starts_anew() {
        let mut talk = Talk::new(1, Duration::from_secs(10));
        talk.says("a", "#x", 5);
        assert_eq!(talk.hears("b", "a", "#x", Instant::now()), Verdict::Circle);
        talk.forget("a");
        assert_eq!(talk.hears("b", "a", "#x", Instant::now()), Verdict::Heard(1));
    }
}
