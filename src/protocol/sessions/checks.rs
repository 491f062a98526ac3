//! Checks of sessions after the store was replaced by another one: what is known here of a session may be of
//! the store before, and the session gone with it.
//!
//! ```text
//!   restart, add ──► waiting ──begin_next──► under way ──on_confirmed──► done
//!                       ▲                        │
//!                       └────────put_off─────────┘ the store did not answer
//! ```
//!
//! 1. Until a store was replaced nothing is checked: there is nothing to doubt.
//! 2. A session is checked again until the store that is there now told of it.
//! 3. At most [`CHECKS_MAX`] are under way: a crowd of open streams leaves the look-ups that people wait for
//!    room. Those that ran when the store was replaced once more, or a session was closed, count no longer.
//! 4. All sessions wait that were in use when the store was replaced, and a bounded number besides.

use std::collections::BTreeSet;

use crate::model::{bounds::LOOKUPS_MAX, ids::SessionKey};

/// Most checks that are under way.
pub(super) const CHECKS_MAX: usize = 16;

const _: () = assert!(CHECKS_MAX <= LOOKUPS_MAX / 4, "checks leave other look-ups room");

/// Sessions that the store has yet to confirm.
#[derive(Debug)]
pub(super) struct Checks {
    waiting: BTreeSet<SessionKey>,
    under_way: BTreeSet<SessionKey>,
    /// Most that wait, those that were under way aside; none before a store was replaced.
    waiting_max: usize,
}

impl Checks {
    pub(super) const fn new() -> Self {
        Self { waiting: BTreeSet::new(), under_way: BTreeSet::new(), waiting_max: 0 }
    }

    /// Begins again with the sessions that are in use; `more` may be added.
    pub(super) fn restart(&mut self, in_use: BTreeSet<SessionKey>, more: usize) {
        self.waiting_max = in_use.len() + more;
        self.waiting = in_use;
        self.under_way.clear();
    }

    /// Adds a session, if there is room and anything to doubt.
    pub(super) fn add(&mut self, key: SessionKey) {
        if self.waiting.len() < self.waiting_max {
            self.waiting.insert(key);
        }
    }

    /// Returns the next session, which is under way from now on.
    pub(super) fn begin_next(&mut self) -> Option<SessionKey> {
        if self.under_way.len() >= CHECKS_MAX {
            return None;
        }
        let key = self.waiting.pop_first()?;
        self.under_way.insert(key);
        Some(key)
    }

    /// Has a session that is under way wait again.
    pub(super) fn put_off(&mut self, key: &SessionKey) {
        if self.under_way.remove(key) {
            self.waiting.insert(*key);
        }
    }

    /// Removes a session of which the store told.
    pub(super) fn on_confirmed(&mut self, key: &SessionKey) {
        self.waiting.remove(key);
        self.under_way.remove(key);
    }
}
