//! Epochs of the store: a restore ends one and begins the next, and nothing else does.
//!
//! 1. The world that carries a restore out says when that was and which epochs it parts. It loses nothing,
//!    so what was told of a board in one epoch holds in the next.
//! 2. Nobody tells of an epoch before it began. Of one that is over, nodes tell until they have heard of
//!    the next one, which faults may put off.

use std::time::Duration;

use chatchat::model::ids::StoreEpoch;

use super::{Evidence, troubles::AFTERMATH};

/// Change of the store's epoch by a restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochChange {
    /// Time of the restore.
    pub at: Duration,
    /// Epoch that ended.
    pub before: StoreEpoch,
    /// Epoch that began.
    pub after: StoreEpoch,
}

/// Epochs that the store had in a run, in order.
pub(super) struct Epochs(Vec<Epoch>);

struct Epoch {
    id: StoreEpoch,
    from: Duration,
    /// End of the epoch, and the time by which all nodes have heard of it; `None` for the last one.
    until: Option<(Duration, Duration)>,
}

impl Epochs {
    pub(super) fn read(evidence: &Evidence<'_>) -> Self {
        let changes = &evidence.store.epoch_changes;
        let first = changes.first().map_or(evidence.store.epoch, |change| change.before);
        let mut epochs = vec![Epoch { id: first, from: Duration::ZERO, until: None }];
        for change in changes {
            if let Some(last) = epochs.last_mut() {
                last.until = Some((change.at, heard_by(evidence, change.at)));
            }
            epochs.push(Epoch { id: change.after, from: change.at, until: None });
        }
        Self(epochs)
    }

    /// Returns the epochs' ids, in order.
    pub(super) fn ids(&self) -> impl Iterator<Item = StoreEpoch> {
        self.0.iter().map(|epoch| epoch.id)
    }

    /// Returns whether the store ever had an epoch.
    pub(super) fn is_known(&self, id: StoreEpoch) -> bool {
        self.ids().any(|known| known == id)
    }

    /// Returns whether the store had an epoch at some time from one time to another.
    pub(super) fn was(&self, id: StoreEpoch, from: Duration, to: Duration) -> bool {
        let is_then = |epoch: &Epoch| {
            epoch.id == id && epoch.from <= to && epoch.until.is_none_or(|(until, _)| until >= from)
        };
        self.0.iter().any(is_then)
    }

    /// Returns whether an epoch had begun by a time.
    pub(super) fn has_begun(&self, id: StoreEpoch, at: Duration) -> bool {
        self.0.iter().any(|epoch| epoch.id == id && epoch.from <= at)
    }

    /// Returns whether a node may tell of an epoch at a time: it has begun, and if it is over, the node
    /// may not have heard of that.
    pub(super) fn may_be_told(&self, id: StoreEpoch, at: Duration) -> bool {
        let is_then = |epoch: &Epoch| {
            epoch.id == id && epoch.from <= at && epoch.until.is_none_or(|(_, heard)| at <= heard)
        };
        self.0.iter().any(is_then)
    }

    /// Returns whether a reader may have had to go on from one epoch to another by a time.
    pub(super) fn is_change(
        &self,
        before: Option<StoreEpoch>,
        after: Option<StoreEpoch>,
        at: Duration,
    ) -> bool {
        after.is_some_and(|after| before.is_some_and(|it| it != after) && self.has_begun(after, at))
    }
}

/// Returns the time by which all nodes have heard of a restore: some time after it, or after the faults
/// that may keep them from the store.
fn heard_by(evidence: &Evidence<'_>, restore: Duration) -> Duration {
    let within = AFTERMATH + evidence.plan.cluster.config.store_poll_interval;
    let mut by = restore + within;
    loop {
        let near = evidence.incidents.iter();
        let near = near.filter(|it| it.from <= by && evidence.end_of(it) >= restore);
        let last = near.map(|it| evidence.end_of(it)).max();
        match last.map(|end| end.saturating_add(within)) {
            Some(later) if later > by => by = later,
            _ => return by,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::fixtures::{EPOCH, Fixture, ms};

    const NEXT: StoreEpoch = StoreEpoch(EPOCH.0 + 1);
    const LAST: StoreEpoch = StoreEpoch(EPOCH.0 + 2);

    #[test]
    fn store_that_is_never_restored_has_one_epoch() {
        Fixture::new().with(|evidence| {
            let epochs = Epochs::read(evidence);
            assert!(epochs.ids().eq([EPOCH]));
            assert!(epochs.was(EPOCH, ms(0), ms(0)) && epochs.may_be_told(EPOCH, ms(60_000)));
            assert!(!epochs.is_known(NEXT) && !epochs.has_begun(NEXT, ms(60_000)));
        });
    }

    #[test]
    fn epoch_lasts_from_one_restore_to_the_next() {
        let mut made = Fixture::new();
        made.restored_at(20_000).restored_at(30_000);
        made.with(|evidence| {
            let epochs = Epochs::read(evidence);
            assert!(epochs.ids().eq([EPOCH, NEXT, LAST]));
            assert_eq!(evidence.store.epoch, LAST);
            let was = |id, from, to| epochs.was(id, ms(from), ms(to));
            assert!(was(EPOCH, 0, 20_000) && !was(EPOCH, 20_001, 60_000));
            assert!(
                was(NEXT, 19_000, 20_000) && !was(NEXT, 0, 19_999) && was(NEXT, 30_000, 31_000)
            );
            assert!(!was(NEXT, 30_001, 31_000) && was(LAST, 30_001, 60_000));
            assert!(epochs.is_change(Some(EPOCH), Some(NEXT), ms(20_000)));
            assert!(!epochs.is_change(Some(EPOCH), Some(NEXT), ms(19_999)), "not yet");
            assert!(!epochs.is_change(Some(NEXT), Some(NEXT), ms(40_000)), "it is the same");
            assert!(!epochs.is_change(None, Some(NEXT), ms(40_000)));
            assert!(!epochs.is_change(Some(EPOCH), None, ms(40_000)));
        });
    }

    #[test]
    fn epoch_that_is_over_may_be_told_until_nodes_have_heard_of_it() {
        let mut made = Fixture::new();
        made.restored_at(20_000);
        let told_until = |made: &Fixture| {
            let told =
                |at: &u64| made.with(|evidence| Epochs::read(evidence).may_be_told(EPOCH, ms(*at)));
            (0..60_000).step_by(500).take_while(told).last()
        };
        assert_eq!(told_until(&made), Some(36_000));
        made.trouble(30_000, 33_000);
        assert_eq!(told_until(&made), Some(49_000), "they may have been kept from the store");
        made.trouble(50_000, 51_000);
        assert_eq!(told_until(&made), Some(49_000), "that was too late");
    }
}
