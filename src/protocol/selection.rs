//! Selection of the worker for the next batch: the least loaded one, in turn among equals.
//!
//! 1. Only registered workers whose last heartbeat said that they reach the store are picked, and
//!    none with [`WORKER_BATCHES_MAX`] batches in flight.
//! 2. Of two such workers, the one with fewer batches in flight comes first, then the one that had
//!    a batch longer ago, then the one with the lower id.
//! 3. A try counts as in flight from its start until it is finished or the worker is removed.
//! 4. A worker is wrong after [`FENCED_MAX`] tokens in a row that the store had confirmed to this
//!    master, each after the worker's last answer, and that the worker found too old.

use std::collections::BTreeMap;

use crate::{
    config::WORKER_BATCHES_MAX,
    model::{ids::NodeId, time::Mono},
};

/// Tokens that a worker may find too old in a row although the store confirmed them: it may have
/// another store than the masters.
pub const FENCED_MAX: u32 = 3;

#[derive(Clone, Copy, Debug, Default)]
struct Load {
    in_flight: u32,
    reaches_store: bool,
    /// Number of the worker's last try, or of the last one before it registered.
    turn: u64,
    /// Confirmed tokens that it found too old in a row, and when it last did.
    fenced: (u32, Mono),
}

impl Load {
    const fn has_room(&self) -> bool {
        self.reaches_store && (self.in_flight as usize) < WORKER_BATCHES_MAX
    }
}

/// Loads of the registered workers.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    workers: BTreeMap<NodeId, Load>,
    tries: u64,
}

impl Selection {
    /// Creates a table without workers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a worker that registered, or registered again; it has nothing in flight.
    pub fn add(&mut self, node: NodeId, reaches_store: bool) {
        // The turn is kept, so that a worker does not get to the front by registering again.
        let turn = self.workers.get(&node).map_or(self.tries, |load| load.turn);
        self.workers.insert(node, Load { reaches_store, turn, ..Load::default() });
    }

    /// Removes a worker that is gone or listed.
    pub fn remove(&mut self, node: &NodeId) {
        self.workers.remove(node);
    }

    /// Sets whether a worker reaches the store, as its heartbeat said. Ignores an unknown worker.
    pub fn set_reaches_store(&mut self, node: &NodeId, reaches_store: bool) {
        if let Some(load) = self.workers.get_mut(node) {
            load.reaches_store = reaches_store;
        }
    }

    /// Returns whether a worker reaches the store; `None` for an unknown worker.
    #[must_use]
    pub fn reaches_store(&self, node: &NodeId) -> Option<bool> {
        self.workers.get(node).map(|load| load.reaches_store)
    }

    /// Returns whether any worker reaches the store.
    #[must_use]
    pub fn anyone_reaches_store(&self) -> bool {
        self.workers.values().any(|load| load.reaches_store)
    }

    /// Returns the worker for the next batch among those that `may` accepts. O(workers).
    #[must_use]
    pub fn pick(&self, may: impl Fn(&NodeId) -> bool) -> Option<NodeId> {
        self.workers
            .iter()
            .filter(|(_, load)| load.has_room())
            .filter(|(node, _)| may(node))
            .min_by_key(|(_, load)| (load.in_flight, load.turn))
            .map(|(node, _)| *node)
    }

    /// Returns whether a worker reaches the store and has room for another batch.
    #[must_use]
    pub fn has_room(&self, node: &NodeId) -> bool {
        self.workers.get(node).is_some_and(Load::has_room)
    }

    /// Counts a try that starts at a worker. Ignores an unknown worker.
    pub fn start(&mut self, node: &NodeId) {
        self.tries += 1;
        if let Some(load) = self.workers.get_mut(node) {
            load.turn = self.tries;
            load.in_flight = load.in_flight.saturating_add(1);
        }
    }

