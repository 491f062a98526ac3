//! Random numbers for simulations and workloads: a root seed and its labelled streams.
//!
//! Each consumer draws from a stream of its own name, so that one consumer's draws never move
//! another's: a plan without one fault still meets the same network. Node code does not use
//! this; it asks [`Env::rng`](crate::Env::rng).
//!
//! 1. The same seed and label give the same numbers, in any process on any machine.
//! 2. Draws from one label never move another's.

use std::time::Duration;

use hkdf::Hkdf;
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng as _, SeedableRng},
};
use sha2::Sha256;

/// Root seed of a whole run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(pub u64);

impl Seed {
    /// Returns the 32 bytes of a label: HKDF-SHA-256 over the seed.
    #[must_use]
    pub fn bytes(self, label: &str) -> [u8; 32] {
        let mut out = [0; 32];
        Hkdf::<Sha256>::new(Some(b"dst-env/v1"), &self.0.to_le_bytes())
            .expand(label.as_bytes(), &mut out)
            .expect("HKDF can give 32 bytes");
        out
    }

    /// Returns the stream of a label, at its start.
    #[must_use]
    pub fn stream(self, label: &str) -> Rng {
        Rng(ChaCha8Rng::from_seed(self.bytes(label)))
    }
}

/// Stream of random numbers with one label.
#[derive(Clone, Debug)]
pub struct Rng(ChaCha8Rng);

impl Rng {
    /// Returns any 64-bit number.
    pub fn word(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Fills a slice with random bytes.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }

    /// Returns a number below `end`; 0 when `end` is 0. The bias is at most `end` / 2^64.
    pub fn below(&mut self, end: u64) -> u64 {
        u64::try_from((u128::from(self.word()) * u128::from(end)) >> 64)
            .expect("the upper half of 128 bits fits 64")
    }

    /// Returns a number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low).saturating_add(1))
    }

    /// Returns a duration from `low` up to, not including, `high`, in whole milliseconds.
    pub fn duration_between(&mut self, low: Duration, high: Duration) -> Duration {
        let span = high.saturating_sub(low).as_millis();
        low + Duration::from_millis(self.below(u64::try_from(span).unwrap_or(u64::MAX)))
    }

    /// Returns an index of a list with `len` entries; 0 when `len` is 0.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).expect("below a usize")
    }

    /// Returns one entry of a list.
    ///
    /// # Panics
    /// When the list is empty.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.index(from.len())]
    }

    /// Returns a number from 0 up to, not including, 1.
    pub fn fraction(&mut self) -> f64 {
        // 53 bits are all that an f64 can tell apart here.
        (self.word() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Returns true with this probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.fraction() < probability
    }

    /// Returns true in `hits` of `of` cases.
    pub fn odds(&mut self, hits: u64, of: u64) -> bool {
        self.below(of) < hits
    }

    /// Returns the time until the next event of a Poisson process with this rate; at least 1 ms.
    pub fn exponential(&mut self, per_second: f64) -> Duration {
        let seconds = -(1.0 - self.fraction()).ln() / per_second.max(1e-6);
        Duration::from_millis((seconds * 1000.0).clamp(1.0, 1e9) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_seeds_give_streams_of_their_own_that_repeat() {
        let words = |seed, label| {
            let mut rng = Seed(seed).stream(label);
            (0..8).map(|_| rng.word()).collect::<Vec<_>>()
        };
        assert_eq!(words(7, "network"), words(7, "network"));
        assert_ne!(words(7, "network"), words(7, "faults"));
        assert_ne!(words(7, "network"), words(8, "network"));
    }

    #[test]
    fn numbers_stay_within_their_bounds_and_reach_all_of_them() {
        let mut rng = Seed(1).stream("bounds");
        let (low, high) = (Duration::from_secs(1), Duration::from_secs(2));
        let mut seen = [false; 3];
        for _ in 0..1000 {
            seen[usize::try_from(rng.between(5, 7) - 5).expect("small")] = true;
            assert!(rng.below(3) < 3 && rng.below(1) == 0 && rng.below(0) == 0);
            assert!((0.0..1.0).contains(&rng.fraction()));
            assert!((low..high).contains(&rng.duration_between(low, high)));
            assert!(rng.exponential(50.0) >= Duration::from_millis(1));
        }
        assert_eq!(seen, [true; 3]);
    }
}
