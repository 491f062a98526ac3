//! Joins of workers that are published together.
//!
//! A join is published at once, and those that come within [`GATHER`] of it together after that.
//! Many workers that come at a time would otherwise cost a message from each to each.

use std::time::Duration;

use super::{Effect, Master, members::publish};
use crate::model::{message::Member, time::Mono};

/// Shortest time between two publishes of joins. An end is published at once.
const GATHER: Duration = Duration::from_millis(50);

/// Joins that are not published yet.
#[derive(Debug)]
pub(super) struct Joins {
    waiting: Vec<Member>,
    /// When joins may be published again.
    due: Mono,
}

impl Joins {
    /// Returns no joins. The next one is published at once.
    pub(super) const fn new() -> Self {
        Self { waiting: Vec::new(), due: Mono::ZERO }
    }

    /// Returns when [`Master::publish_joins`] is to be called next.
    pub(super) fn next_deadline(&self) -> Option<Mono> {
        (!self.waiting.is_empty()).then_some(self.due)
    }

    /// Adds members that joined.
    pub(super) fn extend(&mut self, members: Vec<Member>) {
        self.waiting.extend(members);
    }

    /// Takes out the joins that are to be published now.
    fn take(&mut self, now: Mono) -> Vec<Member> {
        if self.waiting.is_empty() || now < self.due {
            return Vec::new();
        }
        self.due = now + GATHER;
        std::mem::take(&mut self.waiting)
    }
}

impl Master {
    /// Publishes the joins that are due, without those that something newer was published of.
    pub(super) fn publish_joins(&mut self, now: Mono, out: &mut Vec<Effect>) {
        let mut joined = self.joins.take(now);
        joined.retain(|joined| {
            self.registry.get(&joined.fact.node).is_some_and(|known| known.fact == joined.fact)
        });
        publish(&joined, true, out);
    }
}
