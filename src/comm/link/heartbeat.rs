//! Whether the peer lives: three points in time and the one timer that judges them.
//!
//! Setting a point costs a store, so that traffic arms no timers: the watch sleeps until the
//! earliest time at which something could be wrong, looks, and sleeps again.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{LinkEnd, LinkLimits};
use crate::{env::Env, model::time::Mono};

/// So many times `silence` may pass until a record that began is whole.
const RECORD_SILENCES_MAX: u32 = 8;

const NEVER: u64 = u64::MAX;

/// A point in time, or none.
#[derive(Debug)]
pub(super) struct Since(AtomicU64);

impl Since {
    const fn none() -> Self {
        Self(AtomicU64::new(NEVER))
    }

    /// Sets it.
    pub(super) fn set(&self, at: Mono) {
        self.0.store(at.as_ns(), Ordering::Relaxed);
    }

    /// Forgets it.
    pub(super) fn clear(&self) {
        self.0.store(NEVER, Ordering::Relaxed);
    }

    fn get(&self) -> Option<Mono> {
        let at = self.0.load(Ordering::Relaxed);
        (at != NEVER).then(|| Mono::from_ns(at))
    }
}

/// What reader and writer note and the watch judges.
#[derive(Debug)]
pub(super) struct Heartbeat {
    /// The last byte came; none while this side does not read.
    pub(super) heard: Since,
    /// The record that is not whole yet began.
    pub(super) record: Since,
    /// The peer last took a byte of what is being written; none while nothing is.
    pub(super) writing: Since,
}

impl Heartbeat {
    /// Of a link that begins now.
    pub(super) fn beginning(now: Mono) -> Self {
        let heartbeat =
            Self { heard: Since::none(), record: Since::none(), writing: Since::none() };
        heartbeat.heard.set(now);
        heartbeat
    }
}

/// Ready when the peer is silent, stalled or never finishes.
pub(super) async fn watch(env: &Env, heartbeat: &Heartbeat, limits: &LinkLimits) -> LinkEnd {
    let silence = limits.silence();
    loop {
        let now = env.now();
        let ends = [
            (heartbeat.heard.get(), silence, LinkEnd::Silent),
            (
                heartbeat.record.get(),
                silence * RECORD_SILENCES_MAX,
                LinkEnd::Broken("a record was never finished".to_owned()),
            ),
            (
                heartbeat.writing.get(),
                limits.stall_timeout,
                LinkEnd::Broken("the peer does not take what is sent".to_owned()),
            ),
        ];
        let mut next = now + silence;
        for (since, bound, end) in ends {
            let Some(at) = since.map(|since| since + bound) else { continue };
            if at <= now {
                return end;
            }
            next = next.min(at);
        }
        env.sleep_until(next).await;
    }
}
