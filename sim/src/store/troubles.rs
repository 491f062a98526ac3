//! Troubles of the store: writes whose answers never come, that fail, or that others undo; few
//! connections; and a primary that ends in the middle of commits.

use std::{collections::BTreeMap, time::Duration};

use chatchat::store::sqlite::group::Job;
use chatchat_scenarios::fault::Dose;
use dst_world::{FaultId, Rng};

use super::pool::Pool;

/// Effect on a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It is committed, and its caller is not told.
    LostAck,
    /// It fails cleanly: nothing is written, and the caller is told.
    Error,
    /// Its transaction is undone for others that ran beside it, and is repeated.
    Conflict,
}

/// One fault that stands.
#[derive(Debug)]
struct Standing {
    trouble: Trouble,
    dose: Dose,
    rng: Rng,
    /// Writes that it hit.
    hit: u64,
}

/// Promotion whose primary has not ended yet.
#[derive(Debug)]
struct Promotion {
    /// Decides about its last transactions.
    rng: Rng,
    /// Transactions that had no answer when it began.
    before: usize,
}

/// Transaction that was on its way to the standby.
#[derive(Debug)]
pub(super) struct Unconfirmed {
    /// Operations, whose callers are never told.
    pub(super) group: Vec<Job>,
    /// Time at which it began, ms.
    pub(super) began_ms: u64,
}

/// Faults of the store that stand, by their numbers.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    standing: BTreeMap<FaultId, Standing>,
    pools: BTreeMap<FaultId, Pool>,
    promotions: BTreeMap<FaultId, Promotion>,
    /// Transactions that promotions whose primary has ended held.
    held: BTreeMap<FaultId, u64>,
    /// Transactions that the primary has and no standby has confirmed, in their order.
    unconfirmed: Vec<Unconfirmed>,
}

impl Troubles {
    /// Begins a fault of writes, which draws from `rng`.
    pub(super) fn begin(&mut self, fault: FaultId, trouble: Trouble, dose: Dose, rng: Rng) {
        self.standing.insert(fault, Standing { trouble, dose, rng, hit: 0 });
    }

    /// Leaves so many connections, each of which a statement keeps `by` longer.
    pub(super) fn begin_pool(&mut self, fault: FaultId, count: u32, by: Duration) {
        self.pools.insert(fault, Pool::new(count, by));
    }

    /// Has no commit confirmed from now on, until [`Self::promote`], which draws from `rng`.
    pub(super) fn begin_promotion(&mut self, fault: FaultId, rng: Rng) {
        let before = self.unconfirmed.len();
        self.promotions.insert(fault, Promotion { rng, before });
    }

    /// Ends a fault and returns how many operations it hit, or transactions it held. A promotion whose
    /// primary has not ended stands until then.
    pub(super) fn end(&mut self, fault: FaultId) -> u64 {
        if let Some(promotion) = self.promotions.get(&fault) {
            return self.held_since(promotion.before);
        }
        let of_pool = self.pools.remove(&fault).map_or(0, |pool| pool.end());
        let held = self.held.remove(&fault).unwrap_or(of_pool);
        self.standing.remove(&fault).map_or(held, |standing| standing.hit)
    }

    fn held_since(&self, before: usize) -> u64 {
        self.unconfirmed.len().saturating_sub(before) as u64
    }

    /// Returns the pools that are exhausted.
    pub(super) fn pools(&self) -> Vec<Pool> {
        self.pools.values().cloned().collect()
    }

    /// Returns whether the primary of a promotion has not ended yet.
    pub(super) fn is_promoting(&self, fault: FaultId) -> bool {
        self.promotions.contains_key(&fault)
    }

    /// Keeps a transaction that nobody confirms; gives it back if no promotion has begun.
    pub(super) fn hold(&mut self, group: Vec<Job>, began_ms: u64) -> Option<Vec<Job>> {
        if self.promotions.is_empty() {
            return Some(group);
        }
        self.unconfirmed.push(Unconfirmed { group, began_ms });
        None
    }

