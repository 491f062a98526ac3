//! The root seed and its labelled sub-streams.
//!
//! Each consumer draws from a stream of its own name, so that one consumer's draws never move
//! another's: a plan without one fault still meets the same network.

use hkdf::Hkdf;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use sha2::Sha256;

/// What a whole run follows from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(pub u64);

impl Seed {
    /// 32 bytes that belong to a label: HKDF-SHA-256 over the seed.
    #[must_use]
    pub fn bytes(self, label: &str) -> [u8; 32] {
        let mut out = [0; 32];
        Hkdf::<Sha256>::new(Some(b"chatchat-sim/v1"), &self.0.to_le_bytes())
            .expand(label.as_bytes(), &mut out)
            .expect("32 bytes are within what HKDF gives");
        out
    }

    /// The stream of a label.
    #[must_use]
    pub fn stream(self, label: &str) -> Draws {
        Draws(ChaCha8Rng::from_seed(self.bytes(label)))
    }

    /// The seed of madsim's scheduler.
    #[must_use]
    pub fn scheduler(self) -> u64 {
        self.stream("scheduler").word()
    }
}

/// Draws from one sub-stream.
#[derive(Clone, Debug)]
pub struct Draws(ChaCha8Rng);

impl Draws {
    /// Any word.
    pub fn word(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `end`; 0 when `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        // The bias is at most end / 2^64.
        u64::try_from((u128::from(self.word()) * u128::from(end)) >> 64)
            .expect("a product's upper word is a word")
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low).saturating_add(1))
    }

    /// True `nth` times of `of`.
    pub fn chance(&mut self, nth: u64, of: u64) -> bool {
        self.below(of) < nth
    }

    /// An index below `end`; 0 when `end` is 0.
    pub fn index(&mut self, end: usize) -> usize {
        usize::try_from(self.below(end as u64)).expect("below a usize")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_seeds_give_streams_of_their_own() {
        let word = |seed, label| Seed(seed).stream(label).word();
        assert_eq!(word(7, "network"), word(7, "network"));
        assert_ne!(word(7, "network"), word(7, "faults"));
        assert_ne!(word(7, "network"), word(8, "network"));
    }

    #[test]
    fn draws_stay_within_their_bounds() {
        let mut draws = Seed(1).stream("bounds");
        let mut seen = [false; 3];
        for _ in 0..100 {
            let at = draws.between(5, 7);
            seen[usize::try_from(at - 5).expect("small")] = true;
            assert!(draws.below(1) == 0 && draws.below(0) == 0);
        }
        assert_eq!(seen, [true; 3]);
    }
}
