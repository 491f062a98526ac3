//! Settings of a run, and its progress as other threads see it.

use std::sync::{Arc, atomic::AtomicU64};

use dst_env::rng::Seed;

use crate::log::Detail;

/// Progress of a run, readable from another thread.
#[derive(Debug, Default)]
pub struct Progress {
    /// Virtual time, ms.
    pub virtual_ms: AtomicU64,
    /// Lines in the event log.
    pub events: AtomicU64,
}

/// Settings of one run.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Root seed.
    pub seed: Seed,
    /// Detail of the event log.
    pub detail: Detail,
    /// Updated while the run goes on.
    pub progress: Arc<Progress>,
}

impl Setup {
    /// Settings for a seed, with the event log at [`Detail::Events`].
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed: Seed(seed), detail: Detail::Events, progress: Arc::default() }
    }
}
