//! Which message is dealt with next.

use std::collections::{HashMap, HashSet, VecDeque};

use fireclaw_protocol::agent::Incoming;

use crate::slug;

/// Messages that wait, in all conversations together. Each has at most a line's size, so this
/// also bounds the memory they take.
pub const MAX_WAITING: usize = 16;

/// Places where a message is being dealt with at the same time. Each may run a command,
/// and VMs are small.
const MAX_ACTIVE: usize = 8;

/// What became of a message that came.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// It waits, or can be dealt with at once.
    Waits,
    /// It is here already.
    Known,
    /// Too many wait: it is left out.
    Busy {
        /// Whether who asked has not been told yet.
        tell: bool,
    },
}

/// Where a message is that is no longer wanted.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// It was not begun, and is gone now.
    Waiting,
    /// It is being dealt with.
    Active,
    /// Neither.
    Nowhere,
}

/// Messages, in order within each conversation; conversations do not wait for each other.
#[derive(Debug, Default)]
pub struct Queue {
    waiting: VecDeque<Incoming>,
    /// By conversation.
    active: HashMap<String, u64>,
    /// Places and nicks that know that too many wait.
    told: HashSet<(String, String)>,
}

impl Queue {
    /// Takes a message in.
    pub fn push(&mut self, message: Incoming) -> Taken {
        let known = self.active.values().any(|id| *id == message.id)
            || self.waiting.iter().any(|m| m.id == message.id);
        if known {
            return Taken::Known;
        }
        if self.waiting.len() >= MAX_WAITING && !self.can_start(&message) {
            let tell = self.told.insert((conversation_of(&message), message.from));
            return Taken::Busy { tell };
        }
        self.waiting.push_back(message);
        Taken::Waits
    }

    /// The next message that can be dealt with now. It is active until [`Queue::finish`].
    pub fn start(&mut self) -> Option<Incoming> {
        let at = self.waiting.iter().position(|m| self.can_start(m))?;
        let message = self.waiting.remove(at)?;
        self.active.insert(conversation_of(&message), message.id);
        self.told.clear();
        Some(message)
    }

    /// The message has been dealt with.
    pub fn finish(&mut self, id: u64) {
        self.active.retain(|_, active| *active != id);
    }

    /// Finds a message that is no longer wanted, and forgets it if it waits.
    pub fn stop(&mut self, id: u64) -> Found {
        if self.active.values().any(|active| *active == id) {
            return Found::Active;
        }
        let before = self.waiting.len();
        self.waiting.retain(|m| m.id != id);
        if self.waiting.len() < before { Found::Waiting } else { Found::Nowhere }
    }

    fn can_start(&self, message: &Incoming) -> bool {
        self.active.len() < MAX_ACTIVE && !self.active.contains_key(&conversation_of(message))
    }
}

/// The conversation of a message as a key and as a part of a file's name.
pub fn conversation_of(message: &Incoming) -> String {
    slug::conversation(&message.conversation, message.private)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(id: u64, conversation: &str) -> Incoming {
        Incoming {
            id,
            conversation: conversation.into(),
            private: false,
            from: "ann".into(),
            text: "hi".into(),
            from_agent: false,
            recent: Vec::new(),
        }
    }

    #[test]
    fn in_order_within_a_place_and_side_by_side_between_them() {
        let mut queue = Queue::default();
        for (id, conversation) in [(1, "#a"), (2, "#A"), (3, "#b")] {
            assert_eq!(queue.push(message(id, conversation)), Taken::Waits);
        }
        assert_eq!(queue.push(message(2, "#a")), Taken::Known);
        assert_eq!(queue.start().unwrap().id, 1);
        assert_eq!(queue.push(message(1, "#a")), Taken::Known);
        assert_eq!(queue.start().unwrap().id, 3);
        assert!(queue.start().is_none());
        queue.finish(1);
        assert_eq!(queue.start().unwrap().id, 2);
    }

    #[test]
    fn too_many_are_told_once() {
        let mut queue = Queue::default();
        queue.push(message(0, "#a"));
        queue.start();
        for id in 1..=MAX_WAITING as u64 {
            assert_eq!(queue.push(message(id, "#a")), Taken::Waits);
        }
        assert_eq!(queue.push(message(90, "#a")), Taken::Busy { tell: true });
        assert_eq!(queue.push(message(91, "#a")), Taken::Busy { tell: false });
        // Another conversation is not kept waiting by this one.
        assert_eq!(queue.push(message(92, "#b")), Taken::Waits);
        assert_eq!(queue.start().unwrap().id, 92);
        queue.finish(0);
        queue.start();
        assert_eq!(queue.push(message(93, "#a")), Taken::Waits);
        assert_eq!(queue.push(message(94, "#a")), Taken::Busy { tell: true });
    }

    #[test]
    fn what_is_stopped() {
        let mut queue = Queue::default();
        queue.push(message(1, "#a"));
        queue.push(message(2, "#a"));
        queue.start();
        assert_eq!(queue.stop(1), Found::Active);
        assert_eq!(queue.stop(2), Found::Waiting);
        assert_eq!(queue.stop(2), Found::Nowhere);
    }

    #[test]
    fn only_so_many_places_at_a_time() {
        let mut queue = Queue::default();
        for id in 0..MAX_ACTIVE as u64 + 1 {
            queue.push(message(id, &format!("#{id}")));
        }
        for _ in 0..MAX_ACTIVE {
            assert!(queue.start().is_some());
        }
        assert!(queue.start().is_none());
        queue.finish(3);
        assert_eq!(queue.start().unwrap().id, MAX_ACTIVE as u64);
    }
}
