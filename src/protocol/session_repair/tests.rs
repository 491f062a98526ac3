use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::model::{
    copies::closed_digest,
    ids::{Author, BoardName, Seq, UserId},
    rows::SessionRow,
};

const EPOCH: StoreEpoch = StoreEpoch(7);
/// Sessions in a page: few, so that buckets have several.
const PAGE: usize = 2;

fn key(n: u8) -> SessionKey {
    let mut key = [n; 32];
    key[0] = n % 3;
    SessionKey(key)
}

fn row(n: u8, mark: u64) -> SessionRow {
    let user = Author { id: UserId([n; 16]), name: "Ada".parse().expect("a name") };
    let read_marks = (mark > 0).then(|| (BoardName::lobby(), Seq(mark)));
    SessionRow { key: key(n), user, read_marks: read_marks.into_iter().collect() }
}

fn open(n: u8, mark: u64) -> SessionEntry {
    SessionEntry::Open(row(n, mark))
}

fn closed(n: u8) -> SessionEntry {
    SessionEntry::Closed(key(n))
}

/// Returns room for so many sessions of either kind.
fn room(of_each: u64) -> SessionRoom {
    SessionRoom { open: of_each, closed: of_each }
}

/// Copy that writes as a node database does.
#[derive(Clone, Debug, Default, PartialEq)]
struct Sessions {
    rows: BTreeMap<SessionKey, (u64, SessionEntry)>,
    next: u64,
}

impl Sessions {
    fn of(entries: impl IntoIterator<Item = SessionEntry>) -> Self {
        let mut it = Self::default();
        for entry in entries {
            it.write(match entry {
                SessionEntry::Open(row) => Update::Session(row),
                SessionEntry::Closed(key) => Update::SessionClosed(key),
            });
        }
        it
    }

    fn write(&mut self, update: Update) {
        let place = self.next;
        self.next += 1;
        match update {
            Update::Session(mut row) => match self.rows.get(&row.key) {
                Some((_, SessionEntry::Closed(_))) => {}
                Some((_, SessionEntry::Open(known))) => {
                    let mark = |row: &SessionRow| row.read_marks.first().map_or(0, |m| m.1.0);
                    if mark(known) > mark(&row) {
                        row.read_marks = known.read_marks.clone();
                    }
                    self.rows.insert(row.key, (place, SessionEntry::Open(row)));
                }
                None => {
                    self.rows.insert(row.key, (place, SessionEntry::Open(row)));
                }
            },
            Update::SessionClosed(key) => {
                self.rows.insert(key, (place, SessionEntry::Closed(key)));
            }
            other => panic!("{other:?}"),
        }
    }

    fn digests(&self) -> SessionDigests {
        let mut digests = SessionDigests::empty(EPOCH);
        for (key, (_, entry)) in &self.rows {
            match entry {
                SessionEntry::Open(row) => digests.open[usize::from(key.0[0])] ^= row.digest(),
                SessionEntry::Closed(key) => {
                    digests.closed[usize::from(key.0[0])] ^= closed_digest(key);
                }
            }
        }
        digests
    }

    fn local(
        &self,
        bucket: u8,
        after: Option<SessionKey>,
        to: Option<SessionKey>,
    ) -> Vec<(u64, SessionEntry)> {
        let is_in = |key: &SessionKey| {
            key.0[0] == bucket
                && after.is_none_or(|after| *key > after)
                && to.is_none_or(|to| *key <= to)
        };
        let found = self.rows.iter().filter(|(key, _)| is_in(key));
        found.map(|(_, found)| found.clone()).collect()
    }

    fn page(&self, bucket: u8, after: Option<SessionKey>) -> SessionPage {
        let all = self.local(bucket, after, None);
        let entries: Vec<_> = all.iter().take(PAGE).map(|(_, entry)| entry.clone()).collect();
        let next = entries.last().filter(|_| entries.len() < all.len()).map(SessionEntry::key);
        SessionPage { entries, next }
    }

