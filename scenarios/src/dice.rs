//! Randomness from labelled streams of one seed.
//!
//! 1. The same seed and label give the same draws, in any process on any machine.
//! 2. Draws from one label never move another's.

use std::time::Duration;

use chatchat::model::ids::PostId;
use rand_chacha::{
    ChaCha20Rng,
    rand_core::{Rng, SeedableRng},
};
use sha2::{Digest, Sha256};

/// One labelled stream of a seed.
#[derive(Clone, Debug)]
pub struct Dice(ChaCha20Rng);

impl Dice {
    /// The stream of this name.
    #[must_use]
    pub fn new(seed: u64, label: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update(seed.to_le_bytes());
        hash.update(label.as_bytes());
        Self(ChaCha20Rng::from_seed(hash.finalize().into()))
    }

    /// A number below `end`; 0 when `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        // The high half of a 128-bit product: no bias that a story could see.
        let wide = u128::from(self.0.next_u64()) * u128::from(end);
        u64::try_from(wide >> 64).expect("the high half of 128 bits fits 64")
    }

    /// An index of a list with `len` entries.
    ///
    /// # Panics
    /// When the list is empty.
    pub fn index(&mut self, len: usize) -> usize {
        assert!(len > 0, "nothing to choose from");
        usize::try_from(self.below(len as u64)).expect("below a usize")
    }

    /// One of a list that is not empty.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.index(from.len())]
    }

    /// From 0 up to, not including, 1.
    pub fn fraction(&mut self) -> f64 {
        // 53 bits: all that an f64 can tell apart here.
        (self.0.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// True with this probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.fraction() < probability
    }

    /// A duration between the two, in whole milliseconds.
    pub fn between(&mut self, low: Duration, high: Duration) -> Duration {
        let span = high.saturating_sub(low).as_millis();
        low + Duration::from_millis(self.below(u64::try_from(span).unwrap_or(u64::MAX)))
    }

    /// The wait until the next of events that come at this rate, memorylessly; at least 1 ms.
    pub fn wait(&mut self, per_second: f64) -> Duration {
        let seconds = -(1.0 - self.fraction()).ln() / per_second.max(1e-6);
        Duration::from_millis((seconds * 1000.0).clamp(1.0, 1e9) as u64)
    }

    /// A post's id: a version 4 UUID.
    pub fn post_id(&mut self) -> PostId {
        let mut bytes = [0; 16];
        self.0.fill_bytes(&mut bytes);
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        PostId(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_has_draws_of_its_own_that_repeat() {
        let draws = |seed, label| {
            let mut dice = Dice::new(seed, label);
            (0..8).map(|_| dice.below(1_000_000)).collect::<Vec<_>>()
        };
        assert_eq!(draws(1, "faults"), draws(1, "faults"));
        assert_ne!(draws(1, "faults"), draws(1, "workload"));
        assert_ne!(draws(1, "faults"), draws(2, "faults"));
    }

    #[test]
    fn draws_stay_in_their_bounds() {
        let mut dice = Dice::new(7, "bounds");
        let (low, high) = (Duration::from_secs(1), Duration::from_secs(2));
        for _ in 0..1000 {
            assert!(dice.below(3) < 3);
            assert!((0.0..1.0).contains(&dice.fraction()));
            assert!((low..high).contains(&dice.between(low, high)));
            assert!(dice.wait(50.0) >= Duration::from_millis(1));
        }
        assert_eq!(dice.below(0), 0);
        assert!(dice.post_id().to_string().parse::<PostId>().is_ok());
    }
}
