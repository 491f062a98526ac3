//! Place of a store in its history: whether what is found is still the store that was there before.
//!
//! 1. A store is known by its cluster, and in one epoch its clock never goes back: one whose clock did
//!    is an older copy.
//! 2. The clock of an older copy goes on once somebody writes to it who saw nothing newer, and passes that of
//!    the newer store. So a mark is *confirmed* only by a node that read the boards and lacked nothing in them.
//! 3. When a node finds that the store lacks something, what was seen since the last confirmed mark may be
//!    of a copy, and counts for nothing. The newer store is then taken back, though its clock is behind.
//! 4. A new connection may be to an older copy, and the first operation on it be any. So a store that ends
//!    before what a node has is given up before it is used, whatever its clock says.
//! 5. Nodes read the boards in each poll, so the confirmed mark is one poll old at most, also at a node that
//!    never writes. A program that never confirms, such as `chatctl`, goes by the newest mark alone.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::{
    OwnEnds,
    own_ends::{OwnEndsOfAll, lack},
    refused,
};
use crate::model::{
    absence::AwayReason,
    ids::StoreEpoch,
    rows::{Boards, StoreError},
};

/// Parameters of a new store: the two numbers that it keeps for good, and the time of its creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewCluster {
    /// Random id of the cluster; cookies and Hellos carry it.
    pub cluster: [u8; 16],
    /// First epoch: Unix seconds in production.
    pub epoch: StoreEpoch,
    /// Store time, ms since the Unix epoch.
    pub now_ms: u64,
}

/// Store that a place has to hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expected {
    /// Any; a new one is made where there is none.
    #[default]
    AnyOrNew,
    /// One that is there already, of whatever cluster.
    Existing,
    /// The one of this cluster.
    Cluster([u8; 16]),
}

/// Place of a store in its history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Its cluster.
    pub cluster: [u8; 16],
    /// Its epoch.
    pub epoch: StoreEpoch,
    /// Greatest time of any write, ms since the Unix epoch.
    pub clock_ms: u64,
}

impl Mark {
    /// Returns the later one of two marks of a cluster.
    fn later(self, other: Self) -> Self {
        let is_later = (other.epoch, other.clock_ms) > (self.epoch, self.clock_ms);
        if is_later { other } else { self }
    }
}

/// Memory of the store that a process has seen; all its connections share it.
#[derive(Debug)]
pub struct Seen {
    expected: Expected,
    kind: &'static str,
    marks: Mutex<Option<Marks>>,
    ends: OwnEndsOfAll,
}

/// Knowledge of the store from before a connection to it was made.
#[derive(Clone, Debug, Default)]
pub struct Before {
    mark: Option<Mark>,
    confirmed: Option<Mark>,
    ends: Vec<Arc<Boards>>,
}

impl Before {
    /// Returns the newest mark; none if no store was seen.
    #[must_use]
    pub const fn mark(&self) -> Option<Mark> {
        self.mark
    }

    /// Whether a store that ends anywhere may be the one that was there.
    #[must_use]
    pub fn fits_any_ends(&self) -> bool {
        self.ends.iter().all(|own| own.boards.is_empty())
    }
}

/// Marks of the store that was seen.
#[derive(Clone, Copy, Debug)]
struct Marks {
    newest: Mark,
    /// Newest mark at which a node lacked nothing; before the first, one that is older than any.
    confirmed: Mark,
    /// Whether the store was found to lack something, and was not confirmed since.
    is_in_doubt: bool,
}

impl Marks {
    const fn new(first: Mark) -> Self {
        let confirmed = Mark { cluster: first.cluster, epoch: StoreEpoch(0), clock_ms: 0 };
        Self { newest: first, confirmed, is_in_doubt: false }
    }

    const fn doubt(&mut self) {
        self.newest = self.confirmed;
        self.is_in_doubt = true;
    }
}

impl Seen {
    /// Returns a memory that has seen nothing. `kind` names what holds the store, such as `file`.
    #[must_use]
    pub fn new(expected: Expected, kind: &'static str) -> Self {
        Self { expected, kind, marks: Mutex::new(None), ends: OwnEndsOfAll::default() }
    }

    fn marks(&self) -> MutexGuard<'_, Option<Marks>> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the newest mark. A mark read from now on must not be older.
    #[must_use]
    pub fn newest(&self) -> Option<Mark> {
        self.marks().map(|marks| marks.newest)
    }

