//! Root seed and labelled streams, from the seam.

pub use dst_env::rng::{Rng, Seed};

/// Returns the seed of madsim's scheduler.
pub(crate) fn scheduler(seed: Seed) -> u64 {
    seed.stream("scheduler").word()
}
