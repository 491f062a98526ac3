//! Place of a store in its history: whether what is found is still the store that was there before.
//!
//! A store is known by its cluster, and in one epoch its clock never goes back: one whose clock did
//! is an older copy.

use std::sync::{Mutex, PoisonError};

use super::refused;
use crate::model::{absence::AwayReason, ids::StoreEpoch, rows::StoreError};

/// Parameters of a new store: the two numbers that it keeps for good, and the time of its creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewCluster {
    /// Random id of the cluster; cookies and Hellos carry it.
    pub cluster: [u8; 16],
    /// First epoch: Unix seconds in production.
    pub epoch: StoreEpoch,
    /// Store time, ms since the Unix epoch.
    pub now_ms: u64,
}

/// Store that a place has to hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expected {
    /// Any; a new one is made where there is none.
    #[default]
    AnyOrNew,
    /// One that is there already, of whatever cluster.
    Existing,
    /// The one of this cluster.
    Cluster([u8; 16]),
}

/// Place of a store in its history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) cluster: [u8; 16],
    pub(super) epoch: StoreEpoch,
    /// Greatest time of any write.
    pub(super) clock_ms: u64,
}

/// Memory of the store that a process has seen; all its connections share it.
#[derive(Debug)]
pub(super) struct Seen {
    expected: Expected,
    kind: &'static str,
    mark: Mutex<Option<Mark>>,
}

impl Seen {
    /// `kind` names what holds the store, such as `file`.
    pub(super) fn new(expected: Expected, kind: &'static str) -> Self {
        Self { expected, kind, mark: Mutex::new(None) }
    }

    /// Returns the newest mark. A mark read from now on must not be older.
    pub(super) fn newest(&self) -> Option<Mark> {
        *self.mark.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn may_create(&self) -> bool {
        self.expected == Expected::AnyOrNew && self.newest().is_none()
    }

    /// Compares a mark with the newest one from before it was read, and keeps it.
    ///
    /// # Errors
    /// [`StoreError::Away`] when it is of another store than was seen, or older;
    /// [`StoreError::Refused`] when nothing was seen and it is of another cluster than expected.
    pub(super) fn check(&self, before: Option<Mark>, now: Mark) -> Result<(), StoreError> {
        match (before, self.expected) {
            (Some(before), _) if before.cluster != now.cluster => {
                let why = format!("it is that of another cluster now, {}", short(now.cluster));
                return Err(StoreError::away(AwayReason::Replaced, why));
            }
            (Some(before), _) if (now.epoch, now.clock_ms) < (before.epoch, before.clock_ms) => {
                let why = format!(
                    "it is an older copy: it ends {} ms before what was seen of epoch {}; put the \
                     newer {} back",
                    before.clock_ms.saturating_sub(now.clock_ms),
                    before.epoch,
                    self.kind
                );
                return Err(StoreError::away(AwayReason::RolledBack, why));
            }
            (None, Expected::Cluster(ours)) if ours != now.cluster => {
                return Err(refused(format!(
                    "it is the store of cluster {}, and this node belongs to {}; name its own \
                     with --store, or give the node a new --data-dir",
                    short(now.cluster),
                    short(ours)
                )));
            }
            _ => {}
        }
        self.raise(now);
        Ok(())
    }

    /// Keeps a mark of the store, unless a newer one was seen.
    pub(super) fn raise(&self, now: Mark) {
        let mut newest = self.mark.lock().unwrap_or_else(PoisonError::into_inner);
        let is_newer =
            newest.is_none_or(|seen| (now.epoch, now.clock_ms) > (seen.epoch, seen.clock_ms));
        if is_newer {
            *newest = Some(now);
        }
    }

    /// Names what an error of opening means once a store was seen: an operator may put it back.
    pub(super) fn while_running(&self, error: StoreError) -> StoreError {
        if self.newest().is_none() {
            return error;
        }
        match error {
            StoreError::Refused { why } => StoreError::away(AwayReason::Replaced, why),
            StoreError::Broken { why } => StoreError::away(AwayReason::Damaged, why),
            // It is there, but no store was made in it.
            StoreError::Away { reason: AwayReason::Gone, why } => {
                StoreError::away(AwayReason::Replaced, why)
            }
            other => other,
        }
    }
}

/// Returns the beginning of a cluster's id, which tells it from others.
fn short(cluster: [u8; 16]) -> String {
    hex::encode(&cluster[..4])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(cluster: u8, epoch: u64, clock_ms: u64) -> Mark {
        Mark { cluster: [cluster; 16], epoch: StoreEpoch(epoch), clock_ms }
    }

    #[test]
    fn mark_of_another_cluster_or_of_an_earlier_time_is_away() {
        let seen = Seen::new(Expected::AnyOrNew, "file");
        let check = |now| seen.check(seen.newest(), now).map_err(|error| error.away_reason());
        assert!(seen.may_create());
        assert_eq!(check(mark(1, 5, 100)), Ok(()));
        assert!(!seen.may_create(), "a store that was seen is never made again");
        assert_eq!(check(mark(1, 5, 100)), Ok(()));
        assert_eq!(check(mark(1, 5, 99)), Err(Some(AwayReason::RolledBack)));
        assert_eq!(check(mark(1, 4, 200)), Err(Some(AwayReason::RolledBack)));
        assert_eq!(check(mark(2, 6, 200)), Err(Some(AwayReason::Replaced)));
        assert_eq!(check(mark(1, 6, 10)), Ok(()), "a new epoch begins with a backup");
        assert_eq!(check(mark(1, 5, 300)), Err(Some(AwayReason::RolledBack)));
    }

    #[test]
    fn mark_read_beside_a_newer_one_is_no_rollback() {
        let seen = Seen::new(Expected::AnyOrNew, "file");
        seen.check(None, mark(1, 5, 100)).expect("the first");
        let before = seen.newest();
        seen.check(before, mark(1, 5, 200)).expect("by another thread");
        assert_eq!(seen.check(before, mark(1, 5, 150)), Ok(()));
        assert_eq!(seen.newest(), Some(mark(1, 5, 200)));
    }

    #[test]
    fn store_of_another_cluster_is_refused_at_the_start() {
        let seen = Seen::new(Expected::Cluster([1; 16]), "file");
        assert!(!seen.may_create());
        let refused = seen.check(None, mark(2, 5, 100));
        assert!(matches!(refused, Err(StoreError::Refused { .. })), "{refused:?}");
        assert_eq!(seen.newest(), None);
    }
}