    /// Compares new connections with what a node has from now on.
    pub fn compare(&self, ends: &OwnEnds) {
        self.ends.add(ends);
    }

    /// Returns what a connection that is made from now on is to be compared with.
    #[must_use]
    pub fn before(&self) -> Before {
        let marks = *self.marks();
        Before {
            mark: marks.map(|marks| marks.newest),
            confirmed: marks.map(|marks| marks.confirmed),
            ends: self.ends.get(),
        }
    }

    pub(super) fn may_create(&self) -> bool {
        self.expected == Expected::AnyOrNew && self.newest().is_none()
    }

    /// Compares a mark with the newest one from before it was read, and keeps it.
    ///
    /// # Errors
    /// [`StoreError::Away`] when it is of another store than was seen, or older;
    /// [`StoreError::Refused`] when nothing was seen and it is of another cluster than expected.
    pub fn check(&self, before: Option<Mark>, now: Mark) -> Result<(), StoreError> {
        self.check_mark(before, now)?;
        self.raise(now);
        Ok(())
    }

    /// Compares the mark and the boards of a new connection with what was known before it was made, and
    /// keeps the mark. `boards` are read after the mark.
    ///
    /// # Errors
    /// As [`Self::check`]; [`StoreError::Away`] as well when the store lacks what a node has, as after
    /// [`Self::doubt`].
    pub fn check_new(&self, before: &Before, now: Mark, boards: &Boards) -> Result<(), StoreError> {
        self.check_mark(before.mark, now)?;
        if let Some(why) = before.ends.iter().find_map(|own| lack(own, boards)) {
            self.doubt_copy(before, now);
            return Err(StoreError::away(AwayReason::RolledBack, why));
        }
        self.raise(now);
        Ok(())
    }

    /// Doubts what was seen, as [`Self::doubt`] does, unless it was confirmed since `before`. The cluster of
    /// the copy counts as seen.
    fn doubt_copy(&self, before: &Before, copy: Mark) {
        match &mut *self.marks() {
            Some(marks) if before.confirmed.is_some_and(|before| before != marks.confirmed) => {}
            Some(marks) => marks.doubt(),
            none @ None => none.insert(Marks::new(copy)).doubt(),
        }
    }

    fn check_mark(&self, before: Option<Mark>, now: Mark) -> Result<(), StoreError> {
        match (before, self.expected) {
            (Some(before), _) if before.cluster != now.cluster => {
                let why = format!("it is that of another cluster now, {}", short(now.cluster));
                Err(StoreError::away(AwayReason::Replaced, why))
            }
            (Some(before), _) if (now.epoch, now.clock_ms) < (before.epoch, before.clock_ms) => {
                let why = format!(
                    "it is an older copy: it ends {} ms before what was seen of epoch {}; put the \
                     newer {} back",
                    before.clock_ms.saturating_sub(now.clock_ms),
                    before.epoch,
                    self.kind
                );
                Err(StoreError::away(AwayReason::RolledBack, why))
            }
            (None, Expected::Cluster(ours)) if ours != now.cluster => Err(refused(format!(
                "it is the store of cluster {}, and this node belongs to {}; name its own \
                     with --store, or give the node a new --data-dir",
                short(now.cluster),
                short(ours)
            ))),
            _ => Ok(()),
        }
    }

    /// Keeps a mark of the store, unless a newer one was seen, or what is there may be an older copy.
    pub fn raise(&self, now: Mark) {
        match &mut *self.marks() {
            Some(marks) if marks.is_in_doubt => {}
            Some(marks) => marks.newest = marks.newest.later(now),
            none @ None => *none = Some(Marks::new(now)),
        }
    }

    /// Keeps the mark of a read of the boards in which a node lacked nothing. `as_of_ms` is the store's
    /// clock, as that read saw it.
    pub fn confirm(&self, epoch: StoreEpoch, as_of_ms: u64) {
        if let Some(marks) = &mut *self.marks() {
            let read = Mark { epoch, clock_ms: as_of_ms, ..marks.newest };
            marks.confirmed = marks.confirmed.later(read);
            marks.newest = marks.newest.later(read);
            marks.is_in_doubt = false;
        }
    }

    /// Goes back to the last confirmed mark, and stays there until the next one: the store lacks what a node
    /// has of it. The cluster stays known, so no other store is taken and none is made.
    pub fn doubt(&self) {
        if let Some(marks) = &mut *self.marks() {
            marks.doubt();
        }
    }

