//! Watch over the masters' rows in the store, which decides whether a master is in.
//!
//! Each master touches its row once a second. A reader measures by its own clock how long a row
//! stays unchanged, and never compares clocks.
//!
//! 1. A master is out when a reader saw its `(incarnation, beat)` unchanged for `out_after`, counted
//!    only while the store can be read and takes writes: some other master's row changed. A store
//!    in which nobody can write says nothing about anybody.
//! 2. A master whose row changes again, or appears, is in at once. Without a row it is unknown.
//! 3. A reader that could not read the store for `out_after` knows nothing: it forgets who was out.
//! 4. At most [`MASTERS_MAX`] masters are watched, as many as the store lists.

use std::{collections::BTreeMap, time::Duration};

use crate::model::{
    ids::{Incarnation, NodeId, Registration, Role},
    message::{Fact, Member, MemberState},
    rows::{MASTERS_MAX, MasterRow},
    time::Mono,
};

/// Masters touch their rows once a second; a row that is unchanged for longer may be a dead one's.
const FRESH: Duration = Duration::from_secs(2);

/// Change of a master that a reading of the rows shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MasterChange {
    /// The master appeared, began a new life, or came back after it was out.
    In(NodeId),
    /// The master's row stopped changing.
    Out(NodeId),
    /// The master's row is gone: the master left in this life.
    Gone(NodeId, Incarnation),
}

/// Returns the directory's entry for a master's row.
#[must_use]
pub fn member(row: &MasterRow, state: MemberState) -> Member {
    let fact = Fact {
        node: row.node,
        role: Role::Master,
        registration: Registration(row.incarnation.0),
        state,
        master: row.node,
    };
    let (link, http) = (Some(row.link.clone()), Some(row.http.clone()));
    Member { fact, name: row.name.clone(), link, http, spki: row.spki.clone() }
}

#[derive(Clone, Debug)]
struct Watched {
    row: MasterRow,
    /// Time for which the row is unchanged, without the time in which the store was unreadable.
    unchanged: Duration,
    /// Time since which the master is out.
    out_since: Option<Mono>,
}

/// Masters' rows as one reader sees them.
#[derive(Clone, Debug)]
pub struct MasterWatch {
    masters: BTreeMap<NodeId, Watched>,
    /// Times at which rows were first missing, kept for `out_after`.
    gone: BTreeMap<NodeId, Mono>,
    /// Time of the last reading in which a row had changed; `None` if the store did not answer
    /// since.
    moved_at: Option<Mono>,
    /// Time of the last reading.
    read_at: Option<Mono>,
    out_after: Duration,
}

impl MasterWatch {
    /// Creates a watch without masters. A master is out once its row is unchanged for `out_after`.
    #[must_use]
    pub const fn new(out_after: Duration) -> Self {
        Self {
            masters: BTreeMap::new(),
            gone: BTreeMap::new(),
            moved_at: None,
            read_at: None,
            out_after,
        }
    }

    /// Compares the rows just read with those known. Returns the changes, in the order of ids.
    pub fn on_rows(&mut self, now: Mono, rows: Vec<MasterRow>) -> Vec<MasterChange> {
        let passed = self.passed(now, &rows);
        let mut before = std::mem::take(&mut self.masters);
        let mut changes = Vec::new();
        let mut rows = rows;
        rows.sort_by_key(|row| row.node);
        rows.dedup_by_key(|row| row.node);
        for row in rows.into_iter().take(MASTERS_MAX) {
            let node = row.node;
            let Some(mut known) = before.remove(&node) else {
                changes.push(MasterChange::In(node));
                let fresh = Watched { row, unchanged: Duration::ZERO, out_since: None };
                self.masters.insert(node, fresh);
                continue;
            };
            let is_new_life = row.incarnation > known.row.incarnation;
            if (row.incarnation, row.beat) == (known.row.incarnation, known.row.beat) {
                known.unchanged += passed;
                if known.out_since.is_none() && known.unchanged >= self.out_after {
                    known.out_since = Some(now);
                    changes.push(MasterChange::Out(node));
                }
            } else {
                if is_new_life || known.out_since.is_some() {
                    changes.push(MasterChange::In(node));
                }
                known.unchanged = Duration::ZERO;
                known.out_since = None;
            }
            known.row = row;
            self.masters.insert(node, known);
        }
        self.gone.retain(|_, since| now.since(*since) < self.out_after);
        self.gone.extend(before.keys().map(|node| (*node, now)));
        changes.extend(
            before.into_iter().map(|(node, w)| MasterChange::Gone(node, w.row.incarnation)),
        );
        changes
    }

