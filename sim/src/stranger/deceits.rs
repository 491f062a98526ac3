//! Deceits of those who pass for a member or for a master, and the ends that they came to.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use chatchat::model::ids::NodeId;

use super::forger::Guise;

/// Deceit that was believed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Believed {
    /// A master welcomed an impostor.
    Welcomed {
        /// Machine of the master.
        by: String,
        /// Machine of the member whose guard or public key it had.
        member: String,
        /// Pretence of the impostor.
        guise: Guise,
    },
    /// A node went on with a fake master.
    Followed(NodeId),
}

/// Deceits of one run so far.
#[derive(Debug, Default)]
pub(crate) struct Deceits {
    /// Number of times that a master refused a member's guard under another key.
    refused: AtomicU64,
    /// Number of times that a node turned away from a fake master.
    turned_away: AtomicU64,
    believed: Mutex<BTreeSet<Believed>>,
}

impl Deceits {
    /// Notes that a master refused a member's guard under another key.
    pub(crate) fn on_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that a node turned away from a fake master.
    pub(crate) fn on_turned_away(&self) {
        self.turned_away.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes a deceit that was believed.
    pub(crate) fn on_believed(&self, deceit: Believed) {
        self.set().insert(deceit);
    }

    /// Returns how often masters saw through an impostor, and nodes through a fake master.
    pub(crate) fn seen_through(&self) -> [u64; 2] {
        [&self.refused, &self.turned_away].map(|count| count.load(Ordering::Relaxed))
    }

    /// Returns the deceits that were believed, each once, in order.
    pub(crate) fn believed(&self) -> Vec<Believed> {
        self.set().iter().cloned().collect()
    }

    fn set(&self) -> MutexGuard<'_, BTreeSet<Believed>> {
        self.believed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
