//! Pages that a fault of the story keeps closed: their people come back with session, outbox and
//! cursor.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::Notify;

/// Pages that are closed now. The faults close and open them; each person looks at its own.
#[derive(Debug, Default)]
pub struct ClosedPages {
    /// Number of faults that keep a person's page closed, by the person's number.
    closed: Mutex<BTreeMap<usize, usize>>,
    changed: Notify,
    /// Pages that went away so far.
    went_away: AtomicU64,
}

impl ClosedPages {
    /// Closes a person's page. It may be closed several times, and is then opened as often.
    pub fn close(&self, person: usize) {
        let mut closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        *closed.entry(person).or_default() += 1;
        drop(closed);
        self.changed.notify_waiters();
    }

    /// Ends one closing of a person's page.
    pub fn open(&self, person: usize) {
        let mut closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(times) = closed.get_mut(&person) {
            *times -= 1;
            if *times == 0 {
                closed.remove(&person);
            }
        }
        drop(closed);
        self.changed.notify_waiters();
    }

    /// Returns how many pages went away so far, as it grows.
    #[must_use]
    pub fn went_away(&self) -> u64 {
        self.went_away.load(Ordering::Relaxed)
    }

    /// Notes that a person's page went away.
    pub(super) fn goes_away(&self) {
        self.went_away.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns whether a person's page is closed.
    pub(super) fn is_closed(&self, person: usize) -> bool {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&person)
    }

    /// Returns once a person's page is closed, or open.
    pub(super) async fn until(&self, person: usize, is_closed: bool) {
        loop {
            let changed = self.changed.notified();
            if self.is_closed(person) == is_closed {
                return;
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_closed_twice_is_opened_twice() {
        let pages = ClosedPages::default();
        pages.close(3);
        pages.close(3);
        pages.open(3);
        assert!(pages.is_closed(3) && !pages.is_closed(2));
        pages.open(3);
        pages.open(3);
        assert!(!pages.is_closed(3));
    }

    #[tokio::test]
    async fn person_waits_for_its_own_page() {
        let pages = ClosedPages::default();
        pages.until(1, false).await;
        let waits = pages.until(1, true);
        let closes = async {
            pages.close(2);
            tokio::task::yield_now().await;
            pages.close(1);
        };
        tokio::join!(waits, closes);
        assert!(pages.is_closed(1));
    }
}
