//! Last view of the store's boards, and the times up to which it shows boards to be complete.
//!
//! 1. A view counts for snapshots that began after it was set, and of its epoch: an earlier snapshot may
//!    lack posts that the view found here.

use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError},
};

use super::Replica;
use crate::model::ids::{BoardName, StoreEpoch};

/// View of the store's boards, kept in memory: after a restart the store is polled again.
#[derive(Debug, Default)]
pub(super) struct Observed {
    /// Epoch of the store in which the boards were seen.
    pub(super) epoch: StoreEpoch,
    pub(super) as_of_ms: u64,
    /// Boards that lacked posts at that time.
    pub(super) behind: BTreeSet<BoardName>,
}

impl Observed {
    /// Returns the later of the times that a board's row of this epoch and this view show.
    pub(super) fn as_of(&self, epoch: StoreEpoch, board: &BoardName, shown: u64) -> u64 {
        let counts = self.epoch == epoch && !self.behind.contains(board);
        if counts { shown.max(self.as_of_ms) } else { shown }
    }
}

impl Replica {
    /// Returns the last view. Take it before a snapshot begins.
    pub(super) fn observed(&self) -> Arc<Observed> {
        Arc::clone(&self.observed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the last view.
    pub(super) fn set_observed(&self, observed: Observed) {
        *self.observed.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(observed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn view_counts_for_boards_of_its_epoch_that_were_not_behind() {
        let board = |name: &str| name.parse::<BoardName>().expect("a board's name");
        let behind = BTreeSet::from([board("dev")]);
        let observed = Observed { epoch: StoreEpoch(2), as_of_ms: 90, behind };
        let as_of = |epoch, name| observed.as_of(StoreEpoch(epoch), &board(name), 50);
        assert_eq!([as_of(2, "lobby"), as_of(2, "dev")], [90, 50]);
        assert_eq!([as_of(1, "lobby"), as_of(3, "lobby")], [50, 50], "another life of the store");
        assert_eq!(observed.as_of(StoreEpoch(2), &board("lobby"), 95), 95);
    }
}
