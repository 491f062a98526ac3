//! A master's failed list: workers that get nothing from it until they registered again or the
//! list was swept.
//!
//! ```text
//!   list ──► listed ──► remove (registered again) ──► remembered ──► forgotten
//!               └────── sweep (every interval) ──────────┘
//! ```
//!
//! 1. Who is listed stays so until [`FailedList::remove`] or a sweep.
//! 2. Sweeps fall on a fixed beat, so nobody is listed longer than one interval.
//! 3. How often a worker was listed is remembered until a sweep finds that it was not listed in
//!    the interval before; its way back takes 1 s, doubling to 4 s.
//! 4. At most `entries_max` workers are listed or remembered.

use std::{collections::BTreeMap, time::Duration};

use crate::model::{
    ids::{NodeId, Registration},
    time::Mono,
};

/// The way back of a worker listed for the first time.
const RETRY_MIN: Duration = Duration::from_secs(1);
/// The longest way back.
const RETRY_MAX: Duration = Duration::from_secs(4);

/// A worker in the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The registration that failed.
    pub registration: Registration,
    /// Since when.
    pub since: Mono,
    /// What was seen.
    pub why: String,
    /// How often so far.
    pub times: u32,
}

#[derive(Clone, Debug)]
struct Entry {
    listed: Option<Listed>,
    last: Mono,
    times: u32,
}

/// What listing a worker led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// When the worker may come back; goes into its `Close`.
    pub retry_ms: u64,
    /// Who was swept early because the list has no room.
    pub swept: Option<NodeId>,
}

/// One master's failed workers.
#[derive(Clone, Debug)]
pub struct FailedList {
    entries: BTreeMap<NodeId, Entry>,
    sweep_at: Mono,
    interval: Duration,
    entries_max: usize,
}

impl FailedList {
    /// An empty list, swept every `interval` from `now` on. `interval` is not zero.
    #[must_use]
    pub fn new(now: Mono, interval: Duration, entries_max: usize) -> Self {
        let interval = interval.max(Duration::from_millis(1));
        Self { entries: BTreeMap::new(), sweep_at: now + interval, interval, entries_max }
    }

    /// Lists a worker. One that is listed already keeps its place and is not counted again.
    pub fn list(
        &mut self,
        now: Mono,
        node: NodeId,
        registration: Registration,
        why: &str,
    ) -> Listing {
        self.catch_up(now);
        let swept = self.make_room(&node);
        let entry = self.entries.entry(node).or_insert(Entry { listed: None, last: now, times: 0 });
        if entry.listed.is_none() {
            entry.times = entry.times.saturating_add(1);
            entry.last = now;
            let times = entry.times;
            entry.listed = Some(Listed { registration, since: now, why: why.to_owned(), times });
        }
        let doublings = entry.times.saturating_sub(1).min(8);
        let retry = (RETRY_MIN * 2_u32.pow(doublings)).min(RETRY_MAX);
        let retry_ms = u64::try_from(retry.as_millis()).unwrap_or(u64::MAX);
        Listing { retry_ms, swept }
    }

    /// Room for one more: first by forgetting, then by sweeping the oldest early.
    fn make_room(&mut self, node: &NodeId) -> Option<NodeId> {
        if self.entries.len() < self.entries_max || self.entries.contains_key(node) {
            return None;
        }
        let oldest = self
            .entries
            .iter()
            .min_by_key(|(node, entry)| (entry.listed.is_some(), entry.last, **node))
            .map(|(node, _)| *node)?;
        let gone = self.entries.remove(&oldest)?;
        gone.listed.map(|_| oldest)
    }

    /// An idle list misses sweeps; the beat goes on.
    fn catch_up(&mut self, now: Mono) {
        if self.iter().next().is_none() && now >= self.sweep_at {
            let missed = now.since(self.sweep_at).as_nanos() / self.interval.as_nanos();
            let missed = u32::try_from(missed).unwrap_or(u32::MAX - 1);
            self.sweep_at = self.sweep_at + self.interval * (missed + 1);
        }
    }

    /// The worker registered again: what it was listed for, if it was.
    pub fn remove(&mut self, node: &NodeId) -> Option<Listed> {
        self.entries.get_mut(node)?.listed.take()
    }

    /// Whether a worker is listed.
    #[must_use]
    pub fn contains(&self, node: &NodeId) -> bool {
        self.entries.get(node).is_some_and(|entry| entry.listed.is_some())
    }

