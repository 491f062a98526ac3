//! Waits for the monotonic clock of a host.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use dst_env::time::Mono;

use crate::{ids::Life, shared::Shared, timers::TimerId};

/// Wait for a host's monotonic clock.
pub(crate) struct Timer {
    world: Shared,
    life: Life,
    at: Mono,
    id: Option<TimerId>,
}

impl Timer {
    /// Returns a wait of a life until `at`.
    pub(crate) const fn new(world: Shared, life: Life, at: Mono) -> Self {
        Self { world, life, at, id: None }
    }

    /// Returns a wait of a life for this long, ns.
    pub(crate) fn after(world: &Shared, life: Life, ns: u64) -> Self {
        let at = world.with(|state| state.mono(life.host)) + Duration::from_nanos(ns);
        Self::new(world.clone(), life, at)
    }
}

impl Future for Timer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        this.world.with(|state| state.poll_timer(this.life, &mut this.id, this.at, cx))
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if self.id.is_some() {
            let host = self.life.host;
            self.world.with(|state| state.hosts[host.0].drop_timer(&mut self.id));
        }
    }
}
