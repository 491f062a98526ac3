//! Corruption: bits of segments that flip on the way and pass TCP's checksum.
//!
//! A segment that is sent again is flipped, or not, by another draw.

use std::collections::BTreeMap;

use dst_env::rng::{Rng, Seed};

use super::FaultId;
use crate::ids::HostId;

/// One fault on one direction.
#[derive(Debug)]
struct Standing {
    ppm: u64,
    rng: Rng,
    /// Segments that it touched.
    touched: u64,
}

/// Corruptions that stand, by direction and fault.
#[derive(Debug)]
pub(crate) struct Corruption {
    seed: Seed,
    standing: BTreeMap<(HostId, HostId, FaultId), Standing>,
}

impl Corruption {
    /// Returns a world in which no bit flips.
    pub(super) const fn new(seed: Seed) -> Self {
        Self { seed, standing: BTreeMap::new() }
    }

    /// Begins to flip bits on one direction, by draws that `label` names.
    pub(super) fn begin(
        &mut self,
        label: &str,
        from: HostId,
        to: HostId,
        fault: FaultId,
        ppm: u64,
    ) {
        let rng = self.seed.stream(&format!("faults/corrupt/{label}"));
        self.standing.insert((from, to, fault), Standing { ppm, rng, touched: 0 });
    }

    /// Ends that and returns how many segments were touched.
    pub(crate) fn end(&mut self, from: HostId, to: HostId, fault: FaultId) -> u64 {
        self.standing.remove(&(from, to, fault)).map_or(0, |standing| standing.touched)
    }

    /// Flips a bit of a segment's bytes, if a fault says so.
    pub(super) fn pass(&mut self, from: HostId, to: HostId, bytes: &mut [u8]) {
        if self.standing.is_empty() || bytes.is_empty() {
            return;
        }
        let here = (from, to, FaultId::MIN)..=(from, to, FaultId::MAX);
        for (_, standing) in self.standing.range_mut(here) {
            if standing.rng.below(1_000_000) < standing.ppm {
                let at = standing.rng.index(bytes.len());
                bytes[at] ^= 1 << standing.rng.below(8);
                standing.touched += 1;
            }
        }
    }
}