    /// Names what an error of opening means once a store was seen: an operator may put it back.
    pub(super) fn while_running(&self, error: StoreError) -> StoreError {
        if self.newest().is_none() {
            return error;
        }
        match error {
            StoreError::Refused { why } => StoreError::away(AwayReason::Replaced, why),
            StoreError::Broken { why } => StoreError::away(AwayReason::Damaged, why),
            // It is there, but no store was made in it.
            StoreError::Away { reason: AwayReason::Gone, why } => {
                StoreError::away(AwayReason::Replaced, why)
            }
            other => other,
        }
    }
}

/// Returns the beginning of a cluster's id, which tells it from others.
fn short(cluster: [u8; 16]) -> String {
    hex::encode(&cluster[..4])
}

#[cfg(test)]
mod tests {
    use super::{super::own_ends::tests::boards, *};

    fn mark(cluster: u8, epoch: u64, clock_ms: u64) -> Mark {
        Mark { cluster: [cluster; 16], epoch: StoreEpoch(epoch), clock_ms }
    }

    #[test]
    fn mark_of_another_cluster_or_of_an_earlier_time_is_away() {
        let seen = Seen::new(Expected::AnyOrNew, "file");
        let check = |now| seen.check(seen.newest(), now).map_err(|error| error.away_reason());
        assert!(seen.may_create());
        assert_eq!(check(mark(1, 5, 100)), Ok(()));
        assert!(!seen.may_create(), "a store that was seen is never made again");
        assert_eq!(check(mark(1, 5, 100)), Ok(()));
        assert_eq!(check(mark(1, 5, 99)), Err(Some(AwayReason::RolledBack)));
        assert_eq!(check(mark(1, 4, 200)), Err(Some(AwayReason::RolledBack)));
        assert_eq!(check(mark(2, 6, 200)), Err(Some(AwayReason::Replaced)));
        assert_eq!(check(mark(1, 6, 10)), Ok(()), "a new epoch begins with a backup");
        assert_eq!(check(mark(1, 5, 300)), Err(Some(AwayReason::RolledBack)));
    }

    #[test]
    fn mark_read_beside_a_newer_one_is_no_rollback() {
        let seen = Seen::new(Expected::AnyOrNew, "file");
        seen.check(None, mark(1, 5, 100)).expect("the first");
        let before = seen.newest();
        seen.check(before, mark(1, 5, 200)).expect("by another thread");
        assert_eq!(seen.check(before, mark(1, 5, 150)), Ok(()));
        assert_eq!(seen.newest(), Some(mark(1, 5, 200)));
    }

    #[test]
    fn store_of_another_cluster_is_refused_at_the_start() {
        let seen = Seen::new(Expected::Cluster([1; 16]), "file");
        assert!(!seen.may_create());
        let refused = seen.check(None, mark(2, 5, 100));
        assert!(matches!(refused, Err(StoreError::Refused { .. })), "{refused:?}");
        assert_eq!(seen.newest(), None);
    }

    /// Returns what a process has seen that polled a store last at 200, and then met an older copy of it:
    /// one that ended at 150, and that somebody else wrote to at 300.
    fn at_a_written_copy() -> Seen {
        let seen = Seen::new(Expected::AnyOrNew, "file");
        seen.check(seen.newest(), mark(1, 5, 100)).expect("the first");
        seen.confirm(StoreEpoch(5), 200);
        seen.raise(mark(1, 5, 210));
        let older = seen.check(seen.newest(), mark(1, 5, 150)).map_err(|e| e.away_reason());
        assert_eq!(older, Err(Some(AwayReason::RolledBack)));
        seen.check(seen.newest(), mark(1, 5, 300)).expect("its clock is the newest");
        seen
    }

    #[test]
    fn newer_store_is_taken_back_once_the_copy_that_others_wrote_to_is_in_doubt() {
        let seen = at_a_written_copy();
        let check = |now| seen.check(seen.newest(), now).map_err(|error| error.away_reason());
        assert_eq!(
            check(mark(1, 5, 210)),
            Err(Some(AwayReason::RolledBack)),
            "nobody knows better"
        );
        seen.doubt();
        assert_eq!(seen.newest(), Some(mark(1, 5, 200)));
        assert_eq!(check(mark(1, 5, 310)), Ok(()), "the copy is still there");
        seen.raise(mark(1, 5, 320));
        assert_eq!(check(mark(1, 5, 199)), Err(Some(AwayReason::RolledBack)));
        assert_eq!(check(mark(1, 5, 210)), Ok(()), "the newer store");
        seen.confirm(StoreEpoch(5), 210);
        assert_eq!(check(mark(1, 5, 220)), Ok(()));
        assert_eq!(check(mark(1, 5, 219)), Err(Some(AwayReason::RolledBack)), "raised as before");
    }

