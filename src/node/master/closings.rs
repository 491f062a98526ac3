//! Sessions that were closed, as the store lists them.
//!
//! 1. A poll reads one page. A full one is followed by the next at once, beside the poll and one at a time: a
//!    log-out waits for no more than the store takes to list what it keeps, also at a master that just started.

use super::{Driver, input::Input};
use crate::{model::ids::SessionKey, store::is_full_page};

/// Place in the store's list of closed sessions.
///
/// It begins at the oldest that is kept: a node database may give out a session that ended long ago.
#[derive(Debug, Default)]
pub(super) struct Closings {
    mark: u64,
    /// Whether a page is being read beside the poll.
    reads_on: bool,
}

impl Closings {
    /// Returns the mark from which a poll reads, unless that is being done beside it.
    pub(super) fn of_poll(&self) -> Option<u64> {
        (!self.reads_on).then_some(self.mark)
    }

    /// Takes in the end of a page. Returns the mark from which the next one is to be read now, if there is one.
    fn on_page(&mut self, is_full: bool, mark: u64) -> Option<u64> {
        self.reads_on = is_full && mark > self.mark;
        self.mark = mark;
        self.reads_on.then_some(mark)
    }

    /// Takes in that the store did not answer: the next poll reads from the same mark.
    fn on_failure(&mut self) {
        self.reads_on = false;
    }
}

impl Driver {
    /// Ends the sessions of a page, and has the next one read if there may be more.
    pub(super) fn on_closings(&mut self, page: Option<(Vec<SessionKey>, u64)>) {
        let Some((keys, mark)) = page else { return self.poll.closings.on_failure() };
        let next = self.poll.closings.on_page(is_full_page(&keys), mark);
        for key in keys {
            self.on_session_closed(key);
        }
        if let Some(mark) = next {
            let store = self.store.clone();
            self.spawn("closings", async move {
                Input::ClosingsRead(store.closed_since(mark).await.ok())
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_page_of_closings_is_followed_by_the_next_and_no_poll_reads_meanwhile() {
        let mut closings = Closings::default();
        assert_eq!(closings.of_poll(), Some(0));
        assert_eq!(closings.on_page(true, 10), Some(10));
        assert_eq!(closings.of_poll(), None, "the page comes beside the poll");
        assert_eq!(closings.on_page(true, 20), Some(20));
        assert_eq!(closings.on_page(false, 25), None);
        assert_eq!(closings.of_poll(), Some(25));
    }

    #[test]
    fn closings_that_were_not_read_and_a_list_that_stands_still_are_left_to_the_next_poll() {
        let mut closings = Closings::default();
        assert_eq!(closings.on_page(true, 10), Some(10));
        closings.on_failure();
        assert_eq!(closings.of_poll(), Some(10));
        assert_eq!(closings.on_page(true, 10), None, "a full page that ends where it began");
        assert_eq!(closings.of_poll(), Some(10));
    }
}
