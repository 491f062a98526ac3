//! Points in time. Nothing here reads a clock: a node asks its `Env`, and what
//! decides is handed `now`.

use std::{
    fmt,
    ops::{Add, Sub},
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// A point on one node's monotonic clock. Only meaningful on that node, in one life of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono {
    /// Nanoseconds since an unspecified start.
    ns: u64,
}

impl Mono {
    /// Start of the clock.
    pub const ZERO: Self = Self { ns: 0 };

    /// Returns the point this many nanoseconds after the clock's start.
    #[must_use]
    pub const fn from_ns(ns: u64) -> Self {
        Self { ns }
    }

    /// Nanoseconds since the clock's start.
    #[must_use]
    pub const fn as_ns(self) -> u64 {
        self.ns
    }

    /// Returns the time since `earlier`; zero when it lies ahead.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.ns.saturating_sub(earlier.ns))
    }
}

impl Add<Duration> for Mono {
    type Output = Self;

    /// Saturates: a deadline too far to count is never reached.
    fn add(self, by: Duration) -> Self {
        let by = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        Self { ns: self.ns.saturating_add(by) }
    }
}

impl Sub<Duration> for Mono {
    type Output = Self;

    /// Saturates at the clock's start.
    fn sub(self, by: Duration) -> Self {
        let by = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        Self { ns: self.ns.saturating_sub(by) }
    }
}

/// A point on a wall clock: milliseconds since the Unix epoch. May jump, may be wrong.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Wall {
    /// Milliseconds since the Unix epoch.
    pub ms: u64,
}

impl Wall {
    /// Returns the time since `earlier`; zero when it lies ahead.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.ms.saturating_sub(earlier.ms))
    }
}

impl fmt::Display for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.ms)
    }
}
