//! Conversion of times and rates into the whole numbers of the world.

use std::time::Duration;

/// Returns a time in nanoseconds; `u64::MAX`, which is 584 years, for a longer one.
#[must_use]
pub fn ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Returns a rate, 0 to 1, as so many of a million.
#[must_use]
pub fn ppm(rate: f64) -> u64 {
    (rate * 1_000_000.0).round() as u64
}
