//! Repair of the sessions in a node database: digests of all buckets are compared with the store's,
//! or with another copy's while the store is away, and the pages of buckets that differ are merged.
//!
//! 1. The store is the truth: an open session that it lacks has ended, unless this copy heard of it
//!    after the page was asked for.
//! 2. Between copies nothing is forgotten: a log-out that one of them knows wins, and a session that
//!    one of them knows is taken over.
//! 3. A session that is remembered as closed never opens again.
//! 4. Copies of two epochs take nothing from each other. One that knows no epoch takes sessions from any
//!    copy, and learns the epoch from the store or a master.
//! 5. One round runs at a time. It repairs at most [`BUCKETS_PER_ROUND`] buckets; equal digests end it
//!    after one message. The next round begins behind the last of them: buckets that differ again and again
//!    keep no other one waiting.

use std::{collections::BTreeMap, time::Duration};

use crate::model::{
    copies::{BUCKETS, SessionDigests, SessionEntry, SessionPage, SessionRoom, keys_of},
    ids::{SessionKey, StoreEpoch},
    message::Update,
    time::Mono,
};

/// Shortest time between two rounds; up to half of it is added by chance.
pub const REPAIR_INTERVAL: Duration = Duration::from_secs(2);
/// Time until the next round after one that left something to do or could not begin.
const SOON: Duration = Duration::from_millis(250);
/// Most buckets that are repaired in one round.
pub const BUCKETS_PER_ROUND: usize = 64;

/// Schedule of the rounds.
#[derive(Clone, Debug)]
pub struct SessionRepair {
    next: Mono,
    is_running: bool,
    start: RoundStart,
}

/// Beginning of a round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoundStart {
    /// Number of the round: other copies take turns.
    pub turn: u32,
    /// Bucket that comes first.
    pub from: u8,
}

impl SessionRepair {
    /// Returns a schedule whose first round is due now.
    #[must_use]
    pub const fn new(now: Mono) -> Self {
        Self { next: now, is_running: false, start: RoundStart { turn: 0, from: 0 } }
    }

    /// Brings the next round forward.
    pub const fn hurry(&mut self, now: Mono) {
        self.next = now;
    }

    /// Begins the next round if it is due; then call [`SessionRepair::on_ended`]. `draw` is a random
    /// number for the wait after it.
    pub fn begin(&mut self, now: Mono, draw: u64) -> Option<RoundStart> {
        if self.is_running || now < self.next {
            return None;
        }
        self.is_running = true;
        self.start.turn = self.start.turn.wrapping_add(1);
        let most_ms = u64::try_from(REPAIR_INTERVAL.as_millis() / 2).unwrap_or(u64::MAX);
        self.next = now + REPAIR_INTERVAL + Duration::from_millis(draw % (most_ms + 1));
        Some(self.start)
    }

    /// Ends a round: `goes_on` if there is more to do at once, `next` is the bucket behind the last one that
    /// it came to, if it came to any.
    pub fn on_ended(&mut self, now: Mono, goes_on: bool, next: Option<u8>) {
        self.is_running = false;
        self.start.from = next.unwrap_or(self.start.from);
        if goes_on {
            self.next = now + SOON;
        }
    }

    /// Returns the time at which the next round is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Mono> {
        (!self.is_running).then_some(self.next)
    }
}

/// Source that a copy is repaired from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The store. What stands at or behind `since` in this copy's order of writes was written after
    /// the store was asked.
    Store {
        /// Place in the order of writes.
        since: u64,
    },
    /// Another node database.
    Copy,
}

/// Returns whether a copy may be repaired from another one, by their epochs.
#[must_use]
pub fn are_comparable(ours: StoreEpoch, theirs: StoreEpoch) -> bool {
    ours == StoreEpoch(0) || ours == theirs
}

/// Returns the buckets in which a copy differs from its source. None if their epochs forbid the repair: the
/// store's boards show first that its epoch is another one.
#[must_use]
pub fn differing(ours: &SessionDigests, theirs: &SessionDigests, source: Source) -> Vec<u8> {
    let is_whole = theirs.open.len() == BUCKETS && theirs.closed.len() == BUCKETS;
    let is_fit = match source {
        Source::Store { .. } => ours.epoch == theirs.epoch,
        Source::Copy => are_comparable(ours.epoch, theirs.epoch),
    };
    if !is_fit || !is_whole {
        return Vec::new();
    }
    let differs = |bucket: &u8| {
        let nth = usize::from(*bucket);
        ours.open[nth] != theirs.open[nth]
            || source == Source::Copy && ours.closed[nth] != theirs.closed[nth]
    };
    (0..=u8::MAX).filter(differs).collect()
}

/// Returns those of the buckets that one round repairs, the one at `from` or behind it first. `buckets` are
/// in the order of numbers.
#[must_use]
pub fn of_round(mut buckets: Vec<u8>, from: u8) -> Vec<u8> {
    let before = buckets.partition_point(|bucket| *bucket < from);
    buckets.rotate_left(before);
    buckets.truncate(BUCKETS_PER_ROUND);
    buckets
}

/// Returns what this copy has to write so that it holds the source's page. `local` are its own
/// sessions from `after` to the page's end, each with its place in the order of writes; sessions that are new
/// here are taken as far as there is `room`.
#[must_use]
pub fn merge(
    (bucket, after): (u8, Option<SessionKey>),
    page: SessionPage,
    local: Vec<(u64, SessionEntry)>,
    source: Source,
    mut room: SessionRoom,
) -> Vec<Update> {
    let mut local: BTreeMap<_, _> =
        local.into_iter().map(|(place, entry)| (entry.key(), (place, entry))).collect();
    let (first, last) = keys_of(bucket);
    let mut updates = Vec::new();
    for entry in page.entries {
        let key = entry.key();
        if key < first || key > last || after.is_some_and(|after| key <= after) {
            continue;
        }
        let known = local.remove(&key).map(|(_, entry)| entry);
        let update = match (entry, known) {
            (_, Some(SessionEntry::Closed(_))) => continue,
            (SessionEntry::Open(row), Some(SessionEntry::Open(known))) if row == known => continue,
            (entry, None) if !room.take(&entry) => continue,
            (SessionEntry::Open(row), _) => Update::Session(row),
            (SessionEntry::Closed(key), _) => Update::SessionClosed(key),
        };
        updates.push(update);
    }
    if let Source::Store { since } = source {
        let ended = local.into_values().filter_map(|(place, entry)| match entry {
            SessionEntry::Open(row) if place < since => Some(Update::SessionClosed(row.key)),
            _ => None,
        });
        updates.extend(ended);
    }
    updates
}

#[cfg(test)]
mod tests;