    /// Empties the list when its time has come; who was in it, in the order of ids.
    pub fn sweep(&mut self, now: Mono) -> Vec<NodeId> {
        if now < self.sweep_at {
            return Vec::new();
        }
        let swept: Vec<_> = self.iter().map(|(node, _)| *node).collect();
        let interval = self.interval;
        self.entries.retain(|_, entry| {
            entry.listed = None;
            now.since(entry.last) <= interval
        });
        self.catch_up(now);
        swept
    }

    /// Who is listed, in the order of ids.
    pub fn iter(&self) -> impl Iterator<Item = (&NodeId, &Listed)> {
        self.entries.iter().filter_map(|(node, entry)| Some((node, entry.listed.as_ref()?)))
    }

    /// When to call [`FailedList::sweep`] next; `None` while nobody is listed.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Mono> {
        self.iter().next().map(|_| self.sweep_at)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(30);

    fn at(s: u64) -> Mono {
        Mono::ZERO + Duration::from_secs(s)
    }

    fn node(n: u8) -> NodeId {
        NodeId([n; 16])
    }

    #[test]
    fn the_way_back_doubles_from_one_second_to_four() {
        let mut list = FailedList::new(at(0), INTERVAL, 8);
        let mut ways = Vec::new();
        for n in 0..4 {
            ways.push(list.list(at(n), node(1), Registration(n), "silent").retry_ms);
            list.remove(&node(1));
        }
        assert_eq!(ways, [1000, 2000, 4000, 4000]);
        assert_eq!(list.next_deadline(), None);
    }

    #[test]
    fn a_sweep_empties_the_list_on_its_beat_and_forgets_the_calm() {
        let mut list = FailedList::new(at(0), INTERVAL, 8);
        list.list(at(70), node(1), Registration(1), "silent");
        assert_eq!(list.next_deadline(), Some(at(90)));
        assert_eq!(list.sweep(at(89)), []);
        assert_eq!(list.sweep(at(90)), [node(1)]);
        assert!(!list.contains(&node(1)));
        assert_eq!(list.list(at(91), node(1), Registration(2), "silent").retry_ms, 2000);
        list.sweep(at(120));
        list.list(at(121), node(2), Registration(2), "silent");
        list.sweep(at(150));
        assert_eq!(list.list(at(151), node(1), Registration(2), "silent").retry_ms, 1000);
    }

    #[test]
    fn a_full_list_forgets_first_and_sweeps_the_oldest_next() {
        let mut list = FailedList::new(at(0), INTERVAL, 2);
        list.list(at(1), node(1), Registration(1), "");
        list.list(at(2), node(2), Registration(1), "");
        list.remove(&node(2));
        assert_eq!(list.list(at(3), node(3), Registration(1), "").swept, None);
        assert_eq!(list.list(at(4), node(4), Registration(1), "").swept, Some(node(1)));
        assert_eq!(list.iter().map(|(node, _)| *node).collect::<Vec<_>>(), [node(3), node(4)]);
    }

    proptest! {
        /// Against a model that is a plain map emptied on a fixed beat.
        #[test]
        fn who_is_listed_stays_until_removed_or_swept(
            steps in proptest::collection::vec((0..20_u64, 0..5_u8, any::<bool>()), 0..60),
        ) {
            let mut list = FailedList::new(at(0), INTERVAL, 99);
            let mut model = std::collections::BTreeSet::new();
            let (mut now, mut beat) = (0, 30);
            for (pass, n, lists) in steps {
                now += pass;
                let due = list.next_deadline().is_some_and(|due| due <= at(now));
                prop_assert_eq!(due, !model.is_empty() && now >= beat);
                let swept = list.sweep(at(now));
                if now >= beat {
                    prop_assert_eq!(swept, model.iter().map(|n| node(*n)).collect::<Vec<_>>());
                    model.clear();
                    beat += (now - beat) / 30 * 30 + 30;
                }
                if lists {
                    list.list(at(now), node(n), Registration(now), "why");
                    model.insert(n);
                } else {
                    prop_assert_eq!(list.remove(&node(n)).is_some(), model.remove(&n));
                }
                prop_assert!(list.iter().map(|(node, _)| *node).eq(model.iter().map(|n| node(*n))));
            }
        }
    }
}
