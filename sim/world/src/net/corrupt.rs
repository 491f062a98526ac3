//! Corruption: bytes of segments that are changed on the way and pass TCP's checksum.
//!
//! 1. Bits flip, or recorded bytes of the same direction take the place of later ones: whole segments,
//!    and beginnings of them, of this connection and of others.
//! 2. A segment that is sent again is changed, or not, by another draw. No length changes.

use std::collections::{BTreeMap, VecDeque};

use dst_env::rng::{Rng, Seed};

use super::FaultId;
use crate::ids::HostId;

/// Bound on the recorded segments of one direction.
const RECORDED_MAX: usize = 64;

/// Way in which bytes are changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// One bit flips.
    Flip,
    /// Bytes that were said before are said again.
    Replay,
}

/// One fault on one direction.
#[derive(Debug)]
struct Standing {
    change: Change,
    ppm: u64,
    rng: Rng,
    /// Newest segments as they were sent, for replays.
    recorded: VecDeque<Vec<u8>>,
    /// Segments that it touched.
    touched: u64,
}

impl Standing {
    /// Changes a segment's bytes, or leaves them.
    fn pass(&mut self, bytes: &mut [u8]) {
        let is_changed = self.rng.below(1_000_000) < self.ppm;
        match self.change {
            Change::Flip if is_changed => {
                let at = self.rng.index(bytes.len());
                bytes[at] ^= 1 << self.rng.below(8);
                self.touched += 1;
            }
            Change::Flip => {}
            Change::Replay => {
                let sent = bytes.to_vec();
                if is_changed && !self.recorded.is_empty() {
                    self.replay(bytes);
                    self.touched += u64::from(*bytes != *sent);
                }
                self.recorded.push_back(sent);
                if self.recorded.len() > RECORDED_MAX {
                    self.recorded.pop_front();
                }
            }
        }
    }

    /// Says recorded bytes again: those of a segment of the same length, which may hold the same
    /// records, or the beginning of any.
    fn replay(&mut self, bytes: &mut [u8]) {
        let alike = self.recorded.iter().filter(|old| old.len() == bytes.len());
        let alike: Vec<&Vec<u8>> = alike.collect();
        let old = if !alike.is_empty() && self.rng.odds(3, 4) {
            alike[self.rng.index(alike.len())]
        } else {
            &self.recorded[self.rng.index(self.recorded.len())]
        };
        let len = old.len().min(bytes.len());
        bytes[..len].copy_from_slice(&old[..len]);
    }
}

/// Corruptions that stand, by direction and fault.
#[derive(Debug)]
pub(crate) struct Corruption {
    seed: Seed,
    standing: BTreeMap<(HostId, HostId, FaultId), Standing>,
}

impl Corruption {
    /// Returns a world in which no byte changes.
    pub(super) const fn new(seed: Seed) -> Self {
        Self { seed, standing: BTreeMap::new() }
    }

    /// Begins to change bytes on one direction, by draws that `label` names.
    pub(super) fn begin(
        &mut self,
        label: &str,
        (from, to, fault): (HostId, HostId, FaultId),
        ppm: u64,
        change: Change,
    ) {
        let rng = self.seed.stream(&format!("faults/corrupt/{label}"));
        let recorded = VecDeque::new();
        self.standing
            .insert((from, to, fault), Standing { change, ppm, rng, recorded, touched: 0 });
    }

    /// Ends that and returns how many segments were touched.
    pub(crate) fn end(&mut self, from: HostId, to: HostId, fault: FaultId) -> u64 {
        self.standing.remove(&(from, to, fault)).map_or(0, |standing| standing.touched)
    }

    /// Changes a segment's bytes, if a fault says so.
    pub(super) fn pass(&mut self, from: HostId, to: HostId, bytes: &mut [u8]) {
        if self.standing.is_empty() || bytes.is_empty() {
            return;
        }
        let here = (from, to, FaultId::MIN)..=(from, to, FaultId::MAX);
        for (_, standing) in self.standing.range_mut(here) {
            standing.pass(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: (HostId, HostId, FaultId) = (HostId(0), HostId(1), 3);

    fn injecting(ppm: u64) -> Corruption {
        let mut corruption = Corruption::new(Seed(1));
        corruption.begin("a/b", HERE, ppm, Change::Replay);
        corruption
    }

    #[test]
    fn injected_bytes_were_all_said_before_at_the_same_place() {
        let mut corruption = injecting(500_000);
        let mut changed = 0;
        for nth in 0..200_u8 {
            let sent = vec![nth; 8 + usize::from(nth % 3)];
            let mut bytes = sent.clone();
            corruption.pass(HERE.0, HERE.1, &mut bytes);
            assert_eq!(bytes.len(), sent.len(), "no length changes");
            assert!(bytes.iter().all(|byte| *byte <= nth), "nobody said {bytes:?}");
            changed += u64::from(bytes != sent);
        }
        assert!((60..140).contains(&changed), "{changed}");
        assert_eq!(corruption.end(HERE.0, HERE.1, HERE.2), changed);
    }

    #[test]
    fn other_directions_and_the_first_segment_are_left_alone() {
        let mut corruption = injecting(1_000_000);
        let mut first = [7; 9];
        corruption.pass(HERE.0, HERE.1, &mut first);
        let mut back = [8; 9];
        corruption.pass(HERE.1, HERE.0, &mut back);
        assert_eq!((first, back), ([7; 9], [8; 9]));
    }
}
