//! Messages about common keys that wait for the driver, in order.

use std::collections::VecDeque;

use crate::model::{ids::KeyEpoch, message::KeyInstall, time::Mono};

/// Bound on the messages about keys that wait. A master sends four at most before the first is done.
pub(super) const WAITING_MAX: usize = 8;

/// Message of the master about keys.
pub(super) enum KeyMessage {
    Install(KeyInstall),
    Use(KeyEpoch),
}

/// Messages about keys that are not carried out yet, and the time of the next removal.
#[derive(Default)]
pub(super) struct KeyMessages {
    pub(super) waiting: VecDeque<KeyMessage>,
    /// A key is being verified.
    pub(super) is_busy: bool,
    pub(super) remove_at: Option<Mono>,
}

impl KeyMessages {
    /// Returns when the older key is to be erased.
    pub(super) const fn next_deadline(&self) -> Option<Mono> {
        self.remove_at
    }
}
