//! Memory of the store that a node saw: its connections must not lead to an older copy.
//!
//! The rules are those of the product's own backends. The clock of an older copy goes on once somebody writes to
//! it, so a mark is *confirmed* only by a read of the boards that lacked nothing. Once a read lacked something,
//! the confirmed mark alone counts, until the next one is confirmed.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::frames::Mark;

/// Places of the store in its history that a node saw.
#[derive(Debug, Default)]
pub(super) struct Seen(Mutex<Marks>);

#[derive(Debug, Default)]
struct Marks {
    newest: Option<Mark>,
    /// Newest mark at which the node lacked nothing.
    confirmed: Option<Mark>,
    /// Whether the store was found to lack something, and was not confirmed since.
    is_in_doubt: bool,
}

impl Seen {
    fn marks(&self) -> MutexGuard<'_, Marks> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the newest mark. The store of a connection that begins now must not be older.
    pub(super) fn newest(&self) -> Option<Mark> {
        self.marks().newest
    }

    /// Keeps a mark, unless a newer one was seen, or what is there may be an older copy.
    pub(super) fn raise(&self, mark: Mark) {
        let mut marks = self.marks();
        if !marks.is_in_doubt {
            marks.newest = marks.newest.max(Some(mark));
        }
    }

    /// Keeps the mark of a read of the boards that lacked nothing.
    pub(super) fn confirm(&self, mark: Mark) {
        let mut marks = self.marks();
        marks.confirmed = marks.confirmed.max(Some(mark));
        marks.newest = marks.newest.max(Some(mark));
        marks.is_in_doubt = false;
    }

    /// Goes back to the last confirmed mark, and stays there until the next one.
    pub(super) fn doubt(&self) {
        let mut marks = self.marks();
        marks.newest = marks.confirmed;
        marks.is_in_doubt = true;
    }
}

#[cfg(test)]
mod tests {
    use chatchat::model::ids::StoreEpoch;

    use super::*;

    const fn mark(epoch: u64, clock_ms: u64) -> Mark {
        Mark { epoch: StoreEpoch(epoch), clock_ms }
    }

    #[test]
    fn newest_mark_only_rises_and_a_new_epoch_is_newer_than_any_before() {
        let seen = Seen::default();
        assert_eq!(seen.newest(), None);
        for (next, newest) in [
            (mark(5, 100), mark(5, 100)),
            (mark(5, 90), mark(5, 100)),
            (mark(6, 10), mark(6, 10)),
            (mark(5, 200), mark(6, 10)),
        ] {
            seen.raise(next);
            assert_eq!(seen.newest(), Some(newest));
        }
    }

    #[test]
    fn doubted_mark_falls_back_to_the_confirmed_one_until_another_is_confirmed() {
        let seen = Seen::default();
        seen.raise(mark(5, 100));
        seen.confirm(mark(5, 200));
        seen.raise(mark(5, 300));
        seen.doubt();
        assert_eq!(seen.newest(), Some(mark(5, 200)), "others may have written to a copy");
        seen.raise(mark(5, 310));
        assert_eq!(seen.newest(), Some(mark(5, 200)), "that may still be the copy");
        seen.confirm(mark(5, 210));
        seen.raise(mark(5, 220));
        assert_eq!(seen.newest(), Some(mark(5, 220)));
        seen.confirm(mark(5, 205));
        seen.doubt();
        assert_eq!(seen.newest(), Some(mark(5, 210)), "an earlier read confirms nothing more");
    }
}