    /// Makes one round of repairs.
    fn repair(&mut self, from: &Self, is_store: bool) {
        let source = if is_store { Source::Store { since: self.next } } else { Source::Copy };
        for bucket in differing(&self.digests(), &from.digests(), source) {
            let mut after = None;
            loop {
                let page = from.page(bucket, after);
                let next = page.next;
                let local = self.local(bucket, after, next);
                for update in merge((bucket, after), page, local, source, room(u64::MAX)) {
                    self.write(update);
                }
                after = next;
                if after.is_none() {
                    break;
                }
            }
        }
    }

    fn entries(&self) -> BTreeMap<SessionKey, SessionEntry> {
        self.rows.iter().map(|(key, (_, entry))| (*key, entry.clone())).collect()
    }

    fn opened(&self) -> BTreeSet<SessionKey> {
        let is_open = |entry: &SessionEntry| matches!(entry, SessionEntry::Open(_));
        self.rows.values().filter(|(_, e)| is_open(e)).map(|(_, e)| e.key()).collect()
    }
}

#[test]
fn round_is_due_after_the_interval_and_sooner_while_there_is_more() {
    let at = |ms| Mono::ZERO + Duration::from_millis(ms);
    let mut repair = SessionRepair::new(at(0));
    assert_eq!(repair.begin(at(0), 300), Some(RoundStart { turn: 1, from: 0 }));
    assert_eq!((repair.begin(at(9000), 0), repair.next_deadline()), (None, None));
    repair.on_ended(at(100), false, Some(64));
    assert_eq!((repair.next_deadline(), repair.begin(at(2299), 0)), (Some(at(2300)), None));
    assert_eq!(repair.begin(at(2300), 0), Some(RoundStart { turn: 2, from: 64 }));
    repair.on_ended(at(2400), true, None);
    assert_eq!(repair.next_deadline(), Some(at(2650)));
    assert_eq!(repair.begin(at(2650), 0), Some(RoundStart { turn: 3, from: 64 }));
}

#[test]
fn round_begins_at_its_bucket_and_comes_to_those_before_it_last() {
    assert_eq!(of_round(vec![1, 5, 9, 200], 6), [9, 200, 1, 5]);
    assert_eq!(of_round(vec![1, 5, 9, 200], 9), [9, 200, 1, 5]);
    assert_eq!(of_round(vec![1, 5], 201), [1, 5]);
    assert_eq!(of_round(Vec::new(), 7), [0_u8; 0]);
    let most = of_round((0..=u8::MAX).collect(), 250);
    assert_eq!((most.len(), most[0], most[63]), (BUCKETS_PER_ROUND, 250, 57));
}

#[test]
fn session_that_the_store_lacks_ends_unless_it_is_newer_than_the_question() {
    let mut copy = Sessions::of([open(3, 0), open(6, 0)]);
    let since = copy.next;
    copy.write(Update::Session(row(9, 0)));
    let empty = SessionPage { entries: Vec::new(), next: None };
    let store = Source::Store { since };
    let ended = merge((0, None), empty.clone(), copy.local(0, None, None), store, room(9));
    assert_eq!(ended, [Update::SessionClosed(key(3)), Update::SessionClosed(key(6))]);
    assert_eq!(merge((0, None), empty, copy.local(0, None, None), Source::Copy, room(9)), []);
}

#[test]
fn page_is_taken_only_as_far_as_there_is_room_and_only_of_its_bucket() {
    let page = |entries: Vec<_>| SessionPage { entries, next: None };
    let offered = page(vec![open(1, 0), open(3, 0), open(6, 0), closed(9)]);
    let taken = merge((0, None), offered.clone(), Vec::new(), Source::Copy, room(2));
    assert_eq!(taken, [Update::Session(row(3, 0)), Update::Session(row(6, 0))]);
    let known = vec![(0, open(9, 0))];
    let taken = merge((0, Some(key(6))), offered, known, Source::Copy, room(0));
    assert_eq!(taken, [Update::SessionClosed(key(9))]);
}