    /// Ends the primary of all promotions. Returns those of its last transactions that had reached the
    /// standby, in their order, and the number of all: each lacks nothing that was before it.
    pub(super) fn promote(&mut self) -> (Vec<Unconfirmed>, usize) {
        let promotions = std::mem::take(&mut self.promotions);
        for (fault, promotion) in &promotions {
            let held = self.held_since(promotion.before);
            self.held.insert(*fault, held);
        }
        let mut last = std::mem::take(&mut self.unconfirmed);
        let all = last.len();
        for mut promotion in promotions.into_values() {
            last.truncate(promotion.rng.index(last.len() + 1));
        }
        (last, all)
    }

    /// Returns whether this trouble hits the next write.
    pub(super) fn hits(&mut self, wanted: Trouble) -> bool {
        let mut is_hit = false;
        for standing in self.standing.values_mut().filter(|standing| standing.trouble == wanted) {
            let hits = match standing.dose {
                Dose::Rate(rate) => standing.rng.chance(rate),
                Dose::Count(count) => standing.hit < u64::from(count),
            };
            if hits && !is_hit {
                standing.hit += 1;
                is_hit = true;
            }
        }
        is_hit
    }
}

#[cfg(test)]
mod tests {
    use dst_world::Seed;

    use super::*;

    #[test]
    fn dose_bounds_how_many_writes_are_hit() {
        let mut troubles = Troubles::default();
        let rng = || Seed(1).stream("store");
        troubles.begin(0, Trouble::LostAck, Dose::Count(3), rng());
        troubles.begin(1, Trouble::Error, Dose::Rate(0.25), rng());
        let mut count = |wanted| (0..1000).filter(|_| troubles.hits(wanted)).count() as u64;
        assert_eq!(count(Trouble::LostAck), 3);
        let failed = count(Trouble::Error);
        assert!((150..350).contains(&failed), "{failed}");
        assert_eq!((troubles.end(0), troubles.end(1), troubles.end(1)), (3, failed, 0));
        assert!(!troubles.hits(Trouble::Error));
    }

    #[test]
    fn last_transactions_of_a_primary_are_there_up_to_one_of_them() {
        let mut ends = BTreeMap::new();
        for seed in 0..60 {
            let mut troubles = Troubles::default();
            assert!(troubles.hold(Vec::new(), 0).is_some(), "nothing is promoted");
            troubles.begin_promotion(4, Seed(seed).stream("promoted"));
            for began_ms in 1..=3 {
                assert!(troubles.hold(Vec::new(), began_ms).is_none());
            }
            assert!(troubles.is_promoting(4));
            assert_eq!(troubles.end(4), 3, "so far");
            let (there, all) = troubles.promote();
            assert_eq!(all, 3);
            assert!(there.iter().map(|last| last.began_ms).eq(1..=there.len() as u64));
            *ends.entry(there.len()).or_insert(0) += 1;
            assert!(!troubles.is_promoting(4) && troubles.hold(Vec::new(), 5).is_some());
        }
        assert_eq!(ends.len(), 4, "{ends:?}");
    }

    #[test]
    fn promotion_counts_the_transactions_that_it_held() {
        let mut troubles = Troubles::default();
        let rng = || Seed(1).stream("promoted");
        troubles.begin_promotion(4, rng());
        assert!(troubles.hold(Vec::new(), 1).is_none());
        troubles.begin_promotion(5, rng());
        assert!(troubles.hold(Vec::new(), 2).is_none());
        troubles.begin_promotion(6, rng());
        assert_eq!([4, 5, 6].map(|fault| troubles.end(fault)), [2, 1, 0], "it has not ended");
        troubles.promote();
        assert_eq!([4, 5, 6].map(|fault| troubles.end(fault)), [2, 1, 0]);
        assert_eq!([4, 5, 6].map(|fault| troubles.end(fault)), [0; 3], "they are over");
    }
}
