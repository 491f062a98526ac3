//! Coalesced reads of the store: one read answers all who wait for it.
//!
//! ```text
//!   add ──► queued ──begin──► running ──end──► answered
//!             ▲                  │
//!             └─────put_back─────┘
//! ```
//!
//! 1. At most one read runs. Whoever comes while it runs waits for the next one, so that an
//!    answer is never older than the question.
//! 2. At most [`WAITING_MAX`] are queued; more are refused.

use thiserror::Error;

/// The most requests that wait for one read to begin.
pub const WAITING_MAX: usize = 10_000;

/// Refusal of a waiter: too many wait already. Holds the waiter, so that it can be told.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("too many requests wait for this read")]
pub struct TooMany<W>(pub W);

/// Waiters of one kind of read, generic over what waits.
#[derive(Debug)]
pub struct Reads<W> {
    running: Option<Vec<W>>,
    queued: Vec<W>,
}

impl<W> Default for Reads<W> {
    fn default() -> Self {
        Self { running: None, queued: Vec::new() }
    }
}

impl<W> Reads<W> {
    /// Queues a waiter. Returns whether a read is to begin now.
    ///
    /// # Errors
    /// [`TooMany`] are queued already; the waiter comes back.
    pub fn add(&mut self, waiter: W) -> Result<bool, TooMany<W>> {
        // Those who were put back may be as many, and wait for whoever comes next.
        let begins = self.queued.len() >= WAITING_MAX && self.begin();
        if self.queued.len() >= WAITING_MAX {
            return Err(TooMany(waiter));
        }
        self.queued.push(waiter);
        Ok(self.begin() || begins)
    }

    /// Makes all who are queued wait for a new read, unless one runs or nobody is queued.
    /// Returns whether the read is to begin now.
    #[must_use]
    pub fn begin(&mut self) -> bool {
        let begins = self.running.is_none() && !self.queued.is_empty();
        if begins {
            self.running = Some(std::mem::take(&mut self.queued));
        }
        begins
    }

    /// Whether nobody waits, and no read runs.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        self.running.is_none() && self.queued.is_empty()
    }

    /// Ends the running read and returns who waited for it. Follow it by [`Reads::begin`].
    #[must_use]
    pub fn end(&mut self) -> Vec<W> {
        self.running.take().unwrap_or_default()
    }

    /// Queues waiters of a read that ended without an answer, whatever the bound.
    pub fn put_back(&mut self, waiters: impl IntoIterator<Item = W>) {
        self.queued.extend(waiters);
    }

    /// Removes and returns all who are queued.
    #[must_use]
    pub fn take_queued(&mut self) -> Vec<W> {
        std::mem::take(&mut self.queued)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn waiter_that_comes_during_a_read_waits_for_the_next() {
        let mut reads = Reads::default();
        assert_eq!(reads.add("a"), Ok(true));
        assert_eq!(reads.add("b"), Ok(false));
        assert_eq!(reads.add("c"), Ok(false));
        assert_eq!(reads.end(), ["a"]);
        assert!(reads.begin());
        assert_eq!(reads.end(), ["b", "c"]);
        assert!(!reads.begin(), "nobody waits");
    }

    #[test]
    fn queue_over_its_bound_refuses_the_waiter() {
        let mut reads = Reads::default();
        assert_eq!(reads.add(0), Ok(true));
        for n in 0..WAITING_MAX {
            assert_eq!(reads.add(n), Ok(false));
        }
        assert_eq!(reads.add(7), Err(TooMany(7)));
        assert_eq!(reads.end(), [0]);
        assert!(reads.begin());
        assert_eq!(reads.add(7), Ok(false), "there is room again");
    }

    #[test]
    fn waiters_put_back_are_answered_by_the_next_read() {
        let mut reads = Reads::default();
        assert_eq!(reads.add("a"), Ok(true));
        let waited = reads.end();
        reads.put_back(waited);
        assert_eq!(reads.add("b"), Ok(true));
        assert_eq!(reads.end(), ["a", "b"]);
    }

    #[test]
    fn queue_full_of_waiters_put_back_is_read_when_the_next_one_comes() {
        let mut reads = Reads::default();
        reads.put_back(0..WAITING_MAX);
        assert_eq!(reads.add(WAITING_MAX), Ok(true));
        assert_eq!(reads.end().len(), WAITING_MAX);
        assert!(reads.begin());
        assert_eq!(reads.end(), [WAITING_MAX], "it waited for the next read");
    }

    #[test]
    fn queued_waiters_are_taken_and_the_running_ones_stay() {
        let mut reads = Reads::default();
        assert_eq!((reads.add("a"), reads.add("b")), (Ok(true), Ok(false)));
        assert_eq!(reads.take_queued(), ["b"]);
        assert_eq!(reads.end(), ["a"]);
    }

    proptest! {
        /// Invariant 1: each waiter is answered once, by a read that began after it came.
        #[test]
        fn every_waiter_is_answered_once_by_a_later_read(moves in prop::collection::vec(any::<bool>(), 0..60)) {
            let mut reads = Reads::default();
            let (mut began_at, mut answered, mut came) = (None, Vec::new(), 0);
            for (now, comes) in moves.into_iter().enumerate() {
                let begins = if comes {
                    came += 1;
                    reads.add(now).expect("room")
                } else {
                    for waiter in reads.end() {
                        prop_assert!(began_at.is_some_and(|began| waiter <= began));
                        answered.push(waiter);
                    }
                    began_at = None;
                    reads.begin()
                };
                if begins {
                    prop_assert_eq!(began_at, None, "one read runs at a time");
                    began_at = Some(now);
                }
            }
            for _ in 0..2 {
                answered.extend(reads.end());
                let _ = reads.begin();
            }
            let in_order = answered.windows(2).all(|pair| pair[0] < pair[1]);
            prop_assert!(in_order && answered.len() == came);
        }
    }
}
