//! Drain: a master that is to end hands its work over to the others while it still serves people.
//!
//! As long as another master can have things written, this one takes no lease, gives each one back
//! after the attempt in flight, and sends what waits and what comes to the other. While there is
//! none it goes on by itself, so that nobody is refused for the sake of a drain. When it cannot have
//! things written either, it has posts held by workers, as ever: no post is lost with it.

use super::{Effect, Master};
use crate::model::time::Mono;

impl Master {
    /// Begins to hand over. There is no way back: a master that was drained ends.
    pub fn drain(&mut self, now: Mono, out: &mut Vec<Effect>) {
        self.is_draining = true;
        self.hand_over(now, out);
        self.pump_marked(now, out);
    }

    /// Gives back what can be given back, when it is being drained and somebody can go on. Marks
    /// every slot.
    pub(super) fn hand_over(&mut self, now: Mono, out: &mut Vec<Effect>) {
        if self.hands_over() {
            self.release_all(now, out);
            self.mark_all();
        }
    }

    /// Whether its work goes to another master now.
    pub(super) fn hands_over(&self) -> bool {
        self.is_draining && self.has_successor()
    }

    /// Whether nothing waits here, is with a worker, or is with another master for somebody here.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let left = |slot| self.queue.waiting(slot) + self.queue.taken(slot);
        self.forwards.is_empty() && self.queue.slots().all(|(slot, _)| left(slot) == 0)
    }

    /// Whether another master is linked that can have things written.
    #[must_use]
    pub fn has_successor(&self) -> bool {
        self.peers.values().any(|peer| peer.can_write)
    }
}
