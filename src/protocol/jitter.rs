//! Jitter of waits: those who fail together do not all try again at once.

use std::time::Duration;

/// Returns a wait between the half of `whole` and `whole`, by a random number. Downwards only: bounds
/// on time count whole waits.
#[must_use]
pub fn jittered(whole: Duration, draw: u64) -> Duration {
    let half = whole / 2;
    let half_ns = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX - 1);
    half + Duration::from_nanos(draw % (half_ns + 1))
}
