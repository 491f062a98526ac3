//! Sessions that were closed, as the store lists them.
//!
//! 1. A poll reads one page. A full one is followed by the next at once, beside the poll and one at a time: a
//!    log-out waits for no more than the store takes to list what it keeps, also at a master that just started.

use super::{
    Driver,
    input::{ClosingsMark, Input},
};
use crate::{
    model::ids::StoreEpoch,
    store::closings::{ClosingsPage, ClosingsPlace},
};

/// Place in the store's list of closed sessions.
///
/// It begins at the oldest that is kept: a node database may give out a session that ended long ago.
#[derive(Debug, Default)]
pub(super) struct Closings {
    mark: ClosingsMark,
    /// Whether a page is being read beside the poll.
    reads_on: bool,
}

impl Closings {
    /// Returns the mark from which a poll reads, unless that is being done beside it.
    pub(super) fn of_poll(&self) -> Option<ClosingsMark> {
        (!self.reads_on).then_some(self.mark)
    }

    /// Begins again at the oldest: the store of another epoch has numbers of its own.
    pub(super) fn on_epoch(&mut self, epoch: StoreEpoch) {
        let place = ClosingsPlace::default();
        *self = Self { mark: ClosingsMark { epoch, place }, reads_on: false };
    }

    /// Takes in the end of a page. Returns the mark from which the next one is to be read now, if there is one.
    fn on_page(
        &mut self,
        from: ClosingsMark,
        is_full: bool,
        end: ClosingsPlace,
    ) -> Option<ClosingsMark> {
        if from.epoch != self.mark.epoch {
            return None;
        }
        self.reads_on = is_full && end != self.mark.place;
        self.mark.place = end;
        self.reads_on.then_some(self.mark)
    }

    /// Takes in that the store did not answer: the next poll reads from the same mark.
    fn on_failure(&mut self, from: ClosingsMark) {
        if from.epoch == self.mark.epoch {
            self.reads_on = false;
        }
    }
}

impl Driver {
    /// Ends the sessions of a page, and has the next one read if there may be more.
    pub(super) fn on_closings(&mut self, from: ClosingsMark, page: Option<ClosingsPage>) {
        let Some(ClosingsPage { keys, end, is_full }) = page else {
            return self.poll.closings.on_failure(from);
        };
        let next = self.poll.closings.on_page(from, is_full, end);
        for key in keys {
            self.on_session_closed(key);
        }
        if let Some(from) = next {
            let store = self.store.clone();
            self.spawn("closings", async move {
                let page = store.closings(from.place).await.ok();
                Input::ClosingsRead { from, page }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn behind(number: u64) -> ClosingsPlace {
        ClosingsPlace::behind(number)
    }

    fn mark(epoch: u64, number: u64) -> ClosingsMark {
        ClosingsMark { epoch: StoreEpoch(epoch), place: behind(number) }
    }

    #[test]
    fn full_page_of_closings_is_followed_by_the_next_and_no_poll_reads_meanwhile() {
        let mut closings = Closings::default();
        assert_eq!(closings.of_poll(), Some(mark(0, 0)));
        assert_eq!(closings.on_page(mark(0, 0), true, behind(10)), Some(mark(0, 10)));
        assert_eq!(closings.of_poll(), None, "the page comes beside the poll");
        assert_eq!(closings.on_page(mark(0, 10), true, behind(20)), Some(mark(0, 20)));
        assert_eq!(closings.on_page(mark(0, 20), false, behind(25)), None);
        assert_eq!(closings.of_poll(), Some(mark(0, 25)));
    }

    #[test]
    fn closings_that_were_not_read_and_a_list_that_stands_still_are_left_to_the_next_poll() {
        let mut closings = Closings::default();
        assert_eq!(closings.on_page(mark(0, 0), true, behind(10)), Some(mark(0, 10)));
        closings.on_failure(mark(0, 10));
        assert_eq!(closings.of_poll(), Some(mark(0, 10)));
        let next = closings.on_page(mark(0, 10), true, behind(10));
        assert_eq!(next, None, "a full page that ends where it began");
        assert_eq!(closings.of_poll(), Some(mark(0, 10)));
    }

    #[test]
    fn restored_store_is_read_from_its_oldest_closing_whatever_was_on_its_way() {
        let mut closings = Closings::default();
        let old = closings.on_page(mark(0, 0), true, behind(900)).expect("there is more");
        closings.on_epoch(StoreEpoch(2));
        assert_eq!(closings.of_poll(), Some(mark(2, 0)), "its numbers are lower");
        assert_eq!(closings.on_page(old, true, behind(1000)), None, "of the store before");
        assert_eq!(closings.of_poll(), Some(mark(2, 0)));
        assert_eq!(closings.on_page(mark(2, 0), true, behind(10)), Some(mark(2, 10)));
        closings.on_failure(old);
        assert_eq!(closings.of_poll(), None, "the next page of the new one is being read");
    }
}
