//! List of active people as the store told it last, and its versions for streams.
//!
//! ```text
//!   readings of the store ──take──► the newest list ──► windows, answers
//!                                     │ came, left
//!                                     └──due, once a second at most──► the next version
//! ```
//!
//! 1. Versions are numbered without a hole, and at most one is made in [`VERSION_INTERVAL`].
//! 2. Any list that was shown under a version becomes the list of the next one by the change
//!    between them, also if it was newer than its version: a change names everybody who came or
//!    left meanwhile, even for a moment.
//! 3. A change that names more than [`PRESENCE_MAX`] people is not made: a window is shorter. Nor is
//!    one after which the list fits into a window that did not before: readers know a part of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::model::{
    ids::{Author, UserId},
    rows::ActiveUser,
    shared::Shared,
    stream::{PRESENCE_MAX, PresenceChange, PresenceWindow},
    time::Mono,
};

/// Least time between two versions.
pub const VERSION_INTERVAL: Duration = Duration::from_secs(1);

/// New version of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewVersion {
    /// Change since the version before, if it is short enough.
    pub change: Option<Shared<PresenceChange>>,
    /// Window for readers to whom the change says nothing.
    pub window: Shared<PresenceWindow>,
}

/// The newest list, with what changed since its last version.
#[derive(Clone, Debug)]
pub struct ActiveList {
    users: Shared<Vec<ActiveUser>>,
    /// Window of this list, once somebody needed it.
    window: Option<Shared<PresenceWindow>>,
    version: u64,
    /// Greatest length of the list since that version.
    longest: usize,
    /// Earliest time of the next version.
    next_at: Mono,
    came: BTreeMap<UserId, ActiveUser>,
    left: BTreeSet<UserId>,
}

impl ActiveList {
    /// Creates the list without people, version 0.
    #[must_use]
    pub fn new(now: Mono) -> Self {
        Self {
            users: Shared::new(Vec::new()),
            window: None,
            version: 0,
            longest: 0,
            next_at: now,
            came: BTreeMap::new(),
            left: BTreeSet::new(),
        }
    }

    /// Takes a newer reading. Returns whether who is on it, or since when, differs.
    pub fn take(&mut self, users: Vec<ActiveUser>) -> bool {
        let changed = !users.iter().map(shown).eq(self.users.iter().map(shown));
        if changed {
            let by_id = |one| (shown(one).0.id, shown(one));
            let old: BTreeMap<_, _> = self.users.iter().map(by_id).collect();
            let new: BTreeSet<_> = users.iter().map(|one| one.user.id).collect();
            for one in users.iter().filter(|one| old.get(&one.user.id) != Some(&shown(one))) {
                self.left.remove(&one.user.id);
                self.came.insert(one.user.id, one.clone());
            }
            for id in old.keys().filter(|id| !new.contains(*id)) {
                self.came.remove(id);
                self.left.insert(*id);
            }
        }
        self.longest = self.longest.max(users.len());
        self.users = Shared::new(users);
        self.window = None;
        changed
    }

    /// Returns all active people, ordered by name, then id.
    #[must_use]
    pub const fn users(&self) -> &Shared<Vec<ActiveUser>> {
        &self.users
    }

    /// Returns the number of the last version.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// Returns the beginning of the list, for a reader that goes on with the next version.
    pub fn window(&mut self) -> Shared<PresenceWindow> {
        let (version, users) = (self.version, &self.users);
        let window = self.window.get_or_insert_with(|| {
            let first = users.iter().take(PRESENCE_MAX).cloned().collect();
            Shared::new(PresenceWindow { version, count: users.len(), users: first })
        });
        window.clone()
    }

    /// Returns a person's row; one that is not on the list yet is active from now on.
    #[must_use]
    pub fn row_of(&self, person: &Author, now_ms: u64) -> ActiveUser {
        let known = self.users.iter().find(|one| one.user.id == person.id).cloned();
        let new = || ActiveUser { user: person.clone(), since_ms: now_ms, last_seen_ms: now_ms };
        known.unwrap_or_else(new)
    }

    /// Makes the next version if something changed and it is time.
    pub fn due(&mut self, now: Mono) -> Option<NewVersion> {
        if self.next_deadline().is_none_or(|at| now < at) {
            return None;
        }
        self.version += 1;
        self.next_at = now + VERSION_INTERVAL;
        self.window = None;
        let (came, left) = (std::mem::take(&mut self.came), std::mem::take(&mut self.left));
        let longest = std::mem::replace(&mut self.longest, self.users.len());
        let fits_again = longest > PRESENCE_MAX && self.users.len() <= PRESENCE_MAX;
        let is_short = came.len() + left.len() <= PRESENCE_MAX;
        let change = (is_short && !fits_again).then(|| {
            Shared::new(PresenceChange {
                version: self.version,
                count: self.users.len(),
                came: came.into_values().collect(),
                left: left.into_iter().collect(),
            })
        });
        Some(NewVersion { change, window: self.window() })
    }

    /// Returns the time of the next version; `None` while nothing changed.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Mono> {
        (!self.came.is_empty() || !self.left.is_empty()).then_some(self.next_at)
    }
}

/// Returns what of a row makes a version: not the time at which the person was last seen.
const fn shown(one: &ActiveUser) -> (&Author, u64) {
    (&one.user, one.since_ms)
}

#[cfg(test)]
mod tests;
