//! Who is next: a queue that is fair over agents.

use std::collections::VecDeque;

/// Items of agents, served in turn: each agent that has something waiting gets one item
/// served before any agent gets another. One that has much to ask waits for itself.
#[derive(Debug)]
pub struct FairQueue<T> {
    // Agents in the order of their turns; none is here without items.
    agents: VecDeque<(String, VecDeque<T>)>,
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self { agents: VecDeque::new() }
    }
}

impl<T> FairQueue<T> {
    /// How many items an agent has waiting.
    pub fn waiting(&self, agent: &str) -> usize {
        self.agents.iter().find(|(name, _)| name == agent).map_or(0, |(_, items)| items.len())
    }

    pub fn push(&mut self, agent: &str, item: T) {
        match self.agents.iter_mut().find(|(name, _)| name == agent) {
            Some((_, items)) => items.push_back(item),
            None => self.agents.push_back((agent.to_owned(), VecDeque::from([item]))),
        }
    }

    pub fn pop(&mut self) -> Option<T> {
        let (agent, mut items) = self.agents.pop_front()?;
        let item = items.pop_front();
        if !items.is_empty() {
            self.agents.push_back((agent, items));
        }
        item
    }

    /// Removes the items that `gone` says yes to.
    pub fn remove(&mut self, gone: impl Fn(&T) -> bool) {
        for (_, items) in &mut self.agents {
            items.retain(|item| !gone(item));
        }
        self.agents.retain(|(_, items)| !items.is_empty());
    }

    /// The items in the order in which they will be popped.
    pub fn in_order(&mut self) -> impl Iterator<Item = &mut T> {
        let mut turns: Vec<_> = self
            .agents
            .iter_mut()
            .enumerate()
            .flat_map(|(agent, (_, items))| {
                items.iter_mut().enumerate().map(move |(round, item)| ((round, agent), item))
            })
            .collect();
        turns.sort_by_key(|(turn, _)| *turn);
        turns.into_iter().map(|(_, item)| item)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use proptest::prelude::*;

    /// An item: whose it is and which of theirs.
    type Item = (u8, usize);

    fn filled(asked: &[u8]) -> FairQueue<Item> {
        let mut queue = FairQueue::default();
        for agent in asked {
            let n = queue.waiting(&agent.to_string());
            queue.push(&agent.to_string(), (*agent, n));
        }
        queue
    }

    fn drain(mut queue: FairQueue<Item>) -> Vec<Item> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    proptest! {
        #[test]
        fn nobody_gets_a_second_turn_before_all_had_one(asked in prop::collection::vec(0u8..6, 0..60)) {
            let served = drain(filled(&asked));
            prop_assert_eq!(served.len(), asked.len());
            let mut left: HashMap<u8, usize> = HashMap::new();
            asked.iter().for_each(|agent| *left.entry(*agent).or_default() += 1);
            let mut turns: HashMap<u8, usize> = HashMap::new();
            for (agent, nth) in served {
                // Each agent's own items in their order.
                let turn = turns.entry(agent).or_default();
                prop_assert_eq!(*turn, nth);
                *turn += 1;
                let turn = *turn;
                *left.entry(agent).or_default() -= 1;
                // Whoever still waits had as many turns, at most one less.
                for (other, waiting) in &left {
                    if *waiting > 0 {
                        prop_assert!(turns.get(other).copied().unwrap_or(0) + 1 >= turn);
                    }
                }
            }
        }

        #[test]
        fn a_newcomer_waits_for_one_item_of_each_other(
            before in prop::collection::vec(0u8..6, 0..60),
            popped in 0usize..20,
        ) {
            let mut queue = filled(&before);
            for _ in 0..popped { queue.pop(); }
            let others = queue.agents.len();
            queue.push("9", (9, 0));
            let position = drain(queue).iter().position(|item| item.0 == 9);
            prop_assert_eq!(position, Some(others));
        }

        #[test]
        fn the_order_told_is_the_order_served(
            asked in prop::collection::vec(0u8..6, 0..60),
            popped in 0usize..10,
            gone in 0u8..6,
        ) {
            let mut queue = filled(&asked);
            for _ in 0..popped { queue.pop(); }
            queue.remove(|item| item.0 == gone);
            let told: Vec<_> = queue.in_order().map(|item| *item).collect();
            prop_assert!(told.iter().all(|item| item.0 != gone));
            prop_assert_eq!(told, drain(queue));
        }
    }
}
