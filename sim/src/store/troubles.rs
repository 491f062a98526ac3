//! Troubles of the store's disk: writes whose answers never come, and writes that fail.

use std::collections::BTreeMap;

use chatchat_scenarios::fault::Dose;
use dst_world::{FaultId, Rng, Seed};

/// Effect on a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It is committed, and its caller is not told.
    LostAck,
    /// It fails cleanly: nothing is written, and the caller is told.
    Error,
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

/// Faults of the store that stand, by their numbers.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    standing: BTreeMap<FaultId, Standing>,
    /// Number of faults begun so far, which labels the draws of the next.
    begun: u64,
}

impl Troubles {
    /// Begins a fault.
    pub(super) fn begin(&mut self, seed: Seed, fault: FaultId, trouble: Trouble, dose: Dose) {
        let rng = seed.stream(&format!("faults/store/{}", self.begun));
        self.begun += 1;
        self.standing.insert(fault, Standing { trouble, dose, rng, hit: 0 });
    }

    /// Ends a fault and returns how many writes it hit.
    pub(super) fn end(&mut self, fault: FaultId) -> u64 {
        self.standing.remove(&fault).map_or(0, |standing| standing.hit)
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
    use super::*;

    #[test]
    fn dose_bounds_how_many_writes_are_hit() {
        let mut troubles = Troubles::default();
        let seed = Seed(1);
        troubles.begin(seed, 0, Trouble::LostAck, Dose::Count(3));
        troubles.begin(seed, 1, Trouble::Error, Dose::Rate(0.25));
        let mut count = |wanted| (0..1000).filter(|_| troubles.hits(wanted)).count() as u64;
        assert_eq!(count(Trouble::LostAck), 3);
        let failed = count(Trouble::Error);
        assert!((150..350).contains(&failed), "{failed}");
        assert_eq!((troubles.end(0), troubles.end(1), troubles.end(1)), (3, failed, 0));
        assert!(!troubles.hits(Trouble::Error));
    }
}