#[test]
fn open_sessions_have_the_room_of_closed_ones_but_not_the_other_way_round() {
    let page = |entries: Vec<_>| SessionPage { entries, next: None };
    let offered = page(vec![closed(3), open(6, 0), closed(9), open(12, 0)]);
    let full = SessionRoom { open: 1, closed: 0 };
    let taken = merge((0, None), offered.clone(), Vec::new(), Source::Copy, full);
    assert_eq!(taken, [Update::Session(row(6, 0))]);
    let taken = merge((0, None), offered, Vec::new(), Source::Copy, room(2));
    let all =
        [Update::SessionClosed(key(3)), Update::Session(row(6, 0)), Update::Session(row(12, 0))];
    assert_eq!(taken, all);
}

#[test]
fn digests_of_another_epoch_or_length_name_no_bucket() {
    let (ours, theirs) = (Sessions::of([open(1, 0)]).digests(), SessionDigests::empty(EPOCH));
    assert_eq!(differing(&ours, &theirs, Source::Copy), [1]);
    let [older, newer] = [6, 8].map(|epoch| SessionDigests::empty(StoreEpoch(epoch)));
    let short = SessionDigests { closed: Vec::new(), ..theirs };
    for theirs in [older, newer, short] {
        assert!(differing(&ours, &theirs, Source::Copy).is_empty());
    }
}

#[test]
fn copy_that_knows_no_epoch_is_repaired_from_any_copy_but_not_from_the_store() {
    let (theirs, none) =
        (Sessions::of([open(1, 0)]).digests(), SessionDigests::empty(StoreEpoch(0)));
    assert_eq!(differing(&none, &theirs, Source::Copy), [1]);
    assert!(differing(&none, &theirs, Source::Store { since: 0 }).is_empty());
    assert!(differing(&theirs, &none, Source::Copy).is_empty());
}

fn entries() -> impl Strategy<Value = Vec<(u8, u64, bool)>> {
    proptest::collection::vec((0..24_u8, 0..4_u64, any::<bool>()), 0..40)
}

fn made(entries: &[(u8, u64, bool)]) -> Sessions {
    Sessions::of(
        entries.iter().map(|(n, mark, ends)| if *ends { closed(*n) } else { open(*n, *mark) }),
    )
}

proptest! {
    /// The store's sessions are open; its log-outs are what the others may remember.
    #[test]
    fn copies_become_equal_to_the_store_and_no_log_out_comes_back(
        store in entries(), first in entries(), second in entries(),
    ) {
        let all = made(&store);
        let store = Sessions::of(all.entries().into_values().filter(|e| matches!(e, SessionEntry::Open(_))));
        for entries in [first, second] {
            // A copy remembers only real log-outs, and no mark above the store's.
            let real: Vec<_> = entries.into_iter().map(|(n, _, ends)| {
                (n, 0, ends && !store.rows.contains_key(&key(n)))
            }).collect();
            let mut copy = made(&real);
            let ended: BTreeSet<_> = copy.rows.keys().filter(|k| !copy.opened().contains(*k)).copied().collect();
            copy.repair(&store, true);
            prop_assert_eq!(copy.digests().open, store.digests().open);
            prop_assert_eq!(copy.opened(), store.opened());
            prop_assert!(copy.opened().is_disjoint(&ended));
            let before = copy.clone();
            copy.repair(&store, true);
            prop_assert_eq!(copy, before, "equal copies write nothing");
        }
    }

    #[test]
    fn copies_become_equal_to_each_other_and_no_log_out_comes_back(
        first in entries(), second in entries(),
    ) {
        let (mut first, mut second) = (made(&first), made(&second));
        let all: BTreeSet<_> = first.rows.keys().chain(second.rows.keys()).copied().collect();
        let open: BTreeSet<_> = first.opened().union(&second.opened()).copied().collect();
        let ended: BTreeSet<_> = [&first, &second].into_iter().flat_map(|copy| {
            let open = copy.opened();
            copy.rows.keys().filter(move |key| !open.contains(*key)).copied().collect::<Vec<_>>()
        }).collect();
        first.repair(&second, false);
        second.repair(&first, false);
        prop_assert_eq!(first.entries(), second.entries());
        prop_assert_eq!(first.digests(), second.digests());
        prop_assert_eq!(first.rows.keys().copied().collect::<BTreeSet<_>>(), all);
        prop_assert_eq!(first.opened(), open.difference(&ended).copied().collect());
    }
}