    /// Returns the time that counts for rows that did not change.
    fn passed(&mut self, now: Mono, rows: &[MasterRow]) -> Duration {
        let before = self.moved_at;
        let moves = before.is_none()
            || rows.iter().any(|row| {
                self.masters.get(&row.node).is_none_or(|known| {
                    (known.row.incarnation, known.row.beat) != (row.incarnation, row.beat)
                })
            });
        self.read_at = Some(now);
        if !moves {
            return Duration::ZERO;
        }
        self.moved_at = Some(now);
        before.map_or(Duration::ZERO, |before| now.since(before).min(self.out_after * 2 / 5))
    }

    /// Notes that the store did not answer. The time until it answers does not count.
    pub fn on_store_away(&mut self, now: Mono) {
        self.moved_at = None;
        if self.read_at.is_none_or(|at| now.since(at) >= self.out_after) {
            for known in self.masters.values_mut() {
                known.unchanged = Duration::ZERO;
                known.out_since = None;
            }
        }
    }

    /// Returns whether any master has a row. Only then does a missing row mean something.
    #[must_use]
    pub fn knows_anyone(&self) -> bool {
        !self.masters.is_empty()
    }

    /// Returns a master's row, whether it is in or out.
    #[must_use]
    pub fn get(&self, node: &NodeId) -> Option<&MasterRow> {
        self.masters.get(node).map(|watched| &watched.row)
    }

    /// Returns whether a master is in.
    #[must_use]
    pub fn is_in(&self, node: &NodeId) -> bool {
        self.masters.get(node).is_some_and(|watched| watched.out_since.is_none())
    }

    /// Returns whether a master's row changed in the last two seconds in which the store could be
    /// read: it writes there now.
    #[must_use]
    pub fn is_fresh(&self, node: &NodeId) -> bool {
        self.masters.get(node).is_some_and(|watched| watched.unchanged < FRESH)
    }

    /// Returns whether a master has been out for at least `by`.
    #[must_use]
    pub fn is_out_for(&self, now: Mono, node: &NodeId, by: Duration) -> bool {
        let since = self.masters.get(node).and_then(|watched| watched.out_since);
        since.is_some_and(|since| now.since(since) >= by)
    }

    /// Returns whether a master has had no row for at least `out_after`, or never had one.
    #[must_use]
    pub fn is_long_gone(&self, now: Mono, node: &NodeId) -> bool {
        !self.masters.contains_key(node)
            && self.gone.get(node).is_none_or(|since| now.since(*since) >= self.out_after)
    }

