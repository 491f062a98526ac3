//! Check that the peer is alive: three points in time, and one timer that compares them with
//! their limits.
//!
//! Setting a point is one atomic store and arms no timer: the watch sleeps until the earliest
//! time at which a limit could be exceeded, for at most a heartbeat interval, checks, and sleeps again.
//!
//! A watch that sleeps far too long stood still, and perhaps its peer did on the same machine: neither
//! could hear the other. So each point then counts anew, but only once until the peer does something:
//! a side that stands still again and again finds a dead peer, too.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{LinkEnd, LinkLimits};
use crate::{env::Env, model::time::Mono};

/// Limit on the time from a record's first byte to its last, as a multiple of `silence`.
const RECORD_SILENCES_MAX: u32 = 8;

const NEVER: u64 = u64::MAX;

/// Point in time, or none.
#[derive(Debug)]
pub(super) struct Since(AtomicU64);

impl Since {
    const fn none() -> Self {
        Self(AtomicU64::new(NEVER))
    }

    /// Sets the point.
    pub(super) fn set(&self, at: Mono) {
        self.0.store(at.as_ns(), Ordering::Relaxed);
    }

    /// Clears the point.
    pub(super) fn clear(&self) {
        self.0.store(NEVER, Ordering::Relaxed);
    }

    fn get(&self) -> Option<Mono> {
        let at = self.0.load(Ordering::Relaxed);
        (at != NEVER).then(|| Mono::from_ns(at))
    }

    /// Moves the point to now, unless it is still where it was `moved` to before.
    fn move_on(&self, now: Mono, moved: &mut Option<Mono>) {
        if let Some(at) = self.get()
            && *moved != Some(at)
        {
            self.set(now);
            *moved = Some(now);
        }
    }
}

/// Time of the last turn of the task that drives a node. The node's links send heartbeats only
/// while it is fresh: a node whose driver hangs must not look alive.
#[derive(Clone, Debug)]
pub struct DriverStamp(Arc<Since>);

impl Default for DriverStamp {
    /// Returns the stamp of a node whose driver is not watched: it is always fresh.
    fn default() -> Self {
        Self(Arc::new(Since::none()))
    }
}

impl DriverStamp {
    /// Notes a turn of the driver. One is due in each heartbeat interval.
    pub fn set(&self, now: Mono) {
        self.0.set(now);
    }

    /// Ends the watch, for a driver that takes no more turns.
    pub fn clear(&self) {
        self.0.clear();
    }

    /// Returns whether the driver's last turn was less than `limit` ago.
    pub(super) fn is_fresh(&self, now: Mono, limit: Duration) -> bool {
        self.0.get().is_none_or(|at| now.since(at) < limit)
    }
}

/// Points in time that the reader and the writer set and [`watch`] checks.
#[derive(Debug)]
pub(super) struct Heartbeat {
    /// Arrival of the last byte; none while this side does not read.
    pub(super) last_byte: Since,
    /// Start of the record that is still incomplete.
    pub(super) record_start: Since,
    /// Time at which the peer last took a byte of what is being written; none while nothing is.
    pub(super) write_progress: Since,
}

impl Heartbeat {
    /// Makes the points of a link that starts now.
    pub(super) fn beginning(now: Mono) -> Self {
        let heartbeat = Self {
            last_byte: Since::none(),
            record_start: Since::none(),
            write_progress: Since::none(),
        };
        heartbeat.last_byte.set(now);
        heartbeat
    }
}

/// Point in time, the time for which it may stand, and the end of a link on which it stands longer.
type Bounded<'a> = (&'a Since, Duration, fn() -> LinkEnd);

/// Waits until the peer is silent, stalled or has not finished a record in time, and returns
/// that end. Waking a heartbeat interval late or more is a standstill of this side.
pub(super) async fn watch(env: &Env, heartbeat: &Heartbeat, limits: &LinkLimits) -> LinkEnd {
    let silence = limits.silence();
    let points: [Bounded<'_>; 3] = [
        (&heartbeat.last_byte, silence, || LinkEnd::Silent),
        (&heartbeat.record_start, silence * RECORD_SILENCES_MAX, || {
            LinkEnd::Broken("a record was never finished".to_owned())
        }),
        (&heartbeat.write_progress, limits.stall_timeout, || {
            LinkEnd::Broken("the peer does not take what is sent".to_owned())
        }),
    ];
    let mut moved = [None; 3];
    let mut due = env.now();
    loop {
        let now = env.now();
        let stood_still = now.since(due) >= limits.heartbeat_interval;
        // Short sleeps, so that a standstill shows wherever it began.
        due = now + limits.heartbeat_interval;
        for ((point, bound, end), moved) in points.iter().zip(&mut moved) {
            if stood_still {
                point.move_on(now, moved);
            }
            let Some(at) = point.get().map(|since| since + *bound) else { continue };
            if at <= now {
                return end();
            }
            due = due.min(at);
        }
        env.sleep_until(due).await;
    }
}
