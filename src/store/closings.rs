//! Reading of the list of closed sessions, page after page, in a store that may be another one by now.
//!
//! 1. The list grows at its end, and its rows are numbered. A restored store, or an older copy whose place the
//!    newer one took again, has other sessions under the same numbers: what was closed there is listed behind
//!    the reader's back.
//! 2. So a page begins with the last session that was read. Where another one stands, the list is read from
//!    its oldest again, at most 40 days of it.

use super::{CLOSED_PAGE_MAX, Store};
use crate::model::{ids::SessionKey, rows::StoreError};

/// Place in the list of closed sessions: behind the last one that was read, or before the oldest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClosingsPlace(Option<(u64, SessionKey)>);

#[cfg(test)]
impl ClosingsPlace {
    /// Returns the place behind a session, made up from its number.
    pub(crate) fn behind(number: u64) -> Self {
        Self((number > 0).then_some((number, SessionKey([number as u8; 32]))))
    }
}

/// Page of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClosingsPage {
    /// Sessions that were closed, [`CLOSED_PAGE_MAX`] at most. After the list was begun
    /// again they may have been read before.
    pub keys: Vec<SessionKey>,
    /// Place behind them.
    pub end: ClosingsPlace,
    /// Whether there may be more.
    pub is_full: bool,
}

impl ClosingsPage {
    fn of(rows: Vec<SessionKey>, number: u64) -> Self {
        let end = ClosingsPlace(rows.last().map(|key| (number, *key)));
        Self { is_full: rows.len() >= CLOSED_PAGE_MAX as usize, keys: rows, end }
    }
}

impl Store {
    /// Reads a page of the closed sessions that follow a place, or that follow the oldest if the place is not in
    /// the list any more.
    pub async fn closings(&self, from: ClosingsPlace) -> Result<ClosingsPage, StoreError> {
        if let ClosingsPlace(Some((number, last))) = from {
            let (rows, end) = self.closed_since(number.saturating_sub(1)).await?;
            if let Some((first, _)) = rows.split_first()
                && *first == last
            {
                let mut page = ClosingsPage::of(rows, end);
                page.keys.remove(0);
                return Ok(page);
            }
        }
        let (rows, end) = self.closed_since(0).await?;
        Ok(ClosingsPage::of(rows, end))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::{
        env::BoxFuture,
        store::{Backend, Op, OpReply},
    };

    /// Store that has these numbers and sessions on its list, and nothing else.
    #[derive(Clone, Default)]
    struct Listed(Arc<Mutex<Vec<(u64, SessionKey)>>>);

    impl Listed {
        fn set(&self, rows: impl IntoIterator<Item = (u64, u64)>) {
            let rows = rows.into_iter().map(|(number, nth)| (number, key(nth)));
            *self.0.lock().expect("not poisoned") = rows.collect();
        }
    }

    impl Backend for Listed {
        fn call(&self, op: Op) -> BoxFuture<'_, Result<OpReply, StoreError>> {
            let Op::ClosedSince(mark) = op else { panic!("{op:?}") };
            let rows = self.0.lock().expect("not poisoned").clone();
            let behind = rows.into_iter().filter(move |(number, _)| *number > mark);
            let (numbers, keys): (Vec<_>, _) = behind.take(CLOSED_PAGE_MAX as usize).unzip();
            let mark = numbers.last().copied().unwrap_or(mark);
            Box::pin(async move { Ok(OpReply::Closed { keys, mark }) })
        }
    }

    fn key(nth: u64) -> SessionKey {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&nth.to_be_bytes());
        SessionKey(bytes)
    }

    async fn read(store: &Store, from: ClosingsPlace) -> (Vec<SessionKey>, ClosingsPlace) {
        let page = store.closings(from).await.expect("read");
        assert!(!page.is_full);
        (page.keys, page.end)
    }

    #[tokio::test]
    async fn each_session_is_read_once_while_the_list_grows() {
        let list = Listed::default();
        let store = Store::new(list.clone());
        let (keys, from) = read(&store, ClosingsPlace::default()).await;
        assert_eq!((keys, from), (vec![], ClosingsPlace::default()));
        list.set([(3, 1), (4, 2)]);
        let (keys, from) = read(&store, from).await;
        assert_eq!(keys, [1, 2].map(key));
        assert_eq!(read(&store, from).await, (vec![], from));
        // The first was dropped for its age, and numbers may be left out.
        list.set([(4, 2), (7, 3)]);
        let (keys, from) = read(&store, from).await;
        assert_eq!((keys, read(&store, from).await), (vec![key(3)], (vec![], from)));
    }

    #[tokio::test]
    async fn list_with_another_session_at_the_place_is_read_from_its_oldest() {
        let list = Listed::default();
        let store = Store::new(list.clone());
        list.set([(1, 1), (2, 8), (3, 9)]);
        let (_, from) = read(&store, ClosingsPlace::default()).await;
        for other in [vec![(1, 1), (2, 2), (3, 3), (4, 4)], vec![(1, 1), (2, 2)], vec![(5, 5)]] {
            list.set(other.clone());
            let all: Vec<_> = other.iter().map(|(_, nth)| key(*nth)).collect();
            let (keys, end) = read(&store, from).await;
            assert_eq!((keys, read(&store, end).await), (all, (vec![], end)));
        }
        list.set([]);
        assert_eq!(read(&store, from).await, (vec![], ClosingsPlace::default()));
    }

    #[tokio::test]
    async fn long_list_is_read_page_by_page_without_repetition() {
        let list = Listed::default();
        let store = Store::new(list.clone());
        let all = 2 * u64::from(CLOSED_PAGE_MAX) + 5;
        list.set((1..=all).map(|nth| (nth, nth)));
        let (mut from, mut keys) = (ClosingsPlace::default(), Vec::new());
        loop {
            let page = store.closings(from).await.expect("read");
            assert_ne!(page.end, from);
            from = page.end;
            keys.extend(page.keys);
            if !page.is_full {
                break;
            }
        }
        assert_eq!(keys, (1..=all).map(key).collect::<Vec<_>>());
    }
}