    /// Iterates over all rows, each with whether its master is in, in the order of ids.
    pub fn rows(&self) -> impl Iterator<Item = (&MasterRow, bool)> {
        self.masters.values().map(|watched| (&watched.row, watched.out_since.is_none()))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(in crate::protocol) fn row(n: u8, incarnation: u64, beat: u64) -> MasterRow {
        MasterRow {
            node: NodeId([n; 16]),
            incarnation: Incarnation(incarnation),
            beat,
            http: String::new(),
            link: format!("m{n}:1"),
            spki: vec![n],
            name: format!("m{n}"),
            draining: false,
            guard: [0; 32],
        }
    }

    const OUT_AFTER: Duration = Duration::from_secs(5);

    fn at(s: u64) -> Mono {
        Mono::ZERO + Duration::from_secs(s)
    }

    /// Row of master 9, which is alive: it changes in every second.
    fn alive(s: u64) -> MasterRow {
        row(9, 1, s + 1)
    }

    #[test]
    fn master_with_an_unchanged_row_is_out_after_five_seconds_and_in_when_it_changes() {
        let mut watch = MasterWatch::new(OUT_AFTER);
        let node = NodeId([1; 16]);
        let read = |watch: &mut MasterWatch, s, of_1: Option<MasterRow>| {
            let mut changes = watch.on_rows(at(s), of_1.into_iter().chain([alive(s)]).collect());
            changes.retain(|change| *change != MasterChange::In(NodeId([9; 16])));
            changes
        };
        assert_eq!(read(&mut watch, 0, Some(row(1, 1, 1))), [MasterChange::In(node)]);
        for s in 1..5 {
            assert_eq!(read(&mut watch, s, Some(row(1, 1, 1))), []);
        }
        assert_eq!(read(&mut watch, 5, Some(row(1, 1, 1))), [MasterChange::Out(node)]);
        assert!(!watch.is_in(&node) && watch.is_out_for(at(9), &node, Duration::from_secs(4)));
        assert_eq!(read(&mut watch, 6, Some(row(1, 1, 2))), [MasterChange::In(node)]);
        assert_eq!(read(&mut watch, 7, Some(row(1, 2, 1))), [MasterChange::In(node)]);
        assert_eq!(read(&mut watch, 8, None), [MasterChange::Gone(node, Incarnation(2))]);
        assert!(!watch.is_long_gone(at(8), &node) && watch.is_long_gone(at(13), &node));
        read(&mut watch, 14, None);
        assert!(watch.is_long_gone(at(14), &node));
        watch.on_rows(at(15), vec![]);
        assert!(!watch.knows_anyone());
    }

    #[test]
    fn store_that_takes_no_writes_makes_nobody_out() {
        let mut watch = MasterWatch::new(OUT_AFTER);
        let rows = |beat| vec![row(1, 1, beat), row(2, 1, beat)];
        for s in 0..10 {
            watch.on_rows(at(s), rows(s));
        }
        // Somebody holds the write lock for 14 s; reads go on.
        for s in 10..24 {
            assert_eq!(watch.on_rows(at(s), rows(9)), [], "second {s}");
        }
        // One of them is first when it ends.
        assert_eq!(watch.on_rows(at(24), vec![row(1, 1, 10), row(2, 1, 9)]), []);
        assert_eq!(watch.on_rows(at(25), vec![row(1, 1, 11), row(2, 1, 10)]), []);
        assert!(watch.rows().all(|(_, is_in)| is_in));
    }

    #[test]
    fn time_in_which_the_store_is_away_does_not_count() {
        let mut watch = MasterWatch::new(OUT_AFTER);
        for s in 0..=4 {
            watch.on_rows(at(s), vec![row(1, 1, 1), alive(s)]);
        }
        watch.on_store_away(at(5));
        assert_eq!(watch.on_rows(at(8), vec![row(1, 1, 1), alive(8)]), []);
        assert_eq!(watch.on_rows(at(9), vec![row(1, 1, 1), alive(9)]).len(), 1);
    }

    #[test]
    fn standing_older_than_the_last_reading_by_the_bound_is_forgotten() {
        let mut watch = MasterWatch::new(OUT_AFTER);
        for s in 0..=5 {
            watch.on_rows(at(s), vec![row(1, 1, 1), alive(s)]);
        }
        assert!(!watch.is_in(&NodeId([1; 16])));
        watch.on_store_away(at(8));
        assert!(!watch.is_in(&NodeId([1; 16])), "a moment tells nothing new");
        watch.on_store_away(at(10));
        assert!(watch.is_in(&NodeId([1; 16])), "it may have come back since");
        let rows = vec![row(1, 1, 1), alive(11)];
        assert_eq!(watch.on_rows(at(11), rows), [], "and is judged from now on");
    }

    proptest! {
        /// Against a model that sums the time since each row's last change in which the store was
        /// read and showed another row's change.
        #[test]
        fn master_is_out_when_counted_time_since_its_last_change_reaches_the_bound(
            steps in proptest::collection::vec((0..3_u64, any::<bool>(), any::<bool>()), 1..60),
        ) {
            let mut watch = MasterWatch::new(OUT_AFTER);
            let (mut now, mut beat, mut still) = (at(0), 0, None);
            let (mut readable, mut read_at) = (false, None);
            for (nth, (pass, moves, reads)) in steps.into_iter().enumerate() {
                let pass = Duration::from_secs(pass);
                now = now + pass;
                beat += u64::from(moves);
                if !reads {
                    watch.on_store_away(now);
                    readable = false;
                    if read_at.is_none_or(|at| now.since(at) >= OUT_AFTER) {
                        still = still.map(|(of, _)| (of, Duration::ZERO));
                    }
                    continue;
                }
                watch.on_rows(now, vec![row(1, 1, beat), alive(nth as u64)]);
                let counted = if readable { pass } else { Duration::ZERO };
                still = match still {
                    Some((of, by)) if of == beat => Some((of, by + counted)),
                    _ => Some((beat, Duration::ZERO)),
                };
                (readable, read_at) = (true, Some(now));
                let out = still.is_some_and(|(_, by)| by >= OUT_AFTER);
                prop_assert_eq!(watch.is_in(&NodeId([1; 16])), !out);
            }
        }
    }
}