    #[test]
    fn confirmation_of_an_earlier_read_raises_no_further_than_that_read() {
        let seen = at_a_written_copy();
        seen.confirm(StoreEpoch(5), 190);
        seen.confirm(StoreEpoch(5), 205);
        seen.doubt();
        assert_eq!(seen.newest(), Some(mark(1, 5, 205)));
        seen.confirm(StoreEpoch(6), 10);
        assert_eq!(seen.newest(), Some(mark(1, 6, 10)), "a new epoch begins with a backup");
    }

    #[test]
    fn doubt_before_any_confirmation_keeps_the_cluster_and_makes_no_store() {
        for expected in [Expected::AnyOrNew, Expected::Existing, Expected::Cluster([1; 16])] {
            let seen = Seen::new(expected, "file");
            seen.doubt();
            seen.confirm(StoreEpoch(5), 400);
            assert_eq!(seen.newest(), None, "no store was seen");
            let check = |now| seen.check(seen.newest(), now).map_err(|error| error.away_reason());
            assert_eq!(check(mark(1, 5, 300)), Ok(()));
            seen.doubt();
            assert!(!seen.may_create());
            assert_eq!(check(mark(2, 5, 400)), Err(Some(AwayReason::Replaced)));
            assert_eq!(check(mark(1, 5, 200)), Ok(()), "it may be the newer store");
        }
    }

    /// Checks a connection that is made now.
    fn checked(seen: &Seen, now: Mark, boards: &Boards) -> Result<(), Option<AwayReason>> {
        let checked = seen.check_new(&seen.before(), now, boards);
        checked.map_err(|error| error.away_reason())
    }

    #[test]
    fn first_connection_to_a_copy_makes_its_cluster_known() {
        let (seen, ends) = (Seen::new(Expected::AnyOrNew, "file"), OwnEnds::default());
        seen.compare(&ends);
        ends.set(boards(5, 4));
        let check = |now, boards| checked(&seen, now, &boards);
        assert_eq!(check(mark(1, 5, 200), boards(5, 3)), Err(Some(AwayReason::RolledBack)));
        assert!(!seen.may_create());
        assert_eq!(check(mark(2, 5, 300), boards(5, 4)), Err(Some(AwayReason::Replaced)));
        assert_eq!(check(mark(1, 5, 100), boards(5, 4)), Ok(()), "it may be the newer store");
    }

    #[test]
    fn new_connection_to_a_store_that_lacks_what_a_node_has_is_given_up_whatever_its_clock_says() {
        let seen = Seen::new(Expected::AnyOrNew, "file");
        let (one, other) = (OwnEnds::default(), OwnEnds::default());
        seen.compare(&one);
        seen.compare(&other);
        assert!(seen.before().fits_any_ends());
        let check = |now, boards| checked(&seen, now, &boards);
        assert_eq!(check(mark(1, 5, 100), boards(5, 3)), Ok(()));
        seen.confirm(StoreEpoch(5), 100);
        other.set(boards(5, 4));
        assert!(!seen.before().fits_any_ends());
        assert_eq!(check(mark(1, 5, 200), boards(5, 3)), Err(Some(AwayReason::RolledBack)));
        assert_eq!(seen.newest(), Some(mark(1, 5, 100)), "the copy's clock counts for nothing");
        assert_eq!(check(mark(1, 5, 110), boards(5, 4)), Ok(()), "the newer one");
        let (late, copy) = (seen.before(), boards(5, 3));
        seen.confirm(StoreEpoch(5), 120);
        seen.raise(mark(1, 5, 130));
        assert!(seen.check_new(&late, mark(1, 5, 140), &copy).is_err());
        assert_eq!(seen.newest(), Some(mark(1, 5, 130)), "confirmed since");
        assert_eq!(check(mark(1, 6, 10), boards(6, 1)), Ok(()), "a new epoch begins with a backup");
        let earlier = seen.before();
        one.set(boards(6, 2));
        let checked = seen.check_new(&earlier, mark(1, 6, 10), &boards(6, 1));
        assert_eq!(checked, Ok(()), "what came since the connection was begun is no evidence");
    }
}
