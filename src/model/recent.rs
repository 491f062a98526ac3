//! Set of the latest values, with a bound on its size.

use std::collections::{BTreeSet, VecDeque};

/// Remembers the latest `max` distinct values that were inserted; forgets the oldest first.
#[derive(Debug)]
pub(crate) struct Recent<T> {
    known: BTreeSet<T>,
    by_age: VecDeque<T>,
    max: usize,
}

impl<T: Copy + Ord> Recent<T> {
    /// Returns an empty set that holds at most `max` values.
    pub(crate) const fn new(max: usize) -> Self {
        Self { known: BTreeSet::new(), by_age: VecDeque::new(), max }
    }

    /// Remembers a value; returns `false` if it is remembered already.
    pub(crate) fn insert(&mut self, value: T) -> bool {
        if !self.known.insert(value) {
            return false;
        }
        self.by_age.push_back(value);
        if self.by_age.len() > self.max
            && let Some(oldest) = self.by_age.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }

    /// Returns whether a value is among the latest.
    pub(crate) fn contains(&self, value: &T) -> bool {
        self.known.contains(value)
    }

    /// Returns the sizes of both inner collections, which are always equal.
    #[cfg(test)]
    pub(crate) fn lens(&self) -> (usize, usize) {
        (self.known.len(), self.by_age.len())
    }
}