    /// Counts a try that ended at a worker, however it ended. Ignores an unknown worker.
    pub fn finish(&mut self, node: &NodeId) {
        if let Some(load) = self.workers.get_mut(node) {
            load.in_flight = load.in_flight.saturating_sub(1);
        }
    }

    /// Takes note that a worker wrote a batch.
    pub fn on_written(&mut self, node: &NodeId) {
        if let Some(load) = self.workers.get_mut(node) {
            load.fenced = (0, Mono::ZERO);
        }
    }

    /// Takes note that a worker found a token too old that the store confirmed at `confirmed`.
    /// Returns whether the worker is wrong.
    pub fn on_fenced(&mut self, now: Mono, node: &NodeId, confirmed: Mono) -> bool {
        let Some(load) = self.workers.get_mut(node) else { return false };
        let (times, last) = load.fenced;
        // Batches that were given out together say no more than one.
        if times == 0 || confirmed > last {
            load.fenced = (times + 1, now);
        }
        load.fenced.0 >= FENCED_MAX
    }

    /// Returns the batches in flight at a worker; 0 for an unknown worker.
    #[must_use]
    pub fn in_flight(&self, node: &NodeId) -> u32 {
        self.workers.get(node).map_or(0, |load| load.in_flight)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node(n: u8) -> NodeId {
        NodeId([n; 16])
    }

    fn of(workers: u8) -> Selection {
        let mut selection = Selection::new();
        for n in 0..workers {
            selection.add(node(n), true);
        }
        selection
    }

    #[test]
    fn equally_loaded_workers_take_turns() {
        let mut selection = of(3);
        let mut turns = Vec::new();
        for _ in 0..6 {
            let picked = selection.pick(|_| true).expect("three may");
            selection.start(&picked);
            selection.finish(&picked);
            turns.push(picked.0[0]);
        }
        assert_eq!(turns, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn worker_that_is_refused_or_does_not_reach_the_store_is_not_picked() {
        let mut selection = of(3);
        selection.set_reaches_store(&node(0), false);
        assert_eq!(selection.pick(|n| *n != node(1)), Some(node(2)));
        selection.set_reaches_store(&node(1), false);
        selection.remove(&node(2));
        assert_eq!(selection.pick(|_| true), None);
        assert!(!selection.anyone_reaches_store());
    }

    #[test]
    fn worker_with_all_that_it_takes_is_not_picked() {
        let mut selection = of(1);
        for _ in 0..WORKER_BATCHES_MAX {
            let picked = selection.pick(|_| true).expect("it has room");
            selection.start(&picked);
        }
        assert_eq!(selection.pick(|_| true), None);
        selection.finish(&node(0));
        assert_eq!(selection.pick(|_| true), Some(node(0)));
    }

    proptest! {
        #[test]
        fn pick_is_the_least_loaded_worker_that_is_accepted(
            steps in proptest::collection::vec((0..5_u8, 0..6_u8), 0..80),
        ) {
            let mut selection = of(5);
            let mut model = [(0_u32, true); 5];
            for (n, what) in steps {
                let load = &mut model[usize::from(n)];
                match what {
                    0 => {
                        load.1 = !load.1;
                        selection.set_reaches_store(&node(n), load.1);
                    }
                    1 => {
                        load.0 = load.0.saturating_sub(1);
                        selection.finish(&node(n));
                    }
                    _ => {
                        let may = |m: u8| m != n;
                        let least = (0..5)
                            .filter(|m| may(*m) && model[usize::from(*m)].1)
                            .map(|m| model[usize::from(m)].0)
                            .min();
                        let picked = selection.pick(|m| may(m.0[0]));
                        prop_assert_eq!(picked.map(|p| model[usize::from(p.0[0])].0), least);
                        if let Some(picked) = picked {
                            selection.start(&picked);
                            model[usize::from(picked.0[0])].0 += 1;
                        }
                    }
                }
                for (m, load) in (0..5).zip(model) {
                    prop_assert_eq!(selection.in_flight(&node(m)), load.0);
                }
            }
        }
    }
}
