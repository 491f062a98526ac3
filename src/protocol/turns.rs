//! Turns of the slots that wait for a worker with room: first come, first served.
//!
//! 1. A slot waits at most once, so there are at most as many as slots.

use std::collections::{BTreeSet, VecDeque};

use crate::protocol::task_queue::Slot;

/// Slots that wait, in the order in which they came.
#[derive(Clone, Debug, Default)]
pub struct Turns {
    order: VecDeque<Slot>,
    waiting: BTreeSet<Slot>,
}

impl Turns {
    /// Adds a slot at the end, unless it waits already.
    pub fn push(&mut self, slot: Slot) {
        if self.waiting.insert(slot) {
            self.order.push_back(slot);
        }
    }

    /// Removes and returns the slot whose turn it is.
    pub fn pop(&mut self) -> Option<Slot> {
        let slot = self.order.pop_front()?;
        self.waiting.remove(&slot);
        Some(slot)
    }

    /// Returns whether no slot waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_leave_in_the_order_they_came_and_wait_once() {
        let mut turns = Turns::default();
        for n in [3, 1, 3, 2, 1] {
            turns.push(Slot(n));
        }
        turns.push(Slot(3));
        let order: Vec<_> = std::iter::from_fn(|| turns.pop()).map(|slot| slot.0).collect();
        assert_eq!(order, [3, 1, 2]);
        assert!(turns.is_empty());
    }
}
