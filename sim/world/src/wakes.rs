//! Wakers that a step of the world collects, to be called once it is unlocked.

use std::task::Waker;

/// Wakers in the order in which they came. Most steps wake one task or none, which takes no memory
/// from the heap.
#[derive(Debug, Default)]
pub(crate) struct Wakes {
    first: Option<Waker>,
    others: Vec<Waker>,
}

impl Wakes {
    /// Returns no wakers.
    pub(crate) const fn new() -> Self {
        Self { first: None, others: Vec::new() }
    }

    /// Adds a waker, if there is one.
    pub(crate) fn add(&mut self, waker: Option<Waker>) {
        match waker {
            Some(waker) if self.first.is_none() => self.first = Some(waker),
            waker => self.others.extend(waker),
        }
    }

    /// Takes all wakers out.
    pub(crate) fn take(&mut self) -> Self {
        std::mem::take(self)
    }

    /// Wakes all tasks.
    pub(crate) fn wake(self) {
        for waker in self.first.into_iter().chain(self.others) {
            waker.wake();
        }
    }
}
