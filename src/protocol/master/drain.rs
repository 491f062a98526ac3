//! Drain: a master that is to end hands its work over to the others while it still serves people.
//!
//! From its begin on the master takes no lease. It gives each one back after the attempt in flight,
//! and what waits goes to masters that can have it written, as does every later task. Its workers
//! stay registered until it leaves.

use super::{Effect, Master};
use crate::model::time::Mono;

impl Master {
    /// Begins to hand over. There is no way back: a master that was drained ends.
    pub fn drain(&mut self, now: Mono, out: &mut Vec<Effect>) {
        self.is_draining = true;
        self.release_all(now, out);
        self.mark_all();
        self.pump_marked(now, out);
    }

    /// Whether nothing waits here, is with a worker, or is with another master for somebody here.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.forwards.is_empty()
            && self
                .queue
                .slots()
                .all(|(slot, _)| self.queue.waiting(slot) + self.queue.taken(slot) == 0)
    }

    /// Whether another master is linked that can have things written.
    #[must_use]
    pub fn has_successor(&self) -> bool {
        self.peers.values().any(|peer| peer.can_write)
    }
}
