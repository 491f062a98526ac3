//! Joins of workers that are published together.
//!
//! A join is published at once if none was within [`GATHER`] before it; else it waits so long, and
//! goes with those that came meanwhile. Many workers that come at the same time would otherwise
//! cost a message from each to each.
//!
//! Joins that wait are published before a leave or a failure, and before the directory is compared with
//! others': nobody hears of the end of a worker first, or finds this master ahead of what it said.

use std::time::Duration;

use super::{Effect, Master, members::publish};
use crate::model::{message::Member, time::Mono};

/// Shortest time between two publishes of joins, unless something else asks for one.
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

    /// Returns when [`Master::publish_due_joins`] is to be called next.
    pub(super) fn next_deadline(&self) -> Option<Mono> {
        (!self.waiting.is_empty()).then_some(self.due)
    }

    /// Adds members that joined.
    pub(super) fn extend(&mut self, members: Vec<Member>) {
        self.waiting.extend(members);
    }
}

impl Master {
    /// Publishes the joins that wait, if they have waited long enough.
    pub(super) fn publish_due_joins(&mut self, now: Mono, out: &mut Vec<Effect>) {
        if now >= self.joins.due {
            self.publish_joins(now, out);
        }
    }

    /// Publishes the joins that wait.
    pub(super) fn publish_joins(&mut self, now: Mono, out: &mut Vec<Effect>) {
        let joined = std::mem::take(&mut self.joins.waiting);
        if !joined.is_empty() {
            self.joins.due = now + GATHER;
            publish(&joined, true, out);
        }
    }
}
