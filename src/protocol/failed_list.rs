//! Failed list of a master: workers that get no work from it until they register again or the
//! list is swept.
//!
//! ```text
//!   list ──► listed ──► remove (registered again) ──► remembered ──► forgotten
//!               └────── sweep (every interval) ──────────┘
//! ```
//!
//! 1. A listed worker stays listed until [`FailedList::remove`] or a sweep.
//! 2. Sweeps fall on a fixed beat, so no worker is listed longer than one interval.
//! 3. The number of times that a worker was listed is kept until a sweep finds that it was not
//!    listed in the interval before. Its delay before it may return is 1 s, doubling to 4 s.
//! 4. At most `entries_max` workers are listed or remembered.

use std::{collections::BTreeMap, time::Duration};

use crate::model::{
    ids::{NodeId, Registration},
    time::Mono,
};

/// Delay before a worker that is listed for the first time may return.
const RETRY_MIN: Duration = Duration::from_secs(1);
/// Longest delay before a listed worker may return.
const RETRY_MAX: Duration = Duration::from_secs(4);

/// Entry of a listed worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Registration that failed.
    pub registration: Registration,
    /// Time at which the worker was listed.
    pub since: Mono,
    /// Reason, for people.
    pub why: String,
    /// Number of times the worker was listed, this one included.
    pub times: u32,
}

#[derive(Clone, Debug)]
struct Entry {
    listed: Option<Listed>,
    last: Mono,
    times: u32,
}

/// Result of listing a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// Delay before the worker may return, in milliseconds; goes into its `Close`.
    pub retry_ms: u64,
    /// Worker that was removed early because the list is full.
    pub swept: Option<NodeId>,
}

/// Failed workers of one master.
#[derive(Clone, Debug)]
pub struct FailedList {
    entries: BTreeMap<NodeId, Entry>,
    sweep_at: Mono,
    interval: Duration,
    entries_max: usize,
}

impl FailedList {
    /// Creates an empty list, swept every `interval` from `now` on (at least 1 ms).
    #[must_use]
    pub fn new(now: Mono, interval: Duration, entries_max: usize) -> Self {
        let interval = interval.max(Duration::from_millis(1));
        Self { entries: BTreeMap::new(), sweep_at: now + interval, interval, entries_max }
    }

    /// Lists a worker. A worker that is listed already keeps its entry and is not counted again.
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

    /// Makes room for one more entry: forgets a worker that is not listed, or else removes the
    /// worker that was listed first.
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

    /// Moves the next sweep past `now` if an idle list missed some; the beat stays.
    fn catch_up(&mut self, now: Mono) {
        if self.iter().next().is_none() && now >= self.sweep_at {
            let missed = now.since(self.sweep_at).as_nanos() / self.interval.as_nanos();
            let missed = u32::try_from(missed).unwrap_or(u32::MAX - 1);
            self.sweep_at = self.sweep_at + self.interval * (missed + 1);
        }
    }

    /// Removes a worker that registered again. Returns its entry if it was listed.
    pub fn remove(&mut self, node: &NodeId) -> Option<Listed> {
        self.entries.get_mut(node)?.listed.take()
    }

    /// Returns whether a worker is listed.
    #[must_use]
    pub fn contains(&self, node: &NodeId) -> bool {
        self.entries.get(node).is_some_and(|entry| entry.listed.is_some())
    }

    /// Empties the list if a sweep is due. Returns the workers removed, in the order of ids.
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

    /// Iterates over the listed workers, in the order of ids.
    pub fn iter(&self) -> impl Iterator<Item = (&NodeId, &Listed)> {
        self.entries.iter().filter_map(|(node, entry)| Some((node, entry.listed.as_ref()?)))
    }

    /// Returns the time of the next [`FailedList::sweep`]; `None` while the list is empty.
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
    fn delay_before_return_doubles_from_one_second_to_four() {
        let mut list = FailedList::new(at(0), INTERVAL, 8);
        let mut ways = Vec::new();
        for n in 0..4 {
            ways.push(list.list(at(n), node(1), Registration(n), "silent").retry_ms);
            let listed = list.remove(&node(1)).expect("listed");
            assert_eq!(
                (u64::from(listed.times), listed.since, &*listed.why),
                (n + 1, at(n), "silent")
            );
        }
        assert_eq!(ways, [1000, 2000, 4000, 4000]);
        assert_eq!(list.next_deadline(), None);
    }

    #[test]
    fn sweep_empties_the_list_on_its_beat_and_forgets_workers_not_listed_lately() {
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
    fn full_list_forgets_unlisted_workers_before_it_removes_the_oldest() {
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
        fn listed_worker_stays_until_removed_or_swept(
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
